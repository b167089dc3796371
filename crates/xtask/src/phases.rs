//! Named steps with timings, so that whoever waits knows for what.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The steps of one command, in the order they ran.
pub struct Phases {
    begin: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Phases {
    pub fn new() -> Self {
        Self { begin: Instant::now(), done: Vec::new() }
    }

    /// Runs one step; its error names it.
    pub fn run<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("==> {name}");
        let begin = Instant::now();
        let outcome = step();
        let took = begin.elapsed();
        let word = if outcome.is_ok() { "done" } else { "FAILED" };
        eprintln!("==> {name}: {word} in {}", seconds(took));
        self.done.push((name, took));
        outcome.with_context(|| format!("{name} failed"))
    }

    /// One closing line: what ran and how long it took.
    pub fn summary(&self) -> String {
        let parts: Vec<_> =
            self.done.iter().map(|(name, took)| format!("{name} {}", seconds(*took))).collect();
        format!("{} in all ({})", seconds(self.begin.elapsed()), parts.join(", "))
    }
}

/// `0.4 s`, `12 s`, `3 min 05 s`.
pub fn seconds(took: Duration) -> String {
    let whole = took.as_secs();
    match whole {
        0..10 => format!("{:.1} s", took.as_secs_f64()),
        10..120 => format!("{whole} s"),
        _ => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let shown = |ms| seconds(Duration::from_millis(ms));
        assert_eq!(shown(400), "0.4 s");
        assert_eq!(shown(12_900), "12 s");
        assert_eq!(shown(185_000), "3 min 05 s");
    }

    #[test]
    fn a_failed_step_is_named() {
        let error =
            Phases::new().run("build", || anyhow::bail!("no disk") as Result<()>).unwrap_err();
        assert_eq!(format!("{error:#}"), "build failed: no disk");
    }
}
