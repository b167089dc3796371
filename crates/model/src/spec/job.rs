//! What is asked of jobs: bounds of a run, and a schedule.

use serde::{Deserialize, Serialize};

/// Durations are milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPolicy {
    /// A finished job removes itself after so long; none: it stays.
    pub ttl_after_finished_ms: Option<u64>,
    /// A run that takes longer is stopped; none: no bound.
    pub max_run_duration_ms: Option<u64>,
    /// The service itself runs nothing: it launches a job of its own at each moment of the
    /// schedule.
    pub schedule: Option<Schedule>,
}

/// When a job is launched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Five fields as in crontab(5).
    pub cron: String,
    /// Name of the time zone database; empty: UTC.
    pub time_zone: String,
    pub overlap: Overlap,
    /// A launch that is later than so long is skipped, milliseconds; none: however late.
    pub starting_deadline_ms: Option<u64>,
    /// Launches that ended well and are kept.
    pub keep_succeeded: u32,
    /// Launches that failed and are kept.
    pub keep_failed: u32,
}

/// What happens when a launch is due while another still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overlap {
    /// Both run.
    Allow,
    /// The new one is skipped.
    #[default]
    Forbid,
    /// The old one is removed.
    Replace,
}
