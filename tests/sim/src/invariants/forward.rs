//! Tasks never go back: neither what is wanted of them nor what is known, and they never move.

use std::collections::BTreeMap;

use cluster_model::{Desired, NodeId, Observed, TaskId};

use super::{Look, Violation, broken};

#[derive(Default)]
pub(super) struct Forward {
    /// By manager: index and tasks as last seen.
    last: BTreeMap<usize, (u64, BTreeMap<TaskId, Known>)>,
}

type Known = (Desired, Observed, Option<NodeId>);

impl Forward {
    pub(super) fn check(&mut self, look: &Look<'_>) -> Result<(), Violation> {
        for seen in look.managers {
            let index = seen.view.applied_index;
            let tasks: BTreeMap<TaskId, Known> = seen
                .view
                .state
                .tasks()
                .map(|task| (task.id, (task.desired, task.status.state, task.node)))
                .collect();
            let before = self.last.insert(seen.host, (index, tasks));
            let Some((earlier, known)) = before else { continue };
            // A restarted manager may begin at an older snapshot.
            if earlier > index {
                continue;
            }
            let (_, tasks) = &self.last[&seen.host];
            for (id, (desired, observed, node)) in known {
                let Some((now_desired, now_observed, now_node)) = tasks.get(&id) else { continue };
                let observed_forward = *now_observed == observed
                    || observed.can_advance_to(*now_observed)
                    || stepped_over(observed, *now_observed);
                let forward = *now_desired >= desired && observed_forward;
                let stays = node.is_none() || node == *now_node;
                if !forward || !stays {
                    let text = format!(
                        "task {id} was {desired:?} {observed:?} on {node:?} and is \
                         {now_desired:?} {now_observed:?} on {now_node:?} at index {index}"
                    );
                    return broken("tasks only move forward", text);
                }
            }
        }
        Ok(())
    }
}

/// Between two looks a task may have been lost and then settled.
fn stepped_over(before: Observed, now: Observed) -> bool {
    !before.is_terminal() && now.is_terminal()
}
