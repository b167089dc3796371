//! What tasks hold on nodes beside CPU and memory, checked without the code under test.

use std::collections::{BTreeMap, BTreeSet};

use cluster_model::node::{Generic, NodeDescription};
use cluster_model::{Command, NodeId, State, Task, TaskSpec};

use crate::world::World;

/// Rewrites what a worker says of its machine.
pub fn equip(world: &mut World, id: NodeId, edit: impl FnOnce(&mut NodeDescription)) {
    let mut description = world.state.node(id).expect("known").description.clone();
    edit(&mut description);
    let at_ms = world.now_ms;
    let command = Command::NodeReady { id, description: Box::new(description), at_ms };
    world.apply(command).expect("ready");
}

fn spec_of<'a>(state: &'a State, task: &Task) -> &'a TaskSpec {
    state.service(task.service).expect("known").task_spec(task.revision).expect("kept")
}

/// Holds after every write. Live tasks count until their exit is reported.
pub fn check(before: &State, after: &State) {
    let changed: BTreeSet<NodeId> =
        after.changes(before).tasks.iter().filter_map(|change| change.node).collect();
    for node in changed.into_iter().filter_map(|id| after.node(id)) {
        let live: Vec<&Task> =
            after.tasks_of_node(node.id).filter(|task| task.holds_resources()).collect();
        let mut ports = BTreeSet::new();
        let mut named: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
        for task in &live {
            let spec = spec_of(after, task);
            for port in &spec.host_ports {
                assert!(ports.insert(port.published), "port {port:?} twice: {live:#?}");
            }
            for (kind, count) in &spec.generic {
                *counted.entry(kind).or_default() += count;
            }
            for (kind, names) in &task.extras.generic {
                assert_eq!(names.len() as u64, spec.generic[kind], "{task:?}");
                for name in names {
                    assert!(named.insert((kind, name)), "{kind} {name} held twice: {live:#?}");
                }
            }
        }
        for (kind, held) in counted {
            let total = node.description.generic.get(kind).map_or(0, Generic::count);
            assert!(held <= total, "{kind} of {node:?} overbooked: {held}");
        }
        for task in &live {
            let new = before.task(task.id).is_none_or(|old| old.node.is_none());
            if new && max_per_node(after, task) > 0 {
                // Older revisions may be placed by other rules in the same command.
                let known = |other: &&&Task| {
                    let old = before.task(other.id).is_some_and(|old| old.node.is_some());
                    old || other.revision == task.revision
                };
                let live: Vec<&Task> = live.iter().filter(known).copied().collect();
                check_bound(after, task, &live);
            }
        }
    }
}

fn max_per_node(state: &State, task: &Task) -> usize {
    let service = state.service(task.service).expect("known");
    service.rules_of(task.revision).expect("kept").placement.max_per_node as usize
}

/// A task that was just placed: its service's slots there are not too many.
fn check_bound(state: &State, task: &Task, live: &[&Task]) {
    let max = max_per_node(state, task);
    let slots: BTreeSet<u32> =
        live.iter().filter(|other| other.service == task.service).map(|other| other.slot).collect();
    assert!(slots.len() <= max, "{} slots, {max} allowed", slots.len());
}
