//! Which of the nodes that can take a task is best.
//!
//! First the spread levels, then soft wishes, then the strategy. Spread: fewest tasks of the
//! service, then fewest tasks at all. Bin-pack: the fullest after the placement, by the larger of
//! its CPU and memory shares, then most tasks. Last the lower id, which is the order of candidates.

use std::cmp::Reverse;

use cluster_model::fit;
use cluster_model::spec::{AffinityTarget, Resources, Strategy};
use cluster_model::{NodeId, ServiceId, State, TaskSpec};

use super::Group;
use super::candidate::Candidate;
use super::history::Failures;
use super::spread::{Share, Tree, Verdict};

/// One whole, as shares are counted.
const WHOLE: u128 = 1_000_000;

/// Smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    /// The weights of met wishes, negated.
    pub wishes: i32,
    pub first: u32,
    pub second: u32,
    place: u32,
}

impl Score {
    /// Of a node without wishes under the spread strategy, whose place is of no concern.
    pub fn spread(of_service: u32, tasks: u32) -> Self {
        Score { wishes: 0, first: of_service, second: tasks, place: 0 }
    }

    pub fn place(self) -> usize {
        self.place as usize
    }

    /// Nothing but the order of ids separates them.
    pub fn ties(self, other: Score) -> bool {
        (self.wishes, self.first, self.second) == (other.wishes, other.first, other.second)
    }
}

/// The nodes that can take a group's tasks, best first.
pub(super) struct Ranking<'a> {
    spec: &'a TaskSpec,
    strategy: Strategy,
    of_service: Vec<u32>,
    /// By candidate; empty when there are no wishes.
    wishes: Vec<i32>,
    /// What is added when a node gets its first task of the service.
    own_wish: i32,
    tree: Tree,
    /// Taken out for the whole group.
    dropped: Vec<usize>,
    /// Nodes that go last.
    pub failing: Vec<NodeId>,
    /// The service has tasks that ended, or are to end.
    pub history: bool,
}

impl<'a> Ranking<'a> {
    pub fn of(state: &State, group: &Group<'a>, nodes: &[Candidate<'_>], now_ms: u64) -> Self {
        let spec = group.spec;
        let mut of_service = vec![0u32; nodes.len()];
        let Past { failing, history } = siblings(state, group, now_ms, |node| {
            if let Some(place) = place_of(nodes, node) {
                of_service[place] += 1;
            }
        });
        let (wishes, own_wish) = wishes(state, group.service, spec, nodes);
        let mut ranking = Self {
            spec,
            strategy: strategy(state, spec),
            of_service,
            wishes,
            own_wish,
            tree: Tree::flat([].into()),
            dropped: Vec::new(),
            failing,
            history,
        };
        let levels = &spec.placement.spread_over;
        let free = spec.placement.constraints.is_empty();
        let meets = |candidate: &Candidate<'_>| free || fit::unmet(candidate.node, spec).is_none();
        let takes = |candidate: &Candidate<'_>, meets: bool| {
            candidate.unusable.is_none() && meets && candidate.room(spec).is_none()
        };
        ranking.tree = if levels.is_empty() {
            let mut good = Vec::with_capacity(nodes.len());
            for (place, node) in nodes.iter().enumerate() {
                if takes(node, meets(node)) {
                    good.push(Reverse(ranking.score(place, node)));
                }
            }
            Tree::flat(good.into())
        } else {
            let meets: Vec<bool> = nodes.iter().map(meets).collect();
            let good = nodes.iter().enumerate().filter(|(place, node)| takes(node, meets[*place]));
            let scores = good.map(|(place, node)| ranking.score(place, node)).collect();
            Tree::of(levels, nodes, scores, &ranking.of_service, &meets)
        };
        ranking
    }

    /// What speaks for a node beside its branches.
    #[inline]
    pub fn score(&self, place: usize, candidate: &Candidate<'_>) -> Score {
        let (first, second) = match self.strategy {
            Strategy::Spread => (self.of_service[place], candidate.tasks),
            Strategy::BinPack => {
                (u32::MAX - fullness(candidate, self.spec), u32::MAX - candidate.tasks)
            }
        };
        let wishes = self.wishes.get(place).copied().unwrap_or(0);
        Score { wishes, first, second, place: u32::try_from(place).unwrap_or(u32::MAX) }
    }

    /// Takes out the best node that the task accepts.
    pub fn find(&mut self, ask: &mut dyn FnMut(usize) -> Verdict) -> Option<Score> {
        let dropped = &mut self.dropped;
        self.tree.find(&mut |place| {
            let verdict = ask(place);
            if matches!(verdict, Verdict::Drop) {
                dropped.push(place);
            }
            verdict
        })
    }

    /// A node got a task of the group and was brought up to date.
    pub fn placed(&mut self, place: usize, candidate: &Candidate<'_>) {
        self.of_service[place] += 1;
        if self.of_service[place] == 1
            && let Some(wishes) = self.wishes.get_mut(place)
        {
            *wishes -= self.own_wish;
        }
        self.tree.count(place);
        if candidate.room(self.spec).is_none() {
            self.tree.push(self.score(place, candidate));
        }
    }

    /// A dropped node may be right for one task all the same.
    pub fn restore(&mut self, place: usize, candidate: &Candidate<'_>) {
        if let Some(at) = self.dropped.iter().position(|dropped| *dropped == place) {
            self.dropped.swap_remove(at);
            self.tree.push(self.score(place, candidate));
        }
    }

    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// What a node's branches have, the outermost first.
    pub fn shares(&self, place: usize) -> Vec<Share> {
        self.tree.shares(place)
    }

    pub fn of_service(&self, place: usize) -> u32 {
        self.of_service[place]
    }
}

