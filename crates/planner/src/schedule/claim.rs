//! Room that is about to be free: a task that waits for it gets it before those behind.

use cluster_model::fit::{self, Supposed};
use cluster_model::task::Moved;
use cluster_model::{Node, Reason, State, Task};

use super::{Group, Placer};

/// Tasks named in a message.
const NAMED_MAX: usize = 3;

impl<'a> Placer<'a> {
    /// Keeps room for a task on a node that has it once what is being stopped there has ended.
    /// Answers what the task says meanwhile. Nodes where tasks were preempted come first.
    pub(super) fn claim(&mut self, group: &Group<'a>, task: &'a Task) -> Option<String> {
        let state = &*self.state;
        let seeker = group.seeker(task);
        let others = |node: &Node| preempted(state, node, group.priority).next().is_none();
        let place = (0..self.nodes.len())
            .filter(|place| {
                let candidate = &self.nodes[*place];
                let expected = Supposed { gone: &fit::leaving, come: &candidate.claims };
                candidate.leaving_tasks > 0
                    && fit::fixed(candidate.node, seeker).is_none()
                    && fit::room(
                        candidate.node.description.capacity,
                        candidate.expected(),
                        group.spec.reservations,
                    )
                    .is_none()
                    && fit::extras(state, candidate.node, seeker, expected).is_none()
            })
            .min_by_key(|place| (others(self.nodes[*place].node), *place))?;
        let candidate = &mut self.nodes[place];
        candidate.claims.push(group.spec);
        Some(message(state, candidate.node, group.priority))
    }
}

/// Tasks that make way on a node for a task of this priority.
fn preempted<'s>(state: &'s State, node: &Node, priority: u8) -> impl Iterator<Item = &'s Task> {
    state.tasks_of_node(node.id).filter(move |task| {
        let lower = state
            .service(task.service)
            .is_some_and(|service| super::preempt::outranks(priority, service.spec.priority));
        task.holds_resources()
            && fit::leaving(task)
            && task.reason == Reason::Reschedule(Moved::Preempted)
            && lower
    })
}

/// What a task says while it waits for room on a node.
pub(super) fn message(state: &State, node: &Node, priority: u8) -> String {
    let victims: Vec<&Task> = preempted(state, node, priority).collect();
    if !victims.is_empty() {
        return format!("waits for room: preempts {} on {}", names(state, &victims), node.name);
    }
    let leaving: Vec<&Task> = state
        .tasks_of_node(node.id)
        .filter(|task| task.holds_resources() && fit::leaving(task))
        .collect();
    let are = if leaving.len() == 1 { "is" } else { "are" };
    format!("waits for room: {} on {} {are} stopping", names(state, &leaving), node.name)
}

fn names(state: &State, tasks: &[&Task]) -> String {
    let mut names: Vec<String> =
        tasks.iter().take(NAMED_MAX).map(|task| name(state, task)).collect();
    if tasks.len() > NAMED_MAX {
        names.push(format!("{} more", tasks.len() - NAMED_MAX));
    }
    names.join(", ")
}

/// A task as people name it: service and slot.
pub(crate) fn name(state: &State, task: &Task) -> String {
    match state.service(task.service) {
        Some(service) => format!("{}.{}", service.spec.name, task.slot),
        None => format!("{}.{}", task.service, task.slot),
    }
}
