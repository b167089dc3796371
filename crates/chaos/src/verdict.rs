//! What a run came to, for people and for exit codes.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::check::Objection;
use crate::check::growth::{Gauge, Growth, Trend};
use crate::history::Counts;
use crate::load::Visits;

/// Objections of one rule that are shown.
const SHOWN_MAX: usize = 10;
const MIB: f64 = (1 << 20) as f64;

/// The whole outcome of a run.
#[derive(Debug)]
pub struct Verdict {
    pub(crate) seed: u64,
    pub(crate) lasted: Duration,
    pub(crate) faults: usize,
    pub(crate) counts: BTreeMap<&'static str, Counts>,
    pub(crate) sightings: usize,
    pub(crate) visits: BTreeMap<String, Visits>,
    pub(crate) failovers: Vec<Duration>,
    pub(crate) converged: Option<Duration>,
    /// Samples in which slots could be judged, and all.
    pub(crate) samples: (u64, u64),
    pub(crate) daemons: Vec<Daemon>,
    pub(crate) objections: Vec<Objection>,
}

/// What one daemon used.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    lives: usize,
    last: Option<Gauge>,
    growth: Growth,
}

impl Daemon {
    pub fn new(name: &str, gauges: &[Gauge], growth: Growth) -> Self {
        let lives = gauges.chunk_by(|a, b| a.pid == b.pid).count();
        Self { name: name.to_owned(), lives, last: gauges.last().copied(), growth }
    }
}

impl Verdict {
    /// Nothing to object to.
    pub fn is_good(&self) -> bool {
        self.objections.is_empty()
    }

    pub fn objections(&self) -> &[Objection] {
        &self.objections
    }

    /// Faults that were done.
    pub fn faults(&self) -> usize {
        self.faults
    }

    /// Requests that were acknowledged, of this kind (`create`, `update`, `remove`, `drain`,
    /// `read`).
    pub fn acknowledged(&self, noun: &str) -> u64 {
        self.counts.get(noun).map_or(0, |counts| counts.done)
    }

    /// Visits that were answered, through all workers.
    pub fn visits(&self) -> u64 {
        self.visits.values().map(|visits| visits.answered).sum()
    }

    /// Samples in which at least one slot could be judged.
    pub fn judged_samples(&self) -> u64 {
        self.samples.0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} faults in {:.0} s, seed {}",
            self.faults,
            self.lasted.as_secs_f64(),
            self.seed
        )?;
        writeln!(f, "\nrequests      acknowledged   refused   unknown")?;
        for (noun, counts) in &self.counts {
            let Counts { done, refused, unknown } = counts;
            writeln!(f, "  {noun:<12}{done:>12}{refused:>10}{unknown:>10}")?;
        }
        writeln!(f, "  {:<12}{:>12}", "watched", self.sightings)?;
        self.visitors(f)?;
        self.times(f)?;
        self.usage(f)?;
        self.judgement(f)
    }
}

impl Verdict {
    fn visitors(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nvisits through    answered    failed  of those unprovoked  longest gap")?;
        for (node, visits) in &self.visits {
            let Visits { answered, failed, failed_though_settled, longest_gap, .. } = visits;
            let gap = longest_gap.as_secs_f64();
            writeln!(
                f,
                "  {node:<14}{answered:>10}{failed:>10}{failed_though_settled:>21}{gap:>11.1} s"
            )?;
        }
        let reasons = self.visits.values().flat_map(|visits| &visits.reasons);
        for reason in reasons.collect::<std::collections::BTreeSet<_>>() {
            writeln!(f, "    unprovoked: {reason}")?;
        }
        Ok(())
    }

    fn times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        if let Some(most) = self.failovers.iter().max() {
            let mut all = self.failovers.clone();
            all.sort_unstable();
            let middle = all[all.len() / 2];
            writeln!(
                f,
                "leader killed {} times: the next write acknowledged after {:.1} s (middle), {:.1} s (most)",
                all.len(),
                middle.as_secs_f64(),
                most.as_secs_f64()
            )?;
        }
        match self.converged {
            Some(took) => writeln!(
                f,
                "desired equals running {:.1} s after the last fault",
                took.as_secs_f64()
            )?,
            None => writeln!(f, "desired does not equal running")?,
        }
        writeln!(f, "slots judged in {} of {} samples", self.samples.0, self.samples.1)
    }

    fn usage(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\ndaemon        lives  memory MiB       descriptors      data folder MiB")?;
        for daemon in &self.daemons {
            let last = |value: fn(&Gauge) -> u64| daemon.last.as_ref().map_or(0, value);
            let Growth { rss, fds, disk } = daemon.growth;
            writeln!(
                f,
                "  {:<12}{:>5}  {:<16} {:<16} {}",
                daemon.name,
                daemon.lives,
                shown(rss, last(|gauge| gauge.rss_bytes), MIB),
                shown(fds, last(|gauge| gauge.fds), 1.0),
                shown(disk, last(|gauge| gauge.disk_bytes), MIB),
            )?;
        }
        writeln!(
            f,
            "  (first -> last third of the longest life; one figure: no life was long enough)"
        )
    }

    fn judgement(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_good() {
            return write!(f, "\nverdict: good, nothing to object to");
        }
        let mut rules: BTreeMap<&str, Vec<&Objection>> = BTreeMap::new();
        for objection in &self.objections {
            rules.entry(objection.rule).or_default().push(objection);
        }
        writeln!(f, "\nverdict: BAD, {} objections", self.objections.len())?;
        for (rule, all) in rules {
            writeln!(f, "  {rule} ({})", all.len())?;
            for objection in all.iter().take(SHOWN_MAX) {
                writeln!(f, "    {}", objection.detail)?;
            }
        }
        write!(f, "the same faults again: --seed {}", self.seed)
    }
}

fn shown(trend: Option<Trend>, last: u64, unit: f64) -> String {
    let digits = usize::from(unit > 1.0);
    match trend {
        Some(trend) => {
            format!("{:.digits$} -> {:.digits$}", trend.from as f64 / unit, trend.to as f64 / unit)
        }
        None => format!("{:.digits$}", last as f64 / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(objections: Vec<Objection>) -> Verdict {
        let counts = Counts { done: 7, refused: 1, unknown: 2 };
        Verdict {
            seed: 42,
            lasted: Duration::from_secs(60),
            faults: 9,
            counts: BTreeMap::from([("update", counts)]),
            sightings: 3,
            visits: BTreeMap::from([("worker-1".to_owned(), Visits::default())]),
            failovers: vec![Duration::from_millis(900)],
            converged: Some(Duration::from_secs(2)),
            samples: (1, 2),
            daemons: Vec::new(),
            objections,
        }
    }

    #[test]
    fn a_good_run_says_so() {
        let text = verdict(Vec::new()).to_string();
        assert!(text.contains("verdict: good"), "{text}");
        assert!(text.contains("update                 7         1         2"), "{text}");
    }

    #[test]
    fn a_bad_run_names_rules_and_seed() {
        let text = verdict(vec![Objection::new("slot", "two of one")]).to_string();
        assert!(text.contains("verdict: BAD, 1 objections"), "{text}");
        assert!(text.contains("slot (1)") && text.contains("--seed 42"), "{text}");
    }
}
