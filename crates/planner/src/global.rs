//! Services with a slot for each node: which nodes have one.
//!
//! A node gets a slot when it is ready, active and meets the constraints of the service's present
//! revision. It loses its task when it is drained, removed or no longer meets them, and nothing
//! takes that task's place elsewhere. A node that is paused or silent keeps what it has and gets
//! nothing new. The node of a slot is the target of its tasks; `apply` refuses a second slot.

use std::collections::{BTreeMap, BTreeSet};

use cluster_model::spec::Mode;
use cluster_model::task::Moved;
use cluster_model::{
    Availability, Desired, JobOutcome, NewTask, Node, NodeId, NodeState, Reason, Task,
};

use crate::slots::{Slot, Steps, View};

/// What a node is to a service.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Has a task.
    Takes,
    /// Keeps what it has: it is paused.
    Keeps,
    /// Keeps what it has, as long as that is not given up: it is silent.
    Silent,
    Leaves(Moved),
}

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    let nowhere = !view.state.nodes().any(|node| meets(view, node));
    for slot in view.slots.iter() {
        if !retire(view, &slot, nowhere, steps) {
            return;
        }
    }
    if takes_more(view) {
        fill(view, steps);
    }
}

/// Nodes that are to have a task and have none.
pub(crate) fn vacant(view: &View<'_>) -> usize {
    let slots = by_node(view);
    takers(view).filter(|node| !slots.get(&node.id).is_some_and(|slot| has(view, slot))).count()
}

fn takers<'a>(view: &View<'a>) -> impl Iterator<Item = &'a Node> {
    view.state.nodes().filter(|node| standing(view, Some(node)) == Standing::Takes)
}

fn by_node<'a>(view: &View<'a>) -> BTreeMap<NodeId, Slot<'a>> {
    view.slots.iter().filter_map(|slot| Some((target(&slot)?, slot))).collect()
}

/// The slot has what its node is to have.
fn has<'a>(view: &View<'a>, slot: &Slot<'a>) -> bool {
    view.occupied(slot) || view.done(slot).is_some()
}

/// The slot's node takes nothing new at present: what it has must not be replaced. It is looked
/// at again when the node is active and heard.
pub(crate) fn frozen(view: &View<'_>, slot: &Slot<'_>) -> bool {
    target(slot).is_some_and(|id| {
        let node = view.state.node(id);
        matches!(standing(view, node), Standing::Keeps | Standing::Silent)
    })
}

/// The slot belongs to a node that the cluster knows: its history is kept.
pub(crate) fn owned(view: &View<'_>, slot: &Slot<'_>) -> bool {
    target(slot).is_some_and(|id| view.state.node(id).is_some())
}

/// The node that a slot is for.
fn target(slot: &Slot<'_>) -> Option<NodeId> {
    slot.tasks().find_map(|task| task.extras.target)
}

fn standing(view: &View<'_>, node: Option<&Node>) -> Standing {
    let Some(node) = node else { return Standing::Leaves(Moved::NodeRemoved) };
    let meets = meets(view, node);
    match (node.spec.availability, node.state) {
        (Availability::Drain, _) => Standing::Leaves(Moved::NodeDrained),
        // What an unknown node is has not been heard.
        (_, NodeState::Unknown) => Standing::Silent,
        _ if !meets => Standing::Leaves(Moved::ConstraintsNotMet),
        (_, NodeState::Down) => Standing::Silent,
        (Availability::Pause, NodeState::Ready) => Standing::Keeps,
        (Availability::Active, NodeState::Ready) => Standing::Takes,
    }
}

/// The node is one that the service now asks for.
fn meets(view: &View<'_>, node: &Node) -> bool {
    view.service.task_spec(view.service.revision).is_some_and(|spec| spec.placement.admits(node))
}

/// Takes away what a node may not keep; false when there is no room left. Where no node at all is
/// asked for any more, as after a typing error, nothing is taken for that: the rollout finds out at
/// the cost of its bounds.
fn retire(view: &View<'_>, slot: &Slot<'_>, nowhere: bool, steps: &mut Steps) -> bool {
    let node = target(slot).and_then(|id| view.state.node(id));
    // The one that tried it waits for a node that is asked for.
    let stays = |task: &Task| {
        task.node.is_none() || node.is_some_and(|node| view.service.may_stay(task.revision, node))
    };
    let (desired, why) = match standing(view, node) {
        Standing::Leaves(Moved::ConstraintsNotMet)
            if nowhere && slot.holder().is_some_and(stays) =>
        {
            return true;
        }
        Standing::Takes | Standing::Keeps => return true,
        Standing::Silent => (Desired::Shutdown, Moved::NodeDown),
        Standing::Leaves(why) => (Desired::Remove, why),
    };
    // A completion counts as long as its node exists.
    let done = view.done(slot).filter(|_| why != Moved::NodeRemoved).map(|task| task.id);
    let mut leaving = slot
        .tasks()
        .filter(|task| Some(task.id) != done)
        .filter(|task| match desired {
            Desired::Remove => task.desired != Desired::Remove,
            // Given up or never begun; what may still run there goes on.
            _ => task.is_wanted() && !task.holds_resources(),
        })
        .peekable();
    if leaving.peek().is_none() {
        return true;
    }
    if !steps.take_room() {
        return false;
    }
    for task in leaving {
        steps.set(task, desired, Reason::Reschedule(why));
    }
    true
}

/// A job that ended badly is over for every node; one that succeeded goes on where a node joins.
fn takes_more(view: &View<'_>) -> bool {
    match view.service.spec.mode {
        Mode::Global => true,
        Mode::GlobalJob => {
            matches!(view.service.run.outcome, JobOutcome::Unfinished | JobOutcome::Succeeded)
        }
        Mode::Replicated { .. } | Mode::ReplicatedJob { .. } => false,
    }
}

/// A task for each node that is to have one and has none. Slots keep their numbers while anything
/// of them is known; new ones take the lowest that are free.
fn fill(view: &View<'_>, steps: &mut Steps) {
    let slots = by_node(view);
    let taken: BTreeSet<u32> = view.slots.iter().map(|slot| slot.number()).collect();
    let mut free = (1u32..).filter(|number| !taken.contains(number));
    for node in takers(view) {
        let slot = slots.get(&node.id);
        if slot.is_some_and(|slot| has(view, slot)) {
            continue;
        }
        let Some(number) = slot.map(Slot::number).or_else(|| free.next()) else { return };
        if !steps.take_room() {
            return;
        }
        let reason = match slot.and_then(Slot::newest) {
            // Spent under an older revision; this one gets its own attempts.
            Some(last) if last.reason == Reason::Exhausted => Reason::Update,
            _ => Reason::ScaleUp,
        };
        let alive = slot.is_some_and(|slot| slot.any_alive(None));
        let desired = if alive { Desired::Ready } else { Desired::Running };
        let task = NewTask { desired, target: Some(node.id), ..NewTask::new(number, reason) };
        steps.create(view.service.revision, task);
    }
}
