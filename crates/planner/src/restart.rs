//! Restart and reschedule: what follows when a task ended although it was wanted.
//!
//! Restart: the task ended by itself, its policy decides and counts. Reschedule: its node was
//! lost, which is not its failure and costs no attempt. Either way the successor is made at once
//! and prepared while it waits; here it is also told to run, when its time has come and nothing
//! else in the slot may be alive. A task that could not even start has shown that preparing is what
//! fails, so its successor is not given to a node before its time.

mod backoff;

use cluster_model::spec::{RestartCondition, RestartPolicy};
use cluster_model::task::Moved;
use cluster_model::{Desired, NewTask, Observed, Reason, State, Task};

use crate::slots::{Slot, Steps, View, age};

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    for slot in view.slots.iter() {
        if let Some(holder) = slot.holder() {
            promote(view, &slot, holder, steps);
        }
        let Some(last) = slot.ended().max_by_key(|task| age(task)) else { continue };
        if !steps.take_room() {
            return;
        }
        let superseded = slot.holder().is_some();
        for task in slot.ended().filter(|task| superseded || task.id != last.id) {
            steps.set(task, Desired::Shutdown, Reason::Restart);
        }
        if !superseded {
            succeed(view, &slot, last, steps);
        }
    }
}

/// Tells a waiting successor to run, or when to look at it again.
fn promote(view: &View<'_>, slot: &Slot<'_>, task: &Task, steps: &mut Steps) {
    if task.desired != Desired::Ready || slot.others_alive(task) {
        return;
    }
    // A wait longer than any delay allows was written under a clock that has been set back.
    let longest = policy(view, task).map_or(0, backoff::longest_ms);
    let wait_ms = task.not_before_ms.saturating_sub(view.now_ms);
    if wait_ms == 0 || wait_ms > longest {
        if steps.take_room() {
            steps.set(task, Desired::Running, task.reason.clone());
        }
    } else {
        steps.wake_at(task.not_before_ms);
    }
}

fn policy<'a>(view: &View<'a>, task: &Task) -> Option<&'a RestartPolicy> {
    view.service.task_spec(task.revision).map(|spec| &spec.restart)
}

/// Decides what comes after the last task of a slot.
fn succeed(view: &View<'_>, slot: &Slot<'_>, last: &Task, steps: &mut Steps) {
    let mut new = NewTask {
        slot: last.slot,
        desired: Desired::Running,
        reason: Reason::Restart,
        not_before_ms: last.not_before_ms,
        restarts: last.restarts,
        target: last.target,
        beside: None,
    };
    let mut revision = last.revision;
    if last.status.state == Observed::Lost {
        let known = last.node.is_some_and(|node| view.state.node(node).is_some());
        new.reason = Reason::Reschedule(if known { Moved::NodeDown } else { Moved::NodeRemoved });
    } else if let Some(policy) = policy(view, last).filter(|policy| allows(policy, last)) {
        let (restarts, delay_ms) = backoff::next(policy, last);
        new.restarts = restarts;
        new.not_before_ms = new.not_before_ms.max(view.now_ms.saturating_add(delay_ms));
    } else if revision != view.service.revision {
        // Its own policy allows no more, but there is a newer revision to try.
        new.reason = Reason::Update;
        new.restarts = 0;
        new.not_before_ms = 0;
        revision = view.service.revision;
    } else {
        steps.set(last, Desired::Shutdown, Reason::Exhausted);
        return;
    }
    if new.not_before_ms <= view.now_ms {
        new.not_before_ms = 0;
    }
    if new.not_before_ms > 0 || slot.others_alive(last) {
        new.desired = Desired::Ready;
    }
    steps.set(last, Desired::Shutdown, new.reason.clone());
    if new.not_before_ms > 0 {
        steps.wake_at(new.not_before_ms);
    }
    steps.create(revision, new);
}

/// Whether a task must not be given to a node yet: it would be prepared at once, fail again, and
/// have no wait at all between attempts.
pub(crate) fn holds_back(state: &State, task: &Task, now_ms: u64) -> bool {
    let waits = task.desired == Desired::Ready
        && task.reason == Reason::Restart
        && task.not_before_ms > now_ms;
    waits
        && state
            .tasks_of_slot(task.service, task.slot)
            .filter(|other| other.id != task.id && other.status.state.is_terminal())
            .max_by_key(|other| age(other))
            .is_some_and(|last| last.status.started_at_ms == 0)
}

/// Whether the policy lets another task follow one that ended by itself.
fn allows(policy: &RestartPolicy, last: &Task) -> bool {
    let condition = match policy.condition {
        RestartCondition::None => false,
        RestartCondition::OnFailure => last.status.state != Observed::Complete,
        RestartCondition::Any => true,
    };
    condition && policy.max_attempts.is_none_or(|max| last.restarts < max)
}
