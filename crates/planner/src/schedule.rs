//! The scheduler: nodes for tasks that have none, group by group of identical tasks.
//!
//! A group is filtered once against all nodes, then each task takes the best of a heap in which
//! only the taken node's score changes: nodes + tasks x log nodes. The rules of fit are `apply`'s
//! own; a placement may still be refused when the state has moved on.

mod explain;
mod filter;
mod pick;
mod score;

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_model::{Change, ServiceId, State, Task, TaskSpec};

use crate::Note;

use filter::Candidate;

/// What one run of the scheduler proposes.
pub(crate) struct Placed {
    pub changes: Vec<Change>,
    pub notes: Vec<Note>,
    /// Tasks were left for the next pass.
    pub bounded: bool,
}

/// Pending tasks of one revision of one service.
struct Group<'a> {
    service: ServiceId,
    revision: u32,
    spec: &'a TaskSpec,
    tasks: Vec<&'a Task>,
}

pub(crate) fn plan(state: &State, now_ms: u64, room: usize) -> Placed {
    let mut placed = Placed { changes: Vec::new(), notes: Vec::new(), bounded: false };
    let groups = groups(state);
    if groups.is_empty() {
        return placed;
    }
    let mut nodes: Vec<Candidate<'_>> =
        state.nodes().map(|node| Candidate::new(node, state.usage(node.id))).collect();
    for group in &groups {
        place(state, group, &mut nodes, now_ms, room, &mut placed);
        if placed.bounded {
            break;
        }
    }
    placed
}

/// Oldest first, so that a service that keeps asking cannot starve one that waits.
fn groups(state: &State) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<(ServiceId, u32), Vec<&Task>> = BTreeMap::new();
    for task in state.unassigned_tasks().filter(|task| task.fills_slot()) {
        groups.entry((task.service, task.revision)).or_default().push(task);
    }
    let mut groups: Vec<Group<'_>> = groups
        .into_iter()
        .filter_map(|((service, revision), mut tasks)| {
            let spec = state.service(service)?.task_spec(revision)?;
            tasks.sort_unstable_by_key(|task| (task.slot, task.id));
            Some(Group { service, revision, spec, tasks })
        })
        .collect();
    groups.sort_by_cached_key(|group| {
        let oldest = group.tasks.iter().map(|task| task.created_at_ms).min();
        (oldest, group.service, group.revision)
    });
    groups
}

fn place(
    state: &State,
    group: &Group<'_>,
    nodes: &mut [Candidate<'_>],
    now_ms: u64,
    room: usize,
    placed: &mut Placed,
) {
    let mut ranking = score::Ranking::of(state, group.service, group.spec, nodes);
    let mut waiting = Vec::new();
    for task in &group.tasks {
        if placed.changes.len() >= room {
            placed.bounded = true;
            return;
        }
        let shunned = pick::shunned(state, task, now_ms);
        match pick::node(&mut ranking, nodes, group.spec, &shunned) {
            Some(node) => placed.changes.push(Change::Assign { task: task.id, node }),
            None => waiting.push(*task),
        }
    }
    if waiting.is_empty() {
        return;
    }
    let why: Arc<str> = explain::nowhere(group.spec, nodes).into();
    let (service, tasks) = (group.service, waiting.len());
    placed.notes.push(Note::Unplaced { service, tasks, why: why.clone() });
    for task in waiting {
        if task.status.message.as_deref() == Some(&*why) {
            continue;
        }
        if placed.changes.len() >= room {
            placed.bounded = true;
            return;
        }
        placed.changes.push(Change::Explain { task: task.id, message: why.clone() });
    }
}

#[cfg(test)]
mod tests;
