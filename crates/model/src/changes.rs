//! What differs between two views of the state.
//!
//! Loops keep the view they last looked at and compare: nothing is lost when a wake-up is, and the
//! cost follows what changed, because unchanged parts of the tables are shared and skipped.

use imbl::ordmap::DiffItem;

use crate::id::{NodeId, ServiceId, TaskId};
use crate::state::State;
use crate::task::{Desired, Task};

/// Objects that were added, changed or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub cluster: bool,
    pub endpoints: bool,
    /// What nodes must know of certificates.
    pub trust: bool,
    pub nodes: Vec<NodeId>,
    pub services: Vec<ServiceId>,
    pub tasks: Vec<TaskChange>,
}

/// A task that was added, changed or removed; the node is the one it has or had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskChange {
    pub task: TaskId,
    pub service: ServiceId,
    pub node: Option<NodeId>,
    /// Its worker may have to be told: more changed than what the worker itself reported.
    pub assignment: bool,
}

impl State {
    /// What changed since an earlier view of the same cluster.
    pub fn changes(&self, since: &State) -> Changes {
        let (old, new) = (&since.tables, &self.tables);
        Changes {
            cluster: old.cluster != new.cluster,
            endpoints: old.endpoints_version != new.endpoints_version,
            trust: trust_version(old) != trust_version(new),
            nodes: old.nodes.diff(&new.nodes).map(|item| *key(&item)).collect(),
            services: old.services.diff(&new.services).map(|item| *key(&item)).collect(),
            tasks: old.tasks.diff(&new.tasks).map(|item| task_change(&item)).collect(),
        }
    }
}

fn trust_version(tables: &crate::state::Tables) -> u64 {
    tables.security.as_ref().map_or(0, |security| security.trust_version)
}

fn key<'a, K, V>(item: &DiffItem<'a, 'a, K, V>) -> &'a K {
    match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
        DiffItem::Update { new: (key, _), .. } => key,
    }
}

fn task_change(item: &DiffItem<'_, '_, TaskId, std::sync::Arc<Task>>) -> TaskChange {
    let (task, assignment) = match item {
        DiffItem::Add(_, task) | DiffItem::Remove(_, task) => (task, true),
        DiffItem::Update { old: (_, old), new: (_, task) } => (task, told(old) != told(task)),
    };
    TaskChange { task: task.id, service: task.service, node: task.node, assignment }
}

/// What a worker is told of a task. What is over for the managers is told as ended.
fn told(task: &Task) -> (Option<NodeId>, Desired, u64, bool) {
    (task.node, task.desired, task.withdrawn, task.status.state.is_terminal())
}
