//! Services at rest: seen in one walk over their tasks, so that a pass over many of them, or over one
//! with many tasks of which one changed, costs little.

use cluster_model::service::RolloutState;
use cluster_model::spec::Mode;
use cluster_model::{Availability, Desired, Node, NodeState, Service, State};

/// No node is silent or drained, so nothing has to leave any.
pub(crate) fn is_calm(state: &State) -> bool {
    state.nodes().all(is_good)
}

fn is_good(node: &Node) -> bool {
    node.state != NodeState::Down && node.spec.availability != Availability::Drain
}

/// Each slot of a replicated service holds one task and nothing else, of the present revision, wanted
/// and not over, on a node where it may stay; and no rollout is under way. No stage has anything to
/// do or to wait for then; debug builds run them all the same, and check.
pub(crate) fn is_at_rest(state: &State, service: &Service, calm: bool) -> bool {
    let Mode::Replicated { replicas } = service.spec.mode else { return false };
    let rolling = service.rollout.as_ref().is_some_and(|r| r.state != RolloutState::Completed);
    if rolling || service.removed || service.spec.job.schedule.is_some() {
        return false;
    }
    let anywhere = service
        .task_spec(service.revision)
        .is_some_and(|spec| spec.placement.constraints.is_empty());
    let mut count = 0u32;
    let mut last_slot = None;
    for task in state.tasks_of_service(service.id) {
        let alone = last_slot.replace(task.slot) != Some(task.slot);
        let wanted = task.desired == Desired::Running && !task.status.state.is_terminal();
        let plain = task.revision == service.revision && task.extras.beside.is_none();
        count += 1;
        if !(alone && wanted && plain && task.extras.target.is_none()) || count > replicas {
            return false;
        }
        let Some(node) = task.node.filter(|_| !(calm && anywhere)) else { continue };
        let stays = |node: &Node| is_good(node) && service.may_stay(task.revision, node);
        if !state.node(node).is_some_and(stays) {
            return false;
        }
    }
    count == replicas
}
