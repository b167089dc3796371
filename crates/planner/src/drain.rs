//! Tasks leave nodes that are drained or no longer meet their constraints, one at a time for each
//! service: the next goes when the replacement of the one before runs. A replacement that finds no
//! node does not hold the others up: the node shall become empty.

use cluster_model::node::Availability;
use cluster_model::task::Moved;
use cluster_model::{Desired, NewTask, Reason, ServiceId, State, Task};

use crate::draft::Draft;
use crate::slot::{Slot, slots};

pub fn run(draft: &mut Draft<'_>, id: ServiceId) {
    let all = slots(draft.state(), id);
    if all.iter().any(is_moving) {
        return;
    }
    for slot in &all {
        let Some(filler) = &slot.filler else { continue };
        let Some(moved) = must_leave(draft.state(), filler) else { continue };
        let served = slot.serves();
        replace(draft, id, filler, Reason::Reschedule(moved), filler.restarts);
        // One that did not serve is not missed: the next may go, too.
        if served {
            return;
        }
    }
}

/// A replacement is on its way: it has a node, or is about to get one, and does not run yet.
fn is_moving(slot: &Slot) -> bool {
    slot.filler.as_ref().is_some_and(|filler| {
        matches!(filler.reason, Reason::Reschedule(_))
            && !filler.serves()
            && (filler.node.is_some() || filler.status.message.is_none())
    })
}

fn must_leave(state: &State, task: &Task) -> Option<Moved> {
    let node = state.node(task.node?)?;
    if node.spec.availability == Availability::Drain {
        return Some(Moved::NodeDrained);
    }
    let spec = state.service(task.service)?.task_spec(task.revision)?;
    let holds = spec.constraints.iter().all(|constraint| constraint.holds(node));
    (!holds).then_some(Moved::ConstraintsNotMet)
}

/// Stops a task and makes its successor, which is prepared meanwhile.
pub fn replace(draft: &mut Draft<'_>, id: ServiceId, old: &Task, reason: Reason, restarts: u32) {
    let Some(revision) = draft.state().service(id).map(|service| service.revision) else { return };
    draft.set_desired(old.id, Desired::Shutdown, reason.clone());
    let desired = draft.successor_desired(id, old.slot);
    let task = NewTask { slot: old.slot, desired, reason, not_before_ms: 0, restarts };
    draft.create(id, revision, vec![task]);
}
