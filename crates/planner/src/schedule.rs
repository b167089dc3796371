//! The scheduler: nodes for tasks that have none, group by group of identical tasks.
//!
//! A group is filtered once against all nodes, then each task takes the best of a heap in which
//! only the taken node's score changes: nodes + tasks x log nodes. The rules of fit are `apply`'s
//! own; a placement may still be refused when the state has moved on.

mod explain;
mod filter;
mod pick;
mod score;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_model::{Change, NodeId, ServiceId, State, Task, TaskSpec};

use crate::Note;
use crate::restart;

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
    let (held, groups) = groups(state, now_ms);
    for task in held {
        explain(task, &explain::HELD.into(), room, &mut placed);
    }
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

/// Tasks that are not to be placed yet, and the others in groups: the service that waits longest
/// first, so that one that keeps asking cannot starve it, and its newest revision first, so that
/// failing tasks of an old one do not take the room of what replaces them.
fn groups(state: &State, now_ms: u64) -> (Vec<&Task>, Vec<Group<'_>>) {
    let mut held = Vec::new();
    let mut oldest: BTreeMap<ServiceId, u64> = BTreeMap::new();
    let mut groups: BTreeMap<(ServiceId, u32), Vec<&Task>> = BTreeMap::new();
    for task in state.unassigned_tasks().filter(|task| task.fills_slot()) {
        if restart::holds_back(state, task, now_ms) {
            held.push(task);
            continue;
        }
        groups.entry((task.service, task.revision)).or_default().push(task);
        let oldest = oldest.entry(task.service).or_insert(task.created_at_ms);
        *oldest = task.created_at_ms.min(*oldest);
    }
    let mut groups: Vec<Group<'_>> = groups
        .into_iter()
        .filter_map(|((service, revision), mut tasks)| {
            let spec = state.service(service)?.rules_of(revision)?;
            tasks.sort_unstable_by_key(|task| (task.slot, task.id));
            Some(Group { service, revision, spec, tasks })
        })
        .collect();
    groups.sort_unstable_by_key(|group| {
        (oldest.get(&group.service).copied(), group.service, Reverse(group.revision))
    });
    (held, groups)
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
        if let Some(target) = task.target {
            settle(task, target, group.spec, nodes, room, placed);
            continue;
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
        explain(task, &why, room, placed);
    }
}

/// A task with a node of its own goes there or waits for it.
fn settle(
    task: &Task,
    target: NodeId,
    spec: &TaskSpec,
    nodes: &mut [Candidate<'_>],
    room: usize,
    placed: &mut Placed,
) {
    let Ok(at) = nodes.binary_search_by_key(&target, |candidate| candidate.node.id) else { return };
    if filter::obstacle(&nodes[at], spec).is_none() {
        nodes[at].take(spec);
        placed.changes.push(Change::Assign { task: task.id, node: target });
    } else {
        explain(task, &explain::nowhere(spec, &nodes[at..=at]).into(), room, placed);
    }
}

/// Only what the task does not already say is written.
fn explain(task: &Task, why: &Arc<str>, room: usize, placed: &mut Placed) {
    if task.status.message.as_ref() == Some(why) {
        return;
    }
    if placed.changes.len() >= room {
        placed.bounded = true;
        return;
    }
    placed.changes.push(Change::Explain { task: task.id, message: why.clone() });
}
