//! Samples, their median and spread, and the table they end up in.

use std::fmt;
use std::time::Duration;

/// What is measured, in the order of the table, with the target of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    CreateToRunning,
    ExitToReplaced,
    WorkerLossToReplaced,
    LeaderLossToWrite,
    RollTen,
}

impl Figure {
    const ALL: [Self; 5] = [
        Self::CreateToRunning,
        Self::ExitToReplaced,
        Self::WorkerLossToReplaced,
        Self::LeaderLossToWrite,
        Self::RollTen,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::CreateToRunning => "create to two replicas running",
            Self::ExitToReplaced => "container killed to replacement running",
            Self::WorkerLossToReplaced => "worker loses power to replacement running",
            Self::LeaderLossToWrite => "leader loses power to first write",
            Self::RollTen => "update of ten replicas, two at a time, to all ten new ones running",
        }
    }

    fn target(self) -> &'static str {
        match self {
            Self::CreateToRunning => "< 100 ms",
            Self::ExitToReplaced => "< 60 ms",
            Self::WorkerLossToReplaced => "<= 3.5 s, never > 4 s",
            Self::LeaderLossToWrite => "<= 1 s, never > 3 s",
            Self::RollTen => "< 1.5 s beside the monitor time",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Ours,
    Swarm,
}

/// What one process needs while nothing happens.
pub struct Idle {
    pub contender: Contender,
    pub process: String,
    pub count: usize,
    pub rss_kib: u64,
    pub pss_kib: u64,
    pub cpu_percent: f64,
}

/// Everything measured in one run of the bench.
pub struct Report {
    runs: usize,
    samples: Vec<(Figure, Contender, Duration)>,
    idle: Vec<Idle>,
    notes: Vec<String>,
}

impl Report {
    pub fn new(runs: usize) -> Self {
        Self { runs, samples: Vec::new(), idle: Vec::new(), notes: Vec::new() }
    }

    pub fn sample(&mut self, figure: Figure, contender: Contender, took: Duration) {
        eprintln!("    {}: {}", figure.title(), shown(took));
        self.samples.push((figure, contender, took));
    }

    pub fn idle(&mut self, idle: Idle) {
        self.idle.push(idle);
    }

    pub fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    fn cell(&self, figure: Figure, contender: Contender) -> String {
        let mine = self.samples.iter().filter(|(f, c, _)| (*f, *c) == (figure, contender));
        let mut samples: Vec<Duration> = mine.map(|(_, _, took)| *took).collect();
        samples.sort();
        match (samples.first(), samples.last(), median(&samples)) {
            (Some(least), Some(most), Some(median)) => {
                format!(
                    "**{}** ({} to {}, n={})",
                    shown(median),
                    shown(*least),
                    shown(*most),
                    samples.len()
                )
            }
            _ => "-".to_owned(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        writeln!(
            f,
            "Medians of {} runs (least to most), {cores} cores, Linux {}.\n",
            self.runs,
            kernel.trim()
        )?;
        writeln!(f, "| what | here | Docker Swarm | target |\n| --- | --- | --- | --- |")?;
        for figure in Figure::ALL {
            let (ours, swarm) =
                (self.cell(figure, Contender::Ours), self.cell(figure, Contender::Swarm));
            writeln!(f, "| {} | {ours} | {swarm} | {} |", figure.title(), figure.target())?;
        }
        writeln!(f, "\nIdle, median process of each kind:\n")?;
        writeln!(
            f,
            "| process | of | count | RSS MiB | PSS MiB | CPU % of a core |\n| --- | --- | --- | --- | --- | --- |"
        )?;
        for idle in &self.idle {
            let of = if idle.contender == Contender::Ours { "here" } else { "Docker Swarm" };
            let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
            writeln!(
                f,
                "| {} | {of} | {} | {} | {} | {:.2} |",
                idle.process,
                idle.count,
                mib(idle.rss_kib),
                mib(idle.pss_kib),
                idle.cpu_percent
            )?;
        }
        if !self.notes.is_empty() {
            writeln!(f)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "- {note}"))
    }
}

/// The middle of sorted samples; of an even number the mean of the two in the middle.
fn median(sorted: &[Duration]) -> Option<Duration> {
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some((lower + upper) / 2)
}

fn shown(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{:.0} ms", took.as_secs_f64() * 1000.0)
    } else {
        format!("{:.2} s", took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let ms =
            |values: &[u64]| values.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(median(&[]), None);
        assert_eq!(median(&ms(&[1, 2, 9])), Some(Duration::from_millis(2)));
        assert_eq!(median(&ms(&[1, 2, 4, 9])), Some(Duration::from_millis(3)));
    }

    #[test]
    fn the_table_has_a_row_for_every_figure() {
        let mut report = Report::new(10);
        report.sample(Figure::ExitToReplaced, Contender::Ours, Duration::from_millis(50));
        let text = report.to_string();
        assert!(text.contains("**50 ms** (50 ms to 50 ms, n=1) | - | < 60 ms"), "{text}");
        assert!(Figure::ALL.iter().all(|figure| text.contains(figure.title())));
    }
}
