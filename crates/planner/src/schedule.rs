//! The scheduler: nodes for tasks that have none.
//!
//! Work is done per group of identical tasks (one service, one revision): filter all nodes once,
//! keep them in a heap by score, take the best, put it back with its new score. So placing k tasks
//! costs nodes + k log nodes, not k times nodes.

mod explain;
mod filter;
mod score;

use std::collections::BTreeMap;

use cluster_model::{Change, ServiceId, Task, TaskId};

use crate::draft::Draft;

pub fn run(draft: &mut Draft<'_>) {
    let mut groups: BTreeMap<(ServiceId, u32), Vec<TaskId>> = BTreeMap::new();
    for task in draft.state().unassigned_tasks().filter(|task| task.fills_slot()) {
        groups.entry((task.service, task.revision)).or_default().push(task.id);
    }
    for ((service, revision), tasks) in groups {
        place(draft, service, revision, tasks);
    }
}

fn place(draft: &mut Draft<'_>, service: ServiceId, revision: u32, mut tasks: Vec<TaskId>) {
    let state = draft.state();
    let Some(spec) = state.service(service).and_then(|s| s.task_spec(revision)).cloned() else {
        return;
    };
    // Tasks of lower slots first, so that what runs is what people look at first.
    tasks.sort_by_key(|id| state.task(*id).map(|task| (task.slot, task.id)));
    let (feasible, mut refused) = filter::run(state, &spec);
    let mut heap = score::Heap::new(state, service, revision, feasible, draft.now_ms);
    let mut assigned: Vec<Change> = Vec::new();
    let mut waiting: Vec<TaskId> = Vec::new();
    for task in tasks {
        match heap.take(spec.reservations, &mut refused) {
            Some(node) => assigned.push(Change::Assign { task, node }),
            None => waiting.push(task),
        }
    }
    assigned.into_iter().for_each(|change| draft.push(change));
    if waiting.is_empty() {
        return;
    }
    let message = explain::text(&refused, draft.state());
    for task in waiting {
        let known = draft.state().task(task).and_then(|task: &Task| task.status.message.clone());
        if known.as_deref() != Some(&*message) {
            draft.push(Change::Explain { task, message: message.clone() });
        }
    }
}
