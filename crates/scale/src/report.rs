//! The figures of a run, for people and as one line of JSON.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::ledger::Entry;
use crate::process::Usage;

/// Figures in the order in which they were taken.
pub struct Report {
    title: String,
    figures: Vec<(&'static str, f64, &'static str)>,
}

impl Report {
    pub fn new(shape: String, nodes: u32, managers: u32) -> Self {
        let title = format!("shape {shape}: {nodes} simulated workers, {managers} managers");
        Self { title, figures: Vec::new() }
    }

    /// A figure with its unit. One of the same name is replaced.
    pub fn put(&mut self, name: &'static str, value: f64, unit: &'static str) {
        self.figures.retain(|(known, ..)| *known != name);
        self.figures.push((name, value, unit));
    }

    /// What workers saw of tasks since a moment.
    pub fn placements(&mut self, begun_us: u64, entries: &[Entry]) {
        let assigned = Times::of(entries.iter().map(|entry| entry.assigned_us), begun_us);
        let running = Times::of(entries.iter().filter_map(|entry| entry.running_us), begun_us);
        self.put("tasks", entries.len() as f64, "");
        self.put("assigned_s", assigned.last_s(), "s");
        self.put("running_s", running.last_s(), "s");
        self.put("placements_per_s", entries.len() as f64 / assigned.last_s().max(1e-6), "1/s");
        if let Some(worst) = assigned.worst_second() {
            self.put("placements_worst_second", worst as f64, "");
        }
        self.put("assigned_p50_s", assigned.at(50), "s");
        self.put("assigned_p90_s", assigned.at(90), "s");
        self.put("assigned_p99_s", assigned.at(99), "s");
        self.put("running_p50_s", running.at(50), "s");
        self.put("running_p90_s", running.at(90), "s");
        self.put("running_p99_s", running.at(99), "s");
    }

    /// What the managers used between two looks, the same managers in both.
    pub fn usage(&mut self, before: &[Usage], after: &[Usage], tasks: usize) {
        let cpu = before.iter().zip(after).map(|(before, after)| after.cpu_s - before.cpu_s);
        let cpu: f64 = cpu.sum();
        self.put("managers_cpu_s", cpu, "s");
        self.put("managers_cpu_us_per_task", cpu * 1e6 / tasks.max(1) as f64, "us");
        let disk = before.iter().zip(after).map(|(b, a)| a.disk_bytes.saturating_sub(b.disk_bytes));
        let disk = disk.max().unwrap_or(0);
        self.put("disk_written_bytes_per_task", disk as f64 / tasks.max(1) as f64, "B");
        let peak = after.iter().map(|usage| usage.peak_rss_bytes).max().unwrap_or(0);
        self.put("manager_peak_rss_mib", peak as f64 / f64::from(1 << 20), "MiB");
        let rss = after.iter().map(|usage| usage.rss_bytes).max().unwrap_or(0);
        self.put("manager_rss_mib", rss as f64 / f64::from(1 << 20), "MiB");
    }

    /// One line.
    pub fn json(&self) -> String {
        let round = |value: f64| (value * 1e6).round() / 1e6;
        let figures =
            self.figures.iter().map(|(name, value, _)| ((*name).to_owned(), json!(round(*value))));
        let mut all: Map<String, Value> = figures.collect();
        all.insert("title".to_owned(), json!(self.title));
        Value::Object(all).to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for (name, value, unit) in &self.figures {
            let shown = match value.abs() {
                large if large >= 1000.0 => format!("{value:.0}"),
                small if small < 1.0 => format!("{value:.4}"),
                _ => format!("{value:.2}"),
            };
            writeln!(f, "  {name:28} {shown:>12} {unit}")?;
        }
        Ok(())
    }
}

/// Moments after a beginning, in microseconds, in order.
pub struct Times(Vec<u64>);

impl Times {
    pub fn of(moments: impl Iterator<Item = u64>, begun_us: u64) -> Self {
        let mut times: Vec<u64> = moments.map(|at| at.saturating_sub(begun_us)).collect();
        times.sort_unstable();
        Self(times)
    }

    pub fn last_s(&self) -> f64 {
        self.0.last().map_or(0.0, |last| *last as f64 / 1e6)
    }

    /// A percentile, in seconds.
    pub fn at(&self, percent: usize) -> f64 {
        let place = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(place).map_or(0.0, |time| *time as f64 / 1e6)
    }

    /// The fewest in a whole second; none when there was none between the first and the last.
    pub fn worst_second(&self) -> Option<usize> {
        let whole = self.0.last()? / 1_000_000;
        let second = |time: &u64| time / 1_000_000;
        (0..whole).map(|number| self.0.iter().filter(|time| second(time) == number).count()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_the_worst_second() {
        let seconds = [1u64, 2, 2, 5];
        let times = Times::of(seconds.iter().map(|s| s * 1_000_000 + 7), 7);
        assert_eq!((times.at(50), times.at(99), times.last_s()), (2.0, 5.0, 5.0));
        assert_eq!(times.worst_second(), Some(0));
        assert_eq!(Times::of([].into_iter(), 0).at(50), 0.0);
    }
}
