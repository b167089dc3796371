//! Probes: how a worker finds out whether a task is well.
//!
//! Startup gates the other two; readiness decides about traffic, liveness about the task's life.

use serde::{Deserialize, Serialize};

/// A task's probes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The image's own HEALTHCHECK is not honoured. It is otherwise, as liveness and readiness, when
    /// no probe is given here.
    pub ignore_image: bool,
    /// Until it succeeds once the task is starting and the other probes do not run. None: the
    /// liveness probe's start period does the same for it alone.
    pub startup: Option<Probe>,
    /// A task whose probe fails `retries` times in a row has failed.
    pub liveness: Option<Probe>,
    /// A task whose probe fails `retries` times in a row gets no new connections until it succeeds.
    /// None: as liveness.
    pub readiness: Option<Probe>,
}

/// One probe. Durations are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub check: Check,
    pub interval_ms: u64,
    /// A check that takes longer has failed; its processes are killed.
    pub timeout_ms: u64,
    /// Failures in a row that count as one verdict.
    pub retries: u32,
    /// Failures this long after the start do not count, unless it succeeded before.
    pub start_period_ms: u64,
    /// Interval during the start period.
    pub start_interval_ms: u64,
}

impl Probe {
    /// A probe with Docker's times: every 30 s (5 s while starting), 30 s patience, 3 retries.
    pub fn new(check: Check) -> Self {
        Self {
            check,
            interval_ms: 30_000,
            timeout_ms: 30_000,
            retries: 3,
            start_period_ms: 0,
            start_interval_ms: 5_000,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// A command in the container; exit code 0 is success.
    Exec(Vec<String>),
    /// GET on a port of the container; a status of 200 to 399 is success.
    Http { port: u16, path: String },
    /// Connecting to a port of the container.
    Tcp { port: u16 },
}
