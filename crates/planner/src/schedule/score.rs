//! Which of the nodes that can take a task is best: spread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use cluster_model::{ServiceId, State, TaskSpec};

use super::filter::{Candidate, obstacle};

/// Smaller is better: fewest tasks of the service, then fewest tasks at all, then the lower id,
/// which is the order of the candidates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    pub of_service: u32,
    pub tasks: u32,
    pub place: usize,
}

impl Score {
    /// Nothing but the order of ids separates them.
    pub fn ties(self, other: Score) -> bool {
        (self.of_service, self.tasks) == (other.of_service, other.tasks)
    }
}

/// The nodes that can take a group's tasks, best first.
pub(super) struct Ranking {
    heap: BinaryHeap<Reverse<Score>>,
}

impl Ranking {
    pub fn of(state: &State, service: ServiceId, spec: &TaskSpec, nodes: &[Candidate<'_>]) -> Self {
        let mut of_service = vec![0u32; nodes.len()];
        let holders = state.tasks_of_service(service).filter(|task| task.fills_slot());
        for node in holders.filter_map(|task| task.node) {
            if let Ok(place) = nodes.binary_search_by_key(&node, |candidate| candidate.node.id) {
                of_service[place] += 1;
            }
        }
        let heap = nodes
            .iter()
            .zip(of_service)
            .enumerate()
            .filter(|(_, (candidate, _))| obstacle(candidate, spec).is_none())
            .map(|(place, (candidate, of_service))| {
                Reverse(Score { of_service, tasks: candidate.tasks, place })
            })
            .collect();
        Self { heap }
    }

    pub fn pop(&mut self) -> Option<Score> {
        self.heap.pop().map(|Reverse(score)| score)
    }

    pub fn push(&mut self, score: Score) {
        self.heap.push(Reverse(score));
    }
}
