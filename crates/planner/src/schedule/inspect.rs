//! Looks at one task as the scheduler would, for explanations.

use std::cmp::Ordering;

use cluster_model::spec::Strategy;
use cluster_model::{Node, Observed, State, Task};

use super::candidate::Candidate;
use super::rank::{Ranking, Score, fullness};
use super::spread::Share;
use super::words::Tally;
use super::{Group, place_of};

/// What speaks for and against nodes as things are, the task itself not counted.
pub(crate) struct Inspection<'a> {
    pub tally: Tally<'a>,
    pub strategy: Strategy,
    /// Nodes that go last because tasks of the revision keep failing there.
    pub failing: Vec<&'a Node>,
    /// Where the task is.
    pub here: Option<Standing<'a>>,
    /// The best of the other suitable nodes.
    pub next: Option<Standing<'a>>,
}

/// How good a node is.
pub(crate) struct Standing<'a> {
    pub node: &'a Node,
    /// Of its branches, the outermost level first.
    pub shares: Vec<Share>,
    pub score: Score,
    pub of_service: u32,
    pub tasks: u32,
    /// In millionths, with the task.
    pub fullness: u32,
}

impl Standing<'_> {
    pub fn compare(&self, other: &Self) -> Ordering {
        self.shares.cmp(&other.shares).then(self.score.cmp(&other.score))
    }
}

pub(crate) fn inspect<'a>(state: &'a State, task: &'a Task, now_ms: u64) -> Option<Inspection<'a>> {
    let owner = state.service(task.service)?;
    let spec = owner.rules_of(task.revision)?;
    let group = Group {
        service: task.service,
        revision: task.revision,
        priority: owner.spec.priority,
        spec,
        tasks: vec![task],
        except: Some(task.id),
    };
    let mut nodes: Vec<Candidate<'a>> =
        state.nodes_in_use().map(|(node, usage)| Candidate::new(node, usage)).collect();
    let here = task.node.and_then(|node| place_of(&nodes, node));
    if let Some(candidate) = here.and_then(|place| nodes.get_mut(place)) {
        candidate.give_back(spec);
    }
    let ranking = Ranking::of(state, &group, &nodes, now_ms);
    let tally = Tally::of(state, group.seeker(task), &nodes);
    let standing = |place: usize| Standing {
        node: nodes[place].node,
        shares: ranking.shares(place),
        score: ranking.score(place, &nodes[place]),
        of_service: ranking.of_service(place),
        tasks: nodes[place].tasks,
        fullness: fullness(&nodes[place], spec),
    };
    let next = tally
        .suitable
        .iter()
        .filter_map(|node| place_of(&nodes, node.id))
        .filter(|place| Some(*place) != here)
        .map(standing)
        .min_by(Standing::compare);
    let failing = ranking.failing.iter().filter_map(|node| state.node(*node)).collect();
    let strategy = ranking.strategy();
    Some(Inspection { strategy, failing, here: here.map(standing), next, tally })
}

/// Failures of the service's revision that are still remembered in the task's slot.
pub(crate) fn failed_before(state: &State, task: &Task) -> usize {
    state
        .tasks_of_slot(task.service, task.slot)
        .filter(|other| other.revision == task.revision)
        .filter(|other| matches!(other.status.state, Observed::Failed | Observed::Rejected))
        .count()
}
