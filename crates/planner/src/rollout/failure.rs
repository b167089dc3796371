//! Which tasks speak against a revision: those that ended by themselves soon after the rollout gave
//! it to them. A lost node never does.

use cluster_model::{Observed, Task};

use super::unfinished;
use crate::slots::{Slot, View, age};

/// What went wrong in one slot since the rollout began.
#[derive(Clone, Copy)]
pub(super) struct Failure<'a> {
    pub first: &'a Task,
    pub last: &'a Task,
}

impl<'a> Failure<'a> {
    pub fn of(view: &View<'_>, slot: &Slot<'a>) -> Option<Self> {
        let failed = || slot.tasks().filter(|task| speaks_against(view, task));
        let first = failed().min_by_key(|task| age(task))?;
        let last = failed().max_by_key(|task| age(task))?;
        Some(Self { first, last })
    }

    /// Attempts that failed. The tasks between first and last may be forgotten; they counted.
    pub fn attempts(&self) -> u32 {
        self.last.restarts.saturating_sub(self.first.restarts).saturating_add(1)
    }

    /// In words.
    pub fn told(&self) -> String {
        let status = &self.last.status;
        let why = match (&status.details.error, status.details.exit_code) {
            (Some(error), _) => error.to_string(),
            (None, Some(code)) => format!("exit code {code}"),
            (None, None) => status.state.to_string(),
        };
        format!("task {} of slot {}: {why}", self.last.id, self.last.slot)
    }
}

/// The first failure of a slot, which history has to keep for as long as it counts.
pub(crate) fn first<'a>(view: &View<'_>, slot: &Slot<'a>) -> Option<&'a Task> {
    Failure::of(view, slot).map(|failure| failure.first)
}

fn speaks_against(view: &View<'_>, task: &Task) -> bool {
    let Some(rollout) = unfinished(view) else { return false };
    let status = &task.status;
    let ended = match status.state {
        Observed::Complete | Observed::Failed | Observed::Rejected => true,
        Observed::New
        | Observed::Pending
        | Observed::Assigned
        | Observed::Accepted
        | Observed::Preparing
        | Observed::Ready
        | Observed::Starting
        | Observed::Running
        | Observed::Shutdown
        | Observed::Lost => false,
    };
    // Both times are of the agent's clock.
    let ran_ms = status.at_ms.saturating_sub(status.started_at_ms);
    let soon = status.started_at_ms == 0 || ran_ms < view.service.update_policy().monitor_ms;
    ended && soon && task.revision == rollout.to && task.created_at_ms >= rollout.started_at_ms
}
