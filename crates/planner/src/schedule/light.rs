//! A node for a task without a look at all of them: nodes are known by how many tasks they have, so the
//! best for a task with no special wishes is mostly the first or one of the first. It finds the node
//! that a ranking of all would find, or none; debug builds compare.
//!
//! Once a group of a pass needed all nodes, the groups after it have them, too.

use std::cell::Cell;
use std::collections::BTreeMap;

use cluster_model::fit;
use cluster_model::spec::Strategy;
use cluster_model::{Change, Node, NodeId, Service, State, Task};

use super::candidate::Candidate;
use super::history::{self, Shunned};
use super::rank::{Past, Ranking, Score, siblings, strategy};
use super::spread::{Verdict, choose};
use super::{Group, Placer};

/// For more tasks it pays to rank all nodes once; where constraints refuse many of them, it pays sooner.
const TASKS_MAX: usize = 128;
const CONSTRAINED_TASKS_MAX: usize = 16;
/// So does it for services that are on many nodes already.
const REPLICAS_MAX: u32 = 128;
/// Nodes looked at for one task. Where so many do not do, all have to be ranked. Few in debug builds, so
/// that the small clusters of tests come to that end, too.
const LOOKS_MAX: usize = if cfg!(debug_assertions) { 3 } else { 256 };
/// And for a group: where the emptiest nodes take nothing, each task looks at them again.
const LOOKS_OF_GROUP: usize = if cfg!(debug_assertions) { 24 } else { 4096 };

/// Only the number of tasks tells the group's good nodes from its better ones.
pub(super) fn suits(state: &State, group: &Group<'_>) -> bool {
    let placement = &group.spec.placement;
    let small = |service: &Service| service.spec.replicas() <= REPLICAS_MAX;
    let most = match placement.constraints.is_empty() {
        true => TASKS_MAX,
        false => CONSTRAINED_TASKS_MAX,
    };
    group.tasks.len() <= most
        && state.service(group.service).is_some_and(small)
        && placement.spread_over.is_empty()
        && placement.affinities.is_empty()
        && !fit::has_extras(group.spec)
        && group.tasks.iter().all(|task| task.extras.target.is_none())
        && strategy(state, group.spec) == Strategy::Spread
}

/// The nodes that have tasks of the service, with how many.
type Crowd = BTreeMap<NodeId, u32>;

enum First {
    Is(NodeId),
    None,
    /// It takes too many looks to tell.
    TooFar,
}

impl<'a> Placer<'a> {
    /// Places the first tasks of a group; answers how many. The next one, if there is one, needs a look
    /// at all nodes.
    pub(super) fn place_lightly(&mut self, group: &Group<'a>) -> usize {
        let mut crowd = Crowd::new();
        let past = siblings(self.state, group, self.now_ms, |node| {
            *crowd.entry(node).or_default() += 1;
        });
        let looks = Cell::new(0);
        for (done, task) in group.tasks.iter().enumerate() {
            if self.is_full(&[]) {
                self.placed.bounded = true;
                return done;
            }
            if looks.get() >= LOOKS_OF_GROUP {
                return done;
            }
            let found = self.emptiest(group, task, &crowd, &past, &looks);
            let Some(node) = found else { return done };
            if cfg!(debug_assertions) {
                self.check(group, task, node);
            }
            *crowd.entry(node).or_default() += 1;
            self.commit(vec![Change::Assign { task: task.id, node }]);
        }
        group.tasks.len()
    }

    fn emptiest(
        &self,
        group: &Group<'a>,
        task: &Task,
        crowd: &Crowd,
        past: &Past,
        looks: &Cell<usize>,
    ) -> Option<NodeId> {
        let state = &*self.state;
        let shunned = match past.history {
            true => history::shunned(state, task, self.now_ms),
            false => Shunned::default(),
        };
        let Shunned { rejected, failed } = &shunned;
        let last = |node| rejected.contains(&node) || past.failing.contains(&node);
        let found = self.first(group, crowd, looks, |node| match () {
            () if last(node) => Verdict::Pass,
            () if failed.contains(&node) => Verdict::Reluctantly,
            () => Verdict::Take,
        });
        match found {
            First::Is(node) => return Some(node),
            First::TooFar => return None,
            First::None if rejected.is_empty() && past.failing.is_empty() => return None,
            First::None => {}
        }
        let found = self.first(group, crowd, looks, |node| match failed.contains(&node) {
            true => Verdict::Reluctantly,
            false => Verdict::Take,
        });
        match found {
            First::Is(node) => Some(node),
            First::TooFar | First::None => None,
        }
    }

    /// The first node with room that is taken. Counts the nodes it looks at.
    fn first(
        &self,
        group: &Group<'a>,
        crowd: &Crowd,
        looks: &Cell<usize>,
        ask: impl Fn(NodeId) -> Verdict,
    ) -> First {
        let state = &*self.state;
        let takes = |node: &Node| {
            let candidate = Candidate::new(node, state.usage(node.id));
            candidate.unusable.is_none()
                && fit::unmet(node, group.spec).is_none()
                && candidate.room(group.spec).is_none()
        };
        // Whatever they hold, nodes without a task of the service come before those with one.
        let cut = Cell::new(false);
        let near = state.nodes_by_load().enumerate().map_while(|(look, (node, tasks))| {
            looks.set(looks.get() + 1);
            cut.set(look >= LOOKS_MAX);
            (!cut.get()).then_some((node, 0, tasks))
        });
        let without = near.filter(|(node, ..)| !crowd.contains_key(&node.id));
        // Needed only where the walk came to its end.
        let with = || {
            let known = crowd
                .iter()
                .filter(|_| !cut.get())
                .filter_map(|(id, has)| Some((state.node(*id)?, *has, state.usage(*id).tasks)));
            let mut with: Vec<(&Node, u32, u32)> = known.collect();
            with.sort_unstable_by_key(|(node, has, tasks)| (*has, *tasks, node.id));
            with
        };
        let with = std::iter::once_with(with).flatten();
        let best_first = without
            .chain(with)
            .filter(|(node, ..)| takes(node))
            .map(|(node, has, tasks)| (Score::spread(has, tasks), node.id));
        let found = choose(best_first, &mut Vec::new(), ask);
        match found {
            _ if cut.get() => First::TooFar,
            Some((_, node)) => First::Is(node),
            None => First::None,
        }
    }

    /// A ranking of all nodes comes to the same.
    fn check(&mut self, group: &Group<'a>, task: &'a Task, node: NodeId) {
        self.know_nodes();
        let mut ranking = Ranking::of(self.state, group, &self.nodes, self.now_ms);
        let best = self.best(group, task, &mut ranking);
        let best = best.map(|place| self.nodes[place].node.id);
        self.nodes.clear();
        debug_assert_eq!(best, Some(node), "the best node for task {}", task.id);
    }
}
