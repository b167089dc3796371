//! Takes the best node for one task, past those where the slot's last attempts went wrong.

use cluster_model::{NodeId, Observed, State, Task, TaskSpec};

use super::filter::Candidate;
use super::score::{Ranking, Score};

/// How long a failure speaks against a node.
const MEMORY_MS: u64 = 5 * 60 * 1000;

/// Nodes that a task would rather not go to.
#[derive(Default)]
pub(super) struct Shunned {
    /// The slot's tasks could not even start here: any other node is better.
    rejected: Vec<NodeId>,
    /// The slot's tasks failed here: another node that is as good is better.
    failed: Vec<NodeId>,
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

/// The node for one more task of the group; it is taken from the node's room and ranking.
pub(super) fn node(
    ranking: &mut Ranking,
    nodes: &mut [Candidate<'_>],
    spec: &TaskSpec,
    shunned: &Shunned,
) -> Option<NodeId> {
    let id = |score: &Score| nodes[score.place].node.id;
    let mut passed = Vec::new();
    let mut best = ranking.pop()?;
    while shunned.rejected.contains(&id(&best)) {
        passed.push(best);
        match ranking.pop() {
            Some(next) => best = next,
            None => break,
        }
    }
    // Rejected everywhere: the best of them again.
    if passed.last() == Some(&best) {
        best = passed.remove(0);
    }
    while shunned.failed.contains(&id(&best)) {
        match ranking.pop() {
            Some(next) if next.ties(best) && !shunned.rejected.contains(&id(&next)) => {
                passed.push(best);
                best = next;
            }
            Some(worse) => {
                passed.push(worse);
                break;
            }
            None => break,
        }
    }
    for score in passed {
        ranking.push(score);
    }
    let candidate = &mut nodes[best.place];
    candidate.take(spec);
    if candidate.has_room(spec) {
        let of_service = best.of_service + 1;
        ranking.push(Score { of_service, tasks: candidate.tasks, place: best.place });
    }
    Some(candidate.node.id)
}
