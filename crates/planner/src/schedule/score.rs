//! Spread: the node with fewest tasks of the service first, then with fewest tasks at all. Nodes
//! where this revision failed again and again, or could not be started, go last.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use cluster_model::node::Node;
use cluster_model::spec::Resources;
use cluster_model::state::fits;
use cluster_model::{NodeId, Observed, ServiceId, State};

use super::filter::{Counts, lacking};

/// Failures of one revision on a node, within the window, that make it go last.
const FAILURES_MAX: u32 = 5;
/// How long a failure is held against a node.
const FAILURE_WINDOW_MS: u64 = 5 * 60_000;

/// Lowest first.
type Score = (u32, u32, u32, NodeId);

struct Room {
    capacity: Resources,
    used: Resources,
}

pub struct Heap {
    scores: BinaryHeap<Reverse<Score>>,
    rooms: BTreeMap<NodeId, Room>,
}

impl Heap {
    pub fn new(
        state: &State,
        service: ServiceId,
        revision: u32,
        nodes: Vec<&Node>,
        now_ms: u64,
    ) -> Self {
        let mut own: BTreeMap<NodeId, u32> = BTreeMap::new();
        let mut failures: BTreeMap<NodeId, u32> = BTreeMap::new();
        for task in state.tasks_of_service(service) {
            let Some(node) = task.node else { continue };
            if task.holds_resources() {
                *own.entry(node).or_default() += 1;
            }
            let recent = task.status.at_ms.saturating_add(FAILURE_WINDOW_MS) > now_ms;
            match task.status.state {
                Observed::Failed if recent && task.revision == revision => {
                    *failures.entry(node).or_default() += 1;
                }
                // A node that could not even start it is avoided at once.
                Observed::Rejected if recent && task.revision == revision => {
                    *failures.entry(node).or_default() += FAILURES_MAX;
                }
                _ => {}
            }
        }
        let count = |counts: &BTreeMap<NodeId, u32>, node| counts.get(&node).copied().unwrap_or(0);
        let mut heap =
            Heap { scores: BinaryHeap::with_capacity(nodes.len()), rooms: BTreeMap::new() };
        for node in nodes {
            let usage = state.usage(node.id);
            let failing = count(&failures, node.id) / FAILURES_MAX;
            let score = (failing, count(&own, node.id), usage.tasks, node.id);
            heap.scores.push(Reverse(score));
            let room = Room { capacity: node.description.capacity, used: usage.reserved };
            heap.rooms.insert(node.id, room);
        }
        heap
    }

    /// The best node with room, charged with one more task. Nodes without room leave the heap and
    /// are counted: tasks of a group are alike, so they cannot take the next one either.
    pub fn take(&mut self, wanted: Resources, refused: &mut Counts) -> Option<NodeId> {
        while let Some(Reverse((failing, own, tasks, id))) = self.scores.pop() {
            let Some(room) = self.rooms.get_mut(&id) else { continue };
            if !fits(room.capacity, room.used, wanted) {
                *refused.entry(lacking(room.capacity, room.used, wanted)).or_default() += 1;
                continue;
            }
            room.used.cpu_nanos += wanted.cpu_nanos;
            room.used.memory_bytes += wanted.memory_bytes;
            self.scores.push(Reverse((failing, own + 1, tasks + 1, id)));
            return Some(id);
        }
        None
    }
}
