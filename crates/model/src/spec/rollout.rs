//! How tasks move from one revision to another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One ratio of 1, as `max_failure_ratio_ppm` counts.
pub const PPM: u32 = 1_000_000;

/// Durations are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatePolicy {
    /// Slots that move at once; a count of 0 means all.
    pub parallelism: Amount,
    /// Wait between a slot's task running and the next slot.
    pub delay_ms: u64,
    /// A task that fails within so long after it ran counts as a failure of the rollout.
    pub monitor_ms: u64,
    pub order: Order,
    pub failure_action: FailureAction,
    /// Share of slots that may fail, millionths.
    pub max_failure_ratio_ppm: u32,
    /// A rollout in which no slot comes up for so long has failed; none: no deadline.
    pub progress_deadline_ms: Option<u64>,
    /// Slots that get a task of the new revision beside the old one first, until promoted.
    pub canary: u32,
    /// Healthy canaries promote themselves.
    pub auto_promote: bool,
}

impl Default for UpdatePolicy {
    /// One at a time, 5 s of monitoring, pause at the first failure, 10 minutes without progress.
    fn default() -> Self {
        Self {
            parallelism: Amount::Count(1),
            delay_ms: 0,
            monitor_ms: 5_000,
            order: Order::StopFirst,
            failure_action: FailureAction::Pause,
            max_failure_ratio_ppm: 0,
            progress_deadline_ms: Some(600_000),
            canary: 0,
            auto_promote: false,
        }
    }
}

/// A number, or a share of a service's slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amount {
    Count(u32),
    /// 1 to 100.
    Percent(u32),
}

impl Amount {
    /// How many of `total` that is, rounded up.
    pub fn of(self, total: u32) -> u32 {
        match self {
            Amount::Count(count) => count,
            Amount::Percent(percent) => {
                let share = (u64::from(total) * u64::from(percent)).div_ceil(100);
                u32::try_from(share).unwrap_or(u32::MAX)
            }
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Count(count) => write!(f, "{count}"),
            Amount::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The old task is gone before the new one runs.
    #[default]
    StopFirst,
    /// The new task runs and is healthy before the old one is stopped.
    StartFirst,
}

/// What a rollout does when too much of it failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureAction {
    #[default]
    Pause,
    Continue,
    Rollback,
}
