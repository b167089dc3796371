//! One probe over time, as a pure function of its results: when to check next, and what they mean.
//!
//! Times are milliseconds since the container's start and come in as arguments.

use cluster_model::spec::Probe;

/// The first checks of a start come so soon, and then at doubling distances, because most
/// containers are up at once.
const FIRST_MS: u64 = 100;

/// Nearly every start has a check or two that come too soon.
const TELLING: u32 = 3;

/// What the results mean so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has neither succeeded nor failed often enough.
    Undecided,
    /// It has succeeded, and not failed `retries` times in a row since.
    Passing,
    /// It has failed `retries` times in a row.
    Failing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    interval_ms: u64,
    start_interval_ms: u64,
    retries: u32,
    /// Until then failures do not count, unless it has succeeded.
    lenient_until_ms: u64,
    passed: bool,
    /// In a row, and counted.
    failures: u32,
    /// Checks made while failures did not count.
    early: u32,
    /// Checks in a row that did not succeed, whether they counted or not.
    vain: u32,
}

impl Track {
    /// Of a probe whose checks begin at `now_ms`. No failure counts before an interval is over: by
    /// then a probe that does not hurry makes its first check.
    pub fn new(probe: &Probe, now_ms: u64) -> Self {
        let interval_ms = probe.interval_ms.max(1);
        Self {
            interval_ms,
            start_interval_ms: probe.start_interval_ms.clamp(1, interval_ms),
            retries: probe.retries.max(1),
            lenient_until_ms: probe.start_period_ms.max(now_ms.saturating_add(interval_ms)),
            passed: false,
            failures: 0,
            early: 0,
            vain: 0,
        }
    }

    /// Of a probe that succeeded before anybody here remembers.
    pub fn passed_before(probe: &Probe, now_ms: u64) -> Self {
        Self { passed: true, ..Self::new(probe, now_ms) }
    }

    /// From the end of the last check to the next one.
    pub fn pause_ms(&self, now_ms: u64) -> u64 {
        if self.is_lenient(now_ms) {
            let grown = FIRST_MS.saturating_mul(1 << self.early.min(20));
            grown.min(self.start_interval_ms)
        } else {
            self.interval_ms
        }
    }

    /// Takes the result of a check that ended at `now_ms`.
    pub fn took(&mut self, now_ms: u64, success: bool) {
        if success {
            self.passed = true;
            self.failures = 0;
            self.vain = 0;
            return;
        }
        self.vain = self.vain.saturating_add(1);
        if self.is_lenient(now_ms) {
            self.early = self.early.saturating_add(1);
        } else {
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// A check could not be made: that says nothing, but the next one comes no sooner for it.
    pub fn missed(&mut self) {
        self.early = self.early.saturating_add(1);
        self.vain = self.vain.saturating_add(1);
    }

    /// Enough checks in a row were in vain that people should know why.
    pub fn is_telling(&self) -> bool {
        self.vain >= TELLING
    }

    pub fn verdict(&self) -> Verdict {
        if self.failures >= self.retries {
            Verdict::Failing
        } else if self.passed {
            Verdict::Passing
        } else {
            Verdict::Undecided
        }
    }

    fn is_lenient(&self, now_ms: u64) -> bool {
        !self.passed && now_ms < self.lenient_until_ms
    }
}
