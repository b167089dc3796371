//! Nodes on which things went wrong lately, so that other nodes are tried first.

use std::collections::BTreeMap;

use cluster_model::{NodeId, Observed, State, Task};

/// How long a failure speaks against a node.
const MEMORY_MS: u64 = 5 * 60 * 1000;
/// Failures of one revision of a service after which a node goes last for it.
pub(super) const FAILURES_MAX: u32 = 5;

/// Nodes that a task would rather not go to.
#[derive(Default)]
pub(super) struct Shunned {
    /// The slot's tasks could not even start here: any other node is better.
    pub rejected: Vec<NodeId>,
    /// The slot's tasks failed here: another node that is as good is better.
    pub failed: Vec<NodeId>,
}

/// Looks at the slot's retained history under the same revision.
pub(super) fn shunned(state: &State, task: &Task, now_ms: u64) -> Shunned {
    let mut shunned = Shunned::default();
    for other in state.tasks_of_slot(task.service, task.slot) {
        let recent = other.created_at_ms.saturating_add(MEMORY_MS) >= now_ms;
        let Some(node) = other.node.filter(|_| recent && other.revision == task.revision) else {
            continue;
        };
        match other.status.state {
            Observed::Rejected => shunned.rejected.push(node),
            Observed::Failed => shunned.failed.push(node),
            _ => {}
        }
    }
    shunned
}

/// Counts one service's failures under one revision on each node.
#[derive(Default)]
pub(super) struct Failures(BTreeMap<NodeId, u32>);

impl Failures {
    pub fn note(&mut self, task: &Task, revision: u32, now_ms: u64) {
        let failed = matches!(task.status.state, Observed::Failed | Observed::Rejected);
        // The end is told by the agent's clock, which may be wrong, but no task ends before it was
        // made nor in the future.
        let ended_at_ms = task.status.at_ms.min(now_ms).max(task.created_at_ms);
        let recent = ended_at_ms.saturating_add(MEMORY_MS) >= now_ms;
        if let Some(node) = task.node.filter(|_| failed && recent && task.revision == revision) {
            *self.0.entry(node).or_default() += 1;
        }
    }

    /// Nodes that go last.
    pub fn failing(self) -> Vec<NodeId> {
        self.0
            .into_iter()
            .filter(|(_, count)| *count >= FAILURES_MAX)
            .map(|(node, _)| node)
            .collect()
    }
}
