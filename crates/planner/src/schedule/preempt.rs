//! Preemption: a task that finds no room takes it from tasks of much lower priority.
//!
//! Victims are all on one node, and no more than are needed there. Between nodes: those where no
//! service loses more slots than it allows, then those whose victims have the lowest priority, are
//! fewest and free the least beyond what is needed. Victims stop in their own time; each gets a
//! successor, which looks for another node. Their room is kept by `claim`, which is also why
//! nothing more is taken for the same task while they stop.
//!
//! Tasks are looked at one after the other: what a later one frees may leave room for an earlier one,
//! too, whose victim then stopped for nothing. It is not taken back; its successor finds a node.
//!
//! Never for a task whose slot keeps failing to start: it would take room over and over.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use cluster_model::fit::{self, Seeker, Supposed};
use cluster_model::spec::{Resources, TaskSpec};
use cluster_model::task::Moved;
use cluster_model::{Change, Desired, NewTask, Reason, ServiceId, State, Task, TaskId};

use super::candidate::Candidate;
use super::{Group, Placer, claim};
use crate::budget::is_healthy;

/// Tasks preempted in one round of a pass, unless a single task needs more.
pub(super) const VICTIMS_MAX: usize = 100;
/// Victims have a priority lower by at least so much.
const GAP: u8 = 10;
/// A slot that was restarted so often in a row takes no room from others.
const RESTARTS_MAX: u32 = 3;
const WHOLE: u128 = 1_000_000;

/// Whether tasks of one priority may take the room of those of another.
pub(super) fn outranks(priority: u8, other: u8) -> bool {
    other.checked_add(GAP).is_some_and(|least| priority >= least)
}

/// The nodes where a group might take room, the least bad first. Looked at again when their turn
/// comes, since what was taken meanwhile may have made them worse.
pub(super) struct Preemption {
    nodes: BinaryHeap<Reverse<(Cost, usize)>>,
    begun: bool,
}

/// Smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// Slots lost beyond what their services allow.
    breaches: u32,
    /// The highest priority of a victim.
    priority: u8,
    victims: usize,
    /// Shares of the node freed beyond what is needed, millionths.
    excess: u64,
}

impl Preemption {
    pub fn new(placer: &Placer<'_>, group: &Group<'_>) -> Self {
        let any = placer.view.services().any(|service| {
            service.id != group.service && outranks(group.priority, service.spec.priority)
        });
        // Nothing to find is found without looking.
        Self { nodes: BinaryHeap::new(), begun: !any }
    }
}

impl<'a> Placer<'a> {
    /// Makes room for one task. Answers what it says meanwhile.
    pub(super) fn preempt(
        &mut self,
        group: &Group<'a>,
        task: &'a Task,
        preemption: &mut Preemption,
    ) -> Option<String> {
        if task.restarts >= RESTARTS_MAX {
            return None;
        }
        let seeker = group.seeker(task);
        let (place, victims) = if let Some(target) = task.extras.target {
            let place = super::place_of(&self.nodes, target)?;
            (place, self.victims(group, seeker, place)?.1)
        } else {
            self.cheapest(group, seeker, preemption)?
        };
        if victims.len() > self.victims_left && self.victims_left < VICTIMS_MAX {
            self.placed.bounded = true;
            return None;
        }
        self.victims_left = self.victims_left.saturating_sub(victims.len());
        let changes = self.eviction(&victims);
        self.commit(changes);
        let node = self.nodes[place].node;
        self.nodes[place].refresh(self.state.usage(node.id));
        self.nodes[place].claims.push(group.spec);
        if task.extras.target.is_none()
            && let Some((cost, _)) = self.victims(group, seeker, place)
        {
            preemption.nodes.push(Reverse((cost, place)));
        }
        Some(claim::message(self.state, node, group.priority))
    }

    fn cheapest(
        &mut self,
        group: &Group<'a>,
        seeker: Seeker<'a>,
        preemption: &mut Preemption,
    ) -> Option<(usize, Vec<TaskId>)> {
        if !preemption.begun {
            preemption.begun = true;
            for place in 0..self.nodes.len() {
                if let Some((cost, _)) = self.victims(group, seeker, place) {
                    preemption.nodes.push(Reverse((cost, place)));
                }
            }
        }
        while let Some(Reverse((_, place))) = preemption.nodes.pop() {
            let Some((cost, victims)) = self.victims(group, seeker, place) else { continue };
            let best = preemption.nodes.peek().is_none_or(|Reverse(next)| (cost, place) <= *next);
            if best {
                return Some((place, victims));
            }
            preemption.nodes.push(Reverse((cost, place)));
        }
        None
    }

