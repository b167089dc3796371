//! Spread levels: a tree of branches, one level for each label, with the nodes' heaps as leaves.
//!
//! The next task goes to the branch that is furthest below its share, which is in proportion to
//! the CPU capacity of its usable nodes: of all branches with room the one with the smallest
//! `(2 × has + 1) / weight` (Sainte-Laguë's divisors, which come out as rounded shares). Looked at
//! one task at a time, so a share never shrinks because the service grew, an unbalanced service is
//! levelled as far as its new tasks go, and a full branch is simply passed over. Nodes without the
//! label are one more branch.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use cluster_model::constraint::Key;
use cluster_model::fit::Obstacle;

use super::candidate::Candidate;
use super::rank::Score;

/// The root is branch 0.
pub(super) struct Tree {
    branches: Vec<Branch>,
    /// The leaf of each candidate; empty when the root is the only one.
    leaf_of: Vec<usize>,
}

struct Branch {
    parent: usize,
    share: Share,
    /// Nodes with room, best first.
    heap: BinaryHeap<Reverse<Score>>,
    /// Branches below that may have room, the one that is furthest below its share first.
    below: BTreeSet<(Share, usize)>,
}

/// How much of its share a branch has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    pub has: u32,
    pub weight: u64,
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        let side =
            |one: &Share, two: &Share| (2 * u128::from(one.has) + 1) * u128::from(two.weight);
        side(self, other).cmp(&side(other, self))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Share {}

/// What a task says to the best node.
pub(super) enum Verdict {
    Take,
    /// Only if no other is as good.
    Reluctantly,
    /// Not this task.
    Pass,
    /// No task of the group.
    Drop,
}

impl Tree {
    /// One leaf with all the nodes.
    pub fn flat(heap: BinaryHeap<Reverse<Score>>) -> Self {
        let root = Branch { parent: 0, share: Share::default(), heap, below: BTreeSet::new() };
        Self { branches: vec![root], leaf_of: Vec::new() }
    }

    /// A level for each key. Nodes that are down or drained belong to no branch: what they still
    /// run is going to be elsewhere.
    pub fn of(
        levels: &[Key],
        nodes: &[Candidate<'_>],
        scores: Vec<Score>,
        of_service: &[u32],
        meets: &[bool],
    ) -> Self {
        let mut tree = Self::flat(BinaryHeap::new());
        let mut named: BTreeMap<(usize, Cow<'_, str>), usize> = BTreeMap::new();
        let by_capacity = nodes
            .iter()
            .zip(meets)
            .filter(|(candidate, meets)| candidate.unusable.is_none() && **meets)
            .all(|(candidate, _)| candidate.node.description.capacity.cpu_nanos > 0);
        for ((candidate, has), meets) in nodes.iter().zip(of_service).zip(meets) {
            let weight = match candidate.unusable {
                _ if !meets => 0,
                None if by_capacity => candidate.node.description.capacity.cpu_nanos,
                None => 1,
                Some(_) => 0,
            };
            let away = !meets
                || matches!(
                    candidate.unusable,
                    Some(Obstacle::Down | Obstacle::Drained | Obstacle::Unknown)
                );
            let mut at = 0;
            for key in levels {
                let value = key.value(candidate.node);
                at = *named.entry((at, value)).or_insert_with(|| tree.grow(at));
                let share = &mut tree.branches[at].share;
                share.weight = share.weight.saturating_add(weight);
                share.has += if away { 0 } else { *has };
            }
            tree.leaf_of.push(at);
        }
        for score in scores {
            tree.push(score);
        }
        tree
    }

    fn grow(&mut self, parent: usize) -> usize {
        let share = Share::default();
        self.branches.push(Branch {
            parent,
            share,
            heap: BinaryHeap::new(),
            below: BTreeSet::new(),
        });
        self.branches.len() - 1
    }

    /// A node with room.
    pub fn push(&mut self, score: Score) {
        let mut at = self.leaf(score.place());
        self.branches[at].heap.push(Reverse(score));
        while at != 0 {
            let Branch { parent, share, .. } = self.branches[at];
            if !self.branches[parent].below.insert((share, at)) {
                return;
            }
            at = parent;
        }
    }

    fn leaf(&self, place: usize) -> usize {
        self.leaf_of.get(place).copied().unwrap_or(0)
    }

    /// Takes out the best node that the task accepts.
    pub fn find(&mut self, ask: &mut dyn FnMut(usize) -> Verdict) -> Option<Score> {
        self.find_below(0, ask)
    }

    fn find_below(&mut self, at: usize, ask: &mut dyn FnMut(usize) -> Verdict) -> Option<Score> {
        if self.branches[at].below.is_empty() {
            return find_in(&mut self.branches[at].heap, ask);
        }
        let mut below = std::mem::take(&mut self.branches[at].below);
        let mut found = None;
        let mut empty = Vec::new();
        for entry in &below {
            found = self.find_below(entry.1, ask);
            if found.is_some() {
                break;
            }
            if self.branches[entry.1].is_empty() {
                empty.push(*entry);
            }
        }
        for entry in empty {
            below.remove(&entry);
        }
        self.branches[at].below = below;
        found
    }

    /// A node got a task: its branches have one more.
    pub fn count(&mut self, place: usize) {
        let mut at = self.leaf(place);
        while at != 0 {
            let Branch { parent, share, .. } = self.branches[at];
            self.branches[parent].below.remove(&(share, at));
            let branch = &mut self.branches[at];
            branch.share.has += 1;
            let entry = (branch.share, at);
            if !branch.is_empty() {
                self.branches[parent].below.insert(entry);
            }
            at = parent;
        }
    }

    /// What a node's branches have, outermost first.
    pub fn shares(&self, place: usize) -> Vec<Share> {
        let mut at = self.leaf(place);
        let mut shares = Vec::new();
        while at != 0 {
            shares.push(self.branches[at].share);
            at = self.branches[at].parent;
        }
        shares.reverse();
        shares
    }
}

impl Branch {
    fn is_empty(&self) -> bool {
        self.heap.is_empty() && self.below.is_empty()
    }
}

fn find_in(
    heap: &mut BinaryHeap<Reverse<Score>>,
    ask: &mut dyn FnMut(usize) -> Verdict,
) -> Option<Score> {
    let mut passed = Vec::new();
    let best_first = std::iter::from_fn(|| heap.pop().map(|Reverse(score)| (score, score.place())));
    let found = choose(best_first, &mut passed, ask);
    heap.extend(passed.into_iter().map(|(score, _)| Reverse(score)));
    found.map(|(score, _)| score)
}

/// The first that is taken; one that is taken reluctantly only if none that is as good is taken. What
/// was looked at and is still good for others is left in `passed`.
pub(super) fn choose<T: Copy>(
    best_first: impl Iterator<Item = (Score, T)>,
    passed: &mut Vec<(Score, T)>,
    mut ask: impl FnMut(T) -> Verdict,
) -> Option<(Score, T)> {
    let mut reluctant: Option<(Score, T)> = None;
    for (score, what) in best_first {
        if reluctant.is_some_and(|(first, _)| !score.ties(first)) {
            passed.push((score, what));
            break;
        }
        match ask(what) {
            Verdict::Take => {
                passed.extend(reluctant);
                return Some((score, what));
            }
            Verdict::Reluctantly if reluctant.is_none() => reluctant = Some((score, what)),
            Verdict::Reluctantly | Verdict::Pass => passed.push((score, what)),
            Verdict::Drop => {}
        }
    }
    reluctant
}