pub(super) fn strategy(state: &State, spec: &TaskSpec) -> Strategy {
    let cluster = || state.cluster().map_or(Strategy::default(), |cluster| cluster.strategy);
    spec.placement.strategy.unwrap_or_else(cluster)
}

/// What a service's tasks that are over tell.
pub(super) struct Past {
    /// Nodes that go last.
    pub failing: Vec<NodeId>,
    /// There are such tasks.
    pub history: bool,
}

/// Looks at the tasks of a group's service: `on` hears the node of each that fills its slot.
pub(super) fn siblings(
    state: &State,
    group: &Group<'_>,
    now_ms: u64,
    mut on: impl FnMut(NodeId),
) -> Past {
    let mut failures = Failures::default();
    let mut history = false;
    for task in state.tasks_of_service(group.service) {
        if Some(task.id) == group.except {
            continue;
        }
        if !task.fills_slot() {
            history = true;
            failures.note(task, group.revision, now_ms);
        } else if let Some(node) = task.node {
            on(node);
        }
    }
    Past { failing: failures.failing(), history }
}

/// Where a node is among the candidates, which are in the order of ids.
pub(super) fn place_of(nodes: &[Candidate<'_>], node: NodeId) -> Option<usize> {
    nodes.binary_search_by_key(&node, |candidate| candidate.node.id).ok()
}

/// The negated weights of the wishes that each node meets, and what the service wishes of itself.
fn wishes(
    state: &State,
    service: ServiceId,
    spec: &TaskSpec,
    nodes: &[Candidate<'_>],
) -> (Vec<i32>, i32) {
    let affinities = &spec.placement.affinities;
    if affinities.is_empty() {
        return (Vec::new(), 0);
    }
    let mut wishes = vec![0i32; nodes.len()];
    let mut own = 0;
    for affinity in affinities {
        let weight = i32::from(affinity.weight);
        match &affinity.target {
            AffinityTarget::Node(condition) => {
                for (wish, candidate) in wishes.iter_mut().zip(nodes) {
                    *wish -= if condition.holds(candidate.node) { weight } else { 0 };
                }
            }
            AffinityTarget::Service(name) => {
                let Some(other) = state.service_named(name) else { continue };
                if other == service {
                    own += weight;
                }
                let mut met = vec![false; nodes.len()];
                for task in state.tasks_of_service(other).filter(|task| task.fills_slot()) {
                    if let Some(place) = task.node.and_then(|node| place_of(nodes, node)) {
                        met[place] = true;
                    }
                }
                for (wish, met) in wishes.iter_mut().zip(met) {
                    *wish -= if met { weight } else { 0 };
                }
            }
        }
    }
    (wishes, own)
}

/// The larger of a node's reserved shares of CPU and memory once it has the task, in millionths.
pub(super) fn fullness(candidate: &Candidate<'_>, spec: &TaskSpec) -> u32 {
    let Resources { cpu_nanos, memory_bytes } = candidate.node.description.capacity;
    let share = |used: u64, wanted: u64, capacity: u64| {
        let held = u128::from(used) + u128::from(wanted);
        held * WHOLE / u128::from(capacity.max(1))
    };
    let wanted = spec.reservations;
    let cpu = share(candidate.used.cpu_nanos, wanted.cpu_nanos, cpu_nanos);
    let memory = share(candidate.used.memory_bytes, wanted.memory_bytes, memory_bytes);
    u32::try_from(cpu.max(memory).min(WHOLE)).unwrap_or(u32::MAX)
}