    /// Whom the task would displace on a node; none when that would not help.
    fn victims(
        &mut self,
        group: &Group<'a>,
        seeker: Seeker<'a>,
        place: usize,
    ) -> Option<(Cost, Vec<TaskId>)> {
        let candidate = &self.nodes[place];
        let capacity = candidate.node.description.capacity;
        let wanted = group.spec.reservations;
        if fit::fixed(candidate.node, seeker).is_some()
            || fit::room(capacity, Resources::default(), wanted).is_some()
        {
            return None;
        }
        let lower = lower_tasks(self.state, group, candidate);
        if lower.is_empty() {
            return None;
        }
        let budgets = &mut self.budgets;
        let mut left: BTreeMap<ServiceId, u32> = BTreeMap::new();
        for victim in &lower {
            let service = victim.task.service;
            left.entry(service).or_insert_with(|| budgets.left(self.state, service));
        }
        let trial = Trial { state: self.state, candidate, seeker, lower: &lower };
        let chosen = trial.choose(Some(left.clone())).or_else(|| trial.choose(None))?;
        Some((trial.cost(&chosen, left), chosen.iter().map(|at| lower[*at].task.id).collect()))
    }

    /// Victims stop, their slots get successors.
    fn eviction(&mut self, victims: &[TaskId]) -> Vec<Change> {
        let reason = Reason::Reschedule(Moved::Preempted);
        let mut changes = Vec::new();
        let mut successors: BTreeMap<(ServiceId, u32), Vec<NewTask>> = BTreeMap::new();
        for task in victims.iter().filter_map(|id| self.state.task(*id)) {
            let desired = Desired::Shutdown;
            changes.push(Change::SetDesired { task: task.id, desired, reason: reason.clone() });
            self.budgets.forget(task.service);
            successors.entry((task.service, task.revision)).or_default().push(NewTask {
                slot: task.slot,
                desired: Desired::Ready,
                reason: reason.clone(),
                not_before_ms: task.extras.not_before_ms,
                restarts: task.restarts,
                target: task.extras.target,
                beside: None,
            });
        }
        for ((service, revision), tasks) in successors {
            let base = self.ids.next_base(tasks.len() as u64);
            changes.push(Change::CreateTasks { service, revision, base, tasks });
        }
        changes
    }
}

/// A task that may be displaced.
struct Lower<'s> {
    task: &'s Task,
    spec: &'s TaskSpec,
    priority: u8,
}

/// Tasks of a node that the group outranks, lowest priority first. Tasks that share their slot
/// with another are in the middle of a rollout and are left to it.
fn lower_tasks<'s>(
    state: &'s State,
    group: &Group<'_>,
    candidate: &Candidate<'_>,
) -> Vec<Lower<'s>> {
    let alone = |task: &Task| {
        state.tasks_of_slot(task.service, task.slot).filter(|other| other.fills_slot()).count() == 1
    };
    let mut lower: Vec<Lower<'s>> = state
        .tasks_of_node(candidate.node.id)
        .filter(|task| task.holds_resources() && task.fills_slot() && task.service != group.service)
        .filter_map(|task| {
            let service = state.service(task.service).filter(|service| !service.removed)?;
            let spec = service.task_spec(task.revision)?;
            let priority = service.spec.priority;
            outranks(group.priority, priority).then_some(Lower { task, spec, priority })
        })
        .filter(|lower| alone(lower.task))
        .collect();
    lower.sort_by_key(|lower| (lower.priority, lower.task.id));
    lower
}

/// What would be if some of a node's lower tasks were gone.
struct Trial<'t, 's> {
    state: &'s State,
    candidate: &'t Candidate<'t>,
    seeker: Seeker<'t>,
    lower: &'t [Lower<'s>],
}

