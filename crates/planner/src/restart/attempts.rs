//! Whether a restart policy allows another attempt.

use cluster_model::spec::{RestartCondition, RestartPolicy};
use cluster_model::{Observed, Task};

use crate::slots::Slot;

/// Whether the policy lets another task follow one that ended by itself.
pub(super) fn allows(
    policy: &RestartPolicy,
    slot: &Slot<'_>,
    last: &Task,
    job: bool,
    now_ms: u64,
) -> bool {
    let condition = match policy.condition {
        RestartCondition::None => false,
        RestartCondition::OnFailure => last.status.state != Observed::Complete,
        // What a job's task was for is done when it completes.
        RestartCondition::Any => !job || last.status.state != Observed::Complete,
    };
    condition && policy.max_attempts.is_none_or(|max| made(policy, slot, last, now_ms) < max)
}

/// Attempts that count: all of the slot under its revision, or those of the window. Tasks count
/// their restarts on, so the count at the window's begin is what was made before it.
fn made(policy: &RestartPolicy, slot: &Slot<'_>, last: &Task, now_ms: u64) -> u32 {
    let Some(window_ms) = policy.window_ms else { return last.restarts };
    let since_ms = now_ms.saturating_sub(window_ms);
    let known = || slot.tasks().filter(|task| task.revision == last.revision);
    let before = known().filter(|task| task.created_at_ms <= since_ms).map(|task| task.restarts);
    let base = before.max().unwrap_or_else(|| {
        // Nothing that old is remembered: the oldest was itself made within the window.
        known().map(|task| task.restarts).min().unwrap_or(0).saturating_sub(1)
    });
    last.restarts.saturating_sub(base)
}

/// When a policy with a window counts otherwise than now: the next moment at which one of the slot's
/// tasks leaves the window.
pub(super) fn counts_anew_at(
    policy: &RestartPolicy,
    slot: &Slot<'_>,
    last: &Task,
    now_ms: u64,
) -> Option<u64> {
    let window_ms = policy.window_ms?;
    let known = slot.tasks().filter(|task| task.revision == last.revision);
    let leave = known.map(|task| task.created_at_ms.saturating_add(window_ms));
    leave.filter(|at_ms| *at_ms > now_ms).min()
}
