//! Restart and reschedule: what follows when a task ended although it was wanted.
//!
//! Restart: the task ended by itself, its policy decides and counts. Reschedule: its node was
//! lost, which is not its failure and costs no attempt. Either way the successor is made at once
//! and prepared while it waits; here it is also told to run, when its time has come and nothing
//! else in the slot may be alive. A task that started beside the slot's holder and ended is followed
//! by another beside it for as long as the update wants one; when the holder itself ends, the task
//! beside it takes over. A task that could not even start has shown that preparing is what
//! fails, so its successor is not given to a node before its time.

mod attempts;
mod backoff;

use cluster_model::spec::RestartPolicy;
use cluster_model::task::Moved;
use cluster_model::{Desired, NewTask, Observed, Reason, State, Task};

use crate::rollout;
use crate::slots::{Slot, Steps, View, age};

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    for slot in view.slots.iter() {
        for task in [slot.holder(), slot.newcomer()].into_iter().flatten() {
            promote(view, &slot, task, steps);
        }
        if slot.ended().next().is_none() {
            continue;
        }
        if !steps.take_room() {
            return;
        }
        let last = followed(view, &slot);
        for task in slot.ended().filter(|task| Some(task.id) != last.map(|last| last.id)) {
            let was_beside =
                task.extras.beside.is_some() && slot.holder().map(|t| t.id) == task.extras.beside;
            let reason = if was_beside { Reason::Withdrawn } else { Reason::Restart };
            steps.set(task, Desired::Shutdown, reason);
        }
        if let Some(last) = last {
            succeed(view, &slot, last, steps);
        }
    }
}

/// The ended task of a slot that something follows: the one that filled it, or one that started
/// beside the one that still does, if the update still wants that.
fn followed<'a>(view: &View<'_>, slot: &Slot<'a>) -> Option<&'a Task> {
    match slot.holder() {
        None => slot.lead(),
        Some(holder) => slot
            .ended_newcomer()
            .filter(|task| rollout::wants_beside(view, holder) && !view.is_outdated(task)),
    }
}

/// Tells a waiting successor to run, or when to look at it again.
fn promote(view: &View<'_>, slot: &Slot<'_>, task: &Task, steps: &mut Steps) {
    if task.desired != Desired::Ready || slot.others_alive(task) {
        return;
    }
    // A wait longer than any delay allows was written under a clock that has been set back.
    let longest = policy(view, task).map_or(0, backoff::longest_ms);
    let wait_ms = task.extras.not_before_ms.saturating_sub(view.now_ms);
    if wait_ms == 0 || wait_ms > longest {
        if steps.take_room() {
            steps.set(task, Desired::Running, task.reason.clone());
        }
    } else {
        steps.wake_at(task.extras.not_before_ms);
    }
}

fn policy<'a>(view: &View<'a>, task: &Task) -> Option<&'a RestartPolicy> {
    view.service.task_spec(task.revision).map(|spec| &spec.restart)
}

/// Decides what comes after a task that ended.
fn succeed(view: &View<'_>, slot: &Slot<'_>, last: &Task, steps: &mut Steps) {
    let job = view.service.spec.mode.is_job();
    if job && last.status.state == Observed::Complete {
        return;
    }
    let mut new = NewTask {
        slot: last.slot,
        desired: Desired::Running,
        reason: Reason::Restart,
        not_before_ms: last.extras.not_before_ms,
        restarts: last.restarts,
        target: last.extras.target,
        beside: last.extras.beside.filter(|beside| slot.holder().is_some_and(|h| h.id == *beside)),
    };
    let mut revision = last.revision;
    if last.status.state == Observed::Lost {
        let known = last.node.is_some_and(|node| view.state.node(node).is_some());
        new.reason = Reason::Reschedule(if known { Moved::NodeDown } else { Moved::NodeRemoved });
    } else if let Some(policy) =
        policy(view, last).filter(|policy| attempts::allows(policy, slot, last, job, view.now_ms))
    {
        let (restarts, delay_ms) = backoff::next(policy, last);
        new.restarts = restarts;
        new.not_before_ms = new.not_before_ms.max(view.now_ms.saturating_add(delay_ms));
    } else if !job && new.beside.is_none() && has_another_to_try(view, slot, last) {
        if view.fresh_revision() == view.service.revision {
            // The rollout gets there, within its bounds; or the task's own policy allows more before.
            let policy = policy(view, last);
            let at_ms = policy.and_then(|p| attempts::counts_anew_at(p, slot, last, view.now_ms));
            at_ms.into_iter().for_each(|at_ms| steps.wake_at(at_ms));
            return;
        }
        new.reason = Reason::Update;
        new.restarts = 0;
        new.not_before_ms = 0;
        revision = view.fresh_revision();
    } else {
        steps.set(last, Desired::Shutdown, Reason::Exhausted);
        return;
    }
    if new.not_before_ms <= view.now_ms {
        new.not_before_ms = 0;
    }
    if new.not_before_ms > 0 || slot.any_alive(new.beside) {
        new.desired = Desired::Ready;
    }
    steps.set(last, Desired::Shutdown, new.reason.clone());
    if new.not_before_ms > 0 {
        steps.wake_at(new.not_before_ms);
    }
    steps.create(revision, new);
}

/// The task's own policy allows no more, but there is a newer revision that was not yet tried in
/// this slot.
fn has_another_to_try(view: &View<'_>, slot: &Slot<'_>, last: &Task) -> bool {
    let fresh = view.fresh_revision();
    last.revision != view.service.revision
        && last.revision != fresh
        && slot.exhausted().is_none_or(|spent| spent.revision != fresh)
}

/// Whether a task must not be given to a node yet: it would be prepared at once, fail again, and
/// have no wait at all between attempts.
pub(crate) fn holds_back(state: &State, task: &Task, now_ms: u64) -> bool {
    let waits = task.desired == Desired::Ready
        && task.reason == Reason::Restart
        && task.extras.not_before_ms > now_ms;
    waits
        && state
            .tasks_of_slot(task.service, task.slot)
            .filter(|other| other.id != task.id && other.status.state.is_terminal())
            .max_by_key(|other| age(other))
            .is_some_and(|last| last.status.started_at_ms == 0)
}
