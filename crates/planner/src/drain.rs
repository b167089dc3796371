//! Drain: tasks leave nodes that are drained or that no longer meet their constraints.
//!
//! A running task moves only when no other replacement of its service is under way, so a drain
//! takes one replica away at a time. What does not run moves at once. When no other node can take
//! a task, the drain still empties the node: the replacement waits and says why, and the tasks
//! behind it leave too, since waiting for it could take for ever.

use cluster_model::task::Moved;
use cluster_model::{Availability, Desired, NewTask, Reason, Task};

use crate::slots::{Steps, View};

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    let holders: Vec<&Task> = view.slots.iter().filter_map(|slot| slot.holder()).collect();
    let leaving: Vec<(&Task, Moved)> =
        holders.iter().filter_map(|task| Some((*task, must_move(view, task)?))).collect();
    if leaving.is_empty() {
        return;
    }
    let nowhere = holders.iter().any(|task| moving(task) && explained(task));
    let mut one_moves = holders.iter().any(|task| {
        !view.up(task) && (moving(task) || task.reason == Reason::Update) && !explained(task)
    });
    let (running, idle): (Vec<_>, Vec<_>) =
        leaving.into_iter().partition(|(task, _)| view.up(task));
    for (task, why) in idle.into_iter().chain(running) {
        if view.up(task) && one_moves && !nowhere {
            return;
        }
        if !steps.take_room() {
            return;
        }
        let reason = Reason::Reschedule(why);
        steps.set(task, Desired::Shutdown, reason.clone());
        let new = NewTask {
            slot: task.slot,
            desired: Desired::Ready,
            reason,
            not_before_ms: task.not_before_ms,
            restarts: task.restarts,
            target: task.target,
            beside: None,
        };
        steps.create(task.revision, new);
        one_moves = true;
    }
}

/// The task replaces one that had to leave its node.
fn moving(task: &Task) -> bool {
    matches!(task.reason, Reason::Reschedule(Moved::NodeDrained | Moved::ConstraintsNotMet))
}

/// The scheduler looked and found no node.
fn explained(task: &Task) -> bool {
    task.node.is_none() && task.status.message.is_some()
}

fn must_move(view: &View<'_>, task: &Task) -> Option<Moved> {
    let node = view.state.node(task.node?)?;
    if node.spec.availability == Availability::Drain {
        return Some(Moved::NodeDrained);
    }
    let spec = view.service.rules_of(task.revision)?;
    let meets = spec.placement.constraints.iter().all(|constraint| constraint.holds(node));
    (!meets).then_some(Moved::ConstraintsNotMet)
}