impl Trial<'_, '_> {
    /// The places of the tasks that must go; none when it does not help, or not within budgets.
    fn choose(&self, mut left: Option<BTreeMap<ServiceId, u32>>) -> Option<Vec<usize>> {
        let mut chosen: Vec<usize> = Vec::new();
        while !self.fits(&chosen) {
            let allowed = |at: &usize| {
                let task = self.lower[*at].task;
                let within = left.as_ref().is_none_or(|left| {
                    !is_healthy(self.state, task)
                        || left.get(&task.service).is_some_and(|left| *left > 0)
                });
                within && !chosen.contains(at) && self.gain(*at) > 0
            };
            let open: Vec<usize> = (0..self.lower.len()).filter(allowed).collect();
            let lowest = open.iter().map(|at| self.lower[*at].priority).min()?;
            let tier = || open.iter().copied().filter(|at| self.lower[*at].priority == lowest);
            let enough = |at: &usize| {
                let mut with = chosen.clone();
                with.push(*at);
                self.fits(&with)
            };
            let next = tier()
                .filter(enough)
                .min_by_key(|at| self.size(*at))
                .or_else(|| tier().max_by_key(|at| (self.gain(*at), Reverse(*at))))?;
            chosen.push(next);
            let task = self.lower[next].task;
            if let Some(left) = left.as_mut().and_then(|left| left.get_mut(&task.service))
                && is_healthy(self.state, task)
            {
                *left = left.saturating_sub(1);
            }
        }
        // Spares whoever is not needed after all, those of high priority and the large ones first.
        chosen.sort_by_key(|at| Reverse((self.lower[*at].priority, self.size(*at), *at)));
        let mut place = 0;
        while place < chosen.len() {
            let spared = chosen.remove(place);
            if !self.fits(&chosen) {
                chosen.insert(place, spared);
                place += 1;
            }
        }
        Some(chosen)
    }

    fn fits(&self, chosen: &[usize]) -> bool {
        let mut used = self.candidate.expected();
        for at in chosen {
            let held = self.lower[*at].spec.reservations;
            used.cpu_nanos = used.cpu_nanos.saturating_sub(held.cpu_nanos);
            used.memory_bytes = used.memory_bytes.saturating_sub(held.memory_bytes);
        }
        let node = self.candidate.node;
        let gone = |task: &Task| {
            fit::leaving(task) || chosen.iter().any(|at| self.lower[*at].task.id == task.id)
        };
        let supposed = Supposed { gone: &gone, come: &self.candidate.claims };
        fit::room(node.description.capacity, used, self.seeker.spec.reservations).is_none()
            && fit::extras(self.state, node, self.seeker, supposed).is_none()
    }

    /// How much of what the task wants another one holds.
    fn gain(&self, at: usize) -> u128 {
        let (wanted, held) = (self.seeker.spec, self.lower[at].spec);
        let part = |held: u64, wanted: u64| match wanted {
            0 => 0,
            _ => u128::from(held.min(wanted)) * WHOLE / u128::from(wanted),
        };
        let ports = wanted
            .host_ports
            .iter()
            .filter(|port| held.host_ports.iter().any(|held| held.published == port.published))
            .count();
        let generic = wanted
            .generic
            .iter()
            .map(|(kind, wanted)| part(held.generic.get(kind).copied().unwrap_or(0), *wanted));
        part(held.reservations.cpu_nanos, wanted.reservations.cpu_nanos)
            + part(held.reservations.memory_bytes, wanted.reservations.memory_bytes)
            + generic.sum::<u128>()
            + ports as u128 * WHOLE
    }

    /// Shares of the node that a task reserves, millionths.
    fn size(&self, at: usize) -> u128 {
        let (capacity, held) =
            (self.candidate.node.description.capacity, self.lower[at].spec.reservations);
        let share =
            |held: u64, capacity: u64| u128::from(held) * WHOLE / u128::from(capacity.max(1));
        share(held.cpu_nanos, capacity.cpu_nanos) + share(held.memory_bytes, capacity.memory_bytes)
    }

    fn cost(&self, chosen: &[usize], mut left: BTreeMap<ServiceId, u32>) -> Cost {
        let mut breaches = 0;
        for task in
            chosen.iter().map(|at| self.lower[*at].task).filter(|task| is_healthy(self.state, task))
        {
            match left.get_mut(&task.service) {
                Some(left @ 1..) => *left -= 1,
                _ => breaches += 1,
            }
        }
        let excess: u128 = chosen.iter().map(|at| self.size(*at)).sum();
        Cost {
            breaches,
            priority: chosen.iter().map(|at| self.lower[*at].priority).max().unwrap_or(0),
            victims: chosen.len(),
            excess: u64::try_from(excess).unwrap_or(u64::MAX),
        }
    }
}
