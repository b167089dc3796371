//! Slots whose task is over: the restart policy decides after an end of its own, a lost node is
//! rescheduled at once and costs no attempt. Also starts prepared successors when their time has
//! come.
//!
//! Back-off (when the policy names no delay): the first restart at once, then 1, 2, 4 … 60 s, give
//! or take a quarter; a run longer than the cap starts the count anew.

use cluster_model::spec::{RestartCondition, RestartPolicy};
use cluster_model::task::Moved;
use cluster_model::{Desired, NewTask, Observed, Reason, ServiceId, Task};

use crate::draft::{Draft, mix};
use crate::slot::{Slot, ended_by_itself, slots};

/// Longest pause between two restarts, and the run that makes a task count as healthy again.
const BACK_OFF_CAP_MS: u64 = 60_000;

pub fn run(draft: &mut Draft<'_>, id: ServiceId) {
    for slot in slots(draft.state(), id) {
        match &slot.filler {
            Some(filler) => promote(draft, filler, slot.alive_beside),
            None => refill(draft, id, &slot),
        }
    }
}

/// Lets a prepared successor run once its delay is over and nothing else of the slot may live.
fn promote(draft: &mut Draft<'_>, task: &Task, alive_beside: bool) {
    if task.desired != Desired::Ready || alive_beside {
        return;
    }
    if task.not_before_ms > draft.now_ms {
        draft.wake_at(task.not_before_ms);
        return;
    }
    draft.set_desired(task.id, Desired::Running, task.reason.clone());
}

fn refill(draft: &mut Draft<'_>, id: ServiceId, slot: &Slot) {
    let Some(service) = draft.state().service(id) else { return };
    let revision = service.revision;
    let Some(policy) = service.task_spec(revision).map(|spec| spec.restart) else { return };
    let last = &slot.newest;
    let (reason, restarts, not_before_ms) = if last.revision != revision {
        (Reason::Update, 0, 0)
    } else if last.status.state == Observed::Lost {
        (Reason::Reschedule(Moved::NodeDown), last.restarts, 0)
    } else if last.reason == Reason::Exhausted {
        return;
    } else if ended_by_itself(last) && last.desired <= Desired::Running {
        if !may_restart(policy, last) {
            draft.set_desired(last.id, Desired::Shutdown, Reason::Exhausted);
            return;
        }
        let restarts = attempts(policy, last);
        let from = draft.now_ms.max(last.not_before_ms);
        (Reason::Restart, restarts + 1, due(policy, restarts, from, last))
    } else {
        // It was asked to stop for a successor that was not made, or was refused.
        (last.reason.clone(), last.restarts, 0)
    };
    let waits = not_before_ms > draft.now_ms;
    let desired = if waits { Desired::Ready } else { draft.successor_desired(id, slot.number) };
    let task = NewTask { slot: slot.number, desired, reason, not_before_ms, restarts };
    draft.create(id, revision, vec![task]);
    if waits {
        draft.wake_at(not_before_ms);
    }
}

fn may_restart(policy: RestartPolicy, last: &Task) -> bool {
    let wanted = match policy.condition {
        RestartCondition::None => false,
        RestartCondition::OnFailure => last.status.state != Observed::Complete,
        RestartCondition::Any => true,
    };
    wanted && policy.max_attempts.is_none_or(|max| last.restarts < max)
}

/// Restarts that count for the back-off. A policy that bounds attempts counts all of them.
fn attempts(policy: RestartPolicy, last: &Task) -> u32 {
    let started = last.status.started_at_ms;
    let ran_ms = if started == 0 { 0 } else { last.status.at_ms.saturating_sub(started) };
    if policy.max_attempts.is_none() && ran_ms > BACK_OFF_CAP_MS { 0 } else { last.restarts }
}

/// When the next attempt may start.
fn due(policy: RestartPolicy, restarts: u32, from_ms: u64, last: &Task) -> u64 {
    match policy.delay_ms {
        Some(0) => 0,
        Some(delay) => from_ms.saturating_add(delay),
        None if restarts == 0 => 0,
        None => from_ms.saturating_add(back_off(restarts, last.id.0)),
    }
}

/// Milliseconds before the restart that follows `restarts` others; `seed` gives the jitter.
fn back_off(restarts: u32, seed: u64) -> u64 {
    let doublings = restarts.saturating_sub(1).min(16);
    let whole = (1000u64 << doublings).min(BACK_OFF_CAP_MS);
    whole * 3 / 4 + mix(seed) % (whole / 2 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_to_its_cap_give_or_take_a_quarter() {
        for (restarts, seconds) in
            [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (50, 60)]
        {
            for seed in 0..200 {
                let delay = back_off(restarts, seed);
                assert!((seconds * 750..=seconds * 1250).contains(&delay), "{restarts}: {delay}");
            }
        }
        assert_ne!(back_off(3, 1), back_off(3, 2), "jitter");
    }
}
