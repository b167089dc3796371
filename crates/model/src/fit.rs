//! Whether a node can take a task: the one rule of both the scheduler and `apply`.
//!
//! Containers count against their node until their exit was reported. What a task would hold is
//! compared with what the others hold, or would hold if some were gone and others had come, which
//! is how room that is about to be free is found.

use std::collections::BTreeMap;

use cluster_mutants::{Mutant, is};

use crate::id::{NodeId, ServiceId};
use crate::node::{Availability, Generic, Node, NodeState};
use crate::spec::{Resources, TaskSpec};
use crate::state::State;
use crate::task::{Desired, Task};

/// Named generic resources a task gets, by kind.
pub type Names = Vec<(String, Vec<String>)>;

/// What speaks against a node; the first that applies. In the order in which people read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// By its place in the spec.
    Constraint(usize),
    Cpu,
    Memory,
    /// By the place of its kind in the spec.
    Generic(usize),
    /// A task on the node has the port.
    HostPort(u16),
    /// Every worker listens on the port for a service.
    Published(u16),
    MaxPerNode,
    /// There is room, but a task that comes first waits for more of it. Only planners say so.
    Promised,
    Unhealthy,
    Down,
    Drained,
    Paused,
    Unknown,
    /// The task is for another node.
    Target,
}

impl Obstacle {
    /// It goes away when tasks leave the node.
    pub fn is_room(self) -> bool {
        match self {
            Obstacle::Cpu | Obstacle::Memory | Obstacle::Generic(_) | Obstacle::HostPort(_) => true,
            Obstacle::Constraint(_)
            | Obstacle::Published(_)
            | Obstacle::MaxPerNode
            | Obstacle::Promised
            | Obstacle::Unhealthy
            | Obstacle::Down
            | Obstacle::Drained
            | Obstacle::Paused
            | Obstacle::Unknown
            | Obstacle::Target => false,
        }
    }
}

/// A task that looks for a node.
#[derive(Clone, Copy, Debug)]
pub struct Seeker<'a> {
    pub service: ServiceId,
    /// What it is placed by: [`crate::Service::rules_of`] its revision.
    pub spec: &'a TaskSpec,
    pub task: &'a Task,
}

/// A node as it would be.
#[derive(Clone, Copy)]
pub struct Supposed<'a> {
    /// These tasks have left.
    pub gone: &'a dyn Fn(&Task) -> bool,
    /// Tasks of these specs have come.
    pub come: &'a [&'a TaskSpec],
}

impl Supposed<'_> {
    /// The node as it is.
    pub const NOW: Supposed<'static> = Supposed { gone: &|_| false, come: &[] };
    /// Whatever is being stopped has ended.
    pub const STOPPED: Supposed<'static> = Supposed { gone: &leaving, come: &[] };
}

/// The task is being stopped and has not ended yet, as far as its holding anything goes.
pub fn leaving(task: &Task) -> bool {
    task.desired > Desired::Running
}

/// Answers the named resources that the task would get, or the first obstacle.
pub fn fits(state: &State, node: &Node, seeker: Seeker<'_>) -> Result<Names, Obstacle> {
    if let Some(obstacle) = fixed(node, seeker) {
        return Err(obstacle);
    }
    let used = state.usage(node.id).reserved;
    if let Some(obstacle) = room(node.description.capacity, used, seeker.spec.reservations) {
        return Err(obstacle);
    }
    if !has_extras(seeker.spec) {
        return Ok(Names::new());
    }
    match extras(state, node, seeker, Supposed::NOW) {
        Some(obstacle) => Err(obstacle),
        None => names(state, node, seeker),
    }
}

/// As [`fits`] for a node as it would be; names are not chosen.
pub fn obstacle(
    state: &State,
    node: &Node,
    seeker: Seeker<'_>,
    supposed: Supposed<'_>,
) -> Option<Obstacle> {
    fixed(node, seeker)
        .or_else(|| {
            let used = used(state, node.id, supposed);
            room(node.description.capacity, used, seeker.spec.reservations)
        })
        .or_else(|| extras(state, node, seeker, supposed))
}

/// What no leaving task changes: the node's state, and whether it is the right one.
pub fn fixed(node: &Node, seeker: Seeker<'_>) -> Option<Obstacle> {
    unusable(node).or_else(|| {
        if seeker.task.extras.target.is_some_and(|target| target != node.id) {
            return Some(Obstacle::Target);
        }
        unmet(node, seeker.spec)
    })
}

/// The node takes no tasks at present.
pub fn unusable(node: &Node) -> Option<Obstacle> {
    match node.state {
        NodeState::Ready => {}
        NodeState::Down => return Some(Obstacle::Down),
        NodeState::Unknown => return Some(Obstacle::Unknown),
    }
    match node.spec.availability {
        Availability::Active => {}
        Availability::Pause => return Some(Obstacle::Paused),
        Availability::Drain => return Some(Obstacle::Drained),
    }
    (!node.description.healthy).then_some(Obstacle::Unhealthy)
}

/// The first constraint that the node does not meet.
#[inline]
pub fn unmet(node: &Node, spec: &TaskSpec) -> Option<Obstacle> {
    let constraints = &spec.placement.constraints;
    constraints.iter().position(|constraint| !constraint.holds(node)).map(Obstacle::Constraint)
}

/// CPU and memory.
#[inline]
pub fn room(capacity: Resources, used: Resources, wanted: Resources) -> Option<Obstacle> {
    if used.cpu_nanos.saturating_add(wanted.cpu_nanos) > capacity.cpu_nanos {
        Some(Obstacle::Cpu)
    } else if used.memory_bytes.saturating_add(wanted.memory_bytes) > capacity.memory_bytes
        && !is(Mutant::Overcommit)
    {
        Some(Obstacle::Memory)
    } else {
        None
    }
}

fn used(state: &State, node: NodeId, supposed: Supposed<'_>) -> Resources {
    let mut used = state.usage(node).reserved;
    for task in live(state, node).filter(|task| (supposed.gone)(task)) {
        let Some(held) = spec_of(state, task).map(|spec| spec.reservations) else { continue };
        used.cpu_nanos = used.cpu_nanos.saturating_sub(held.cpu_nanos);
        used.memory_bytes = used.memory_bytes.saturating_sub(held.memory_bytes);
    }
    for spec in supposed.come {
        used.cpu_nanos = used.cpu_nanos.saturating_add(spec.reservations.cpu_nanos);
        used.memory_bytes = used.memory_bytes.saturating_add(spec.reservations.memory_bytes);
    }
    used
}

/// Whether a spec asks for more than CPU, memory and constraints, so that the node's tasks must be
/// looked at one by one.
#[inline]
pub fn has_extras(spec: &TaskSpec) -> bool {
    !spec.host_ports.is_empty() || !spec.generic.is_empty() || spec.placement.max_per_node > 0
}

/// Generic resources, host ports and the bound of tasks per node.
pub fn extras(
    state: &State,
    node: &Node,
    seeker: Seeker<'_>,
    supposed: Supposed<'_>,
) -> Option<Obstacle> {
    let spec = seeker.spec;
    if !has_extras(spec) {
        return None;
    }
    let stays = |task: &&Task| task.id != seeker.task.id && !(supposed.gone)(task);
    let held = || live(state, node.id).filter(stays).filter_map(|task| spec_of(state, task));
    let others = || held().chain(supposed.come.iter().copied());
    for (place, (kind, wanted)) in spec.generic.iter().enumerate() {
        let used: u64 = others()
            .filter_map(|other| other.generic.get(kind))
            .fold(0, |sum, held| sum.saturating_add(*held));
        let total = node.description.generic.get(kind).map_or(0, Generic::count);
        if used.saturating_add(*wanted) > total {
            return Some(Obstacle::Generic(place));
        }
    }
    for port in spec.host_ports.iter().map(|port| port.published) {
        if state.port_owner(port).is_some() {
            return Some(Obstacle::Published(port));
        }
        if others().any(|other| other.host_ports.iter().any(|held| held.published == port)) {
            return Some(Obstacle::HostPort(port));
        }
    }
    let max = spec.placement.max_per_node;
    (max > 0 && tasks_there(state, node.id, seeker, supposed) >= max)
        .then_some(Obstacle::MaxPerNode)
}

/// How much of a kind of generic resource no task of a node holds.
pub fn free_generic(state: &State, node: &Node, kind: &str) -> u64 {
    let held = live(state, node.id).filter_map(|task| spec_of(state, task)?.generic.get(kind));
    let used = held.fold(0u64, |sum, held| sum.saturating_add(*held));
    node.description.generic.get(kind).map_or(0, Generic::count).saturating_sub(used)
}

/// Tasks of the service on a node that count beside the seeker: one for each other slot that is
/// filled or still alive there, and the task of its own slot that it starts beside. What is
/// stopping in its own slot makes way for it.
fn tasks_there(state: &State, node: NodeId, seeker: Seeker<'_>, supposed: Supposed<'_>) -> u32 {
    let mut filled: BTreeMap<u32, u32> = BTreeMap::new();
    let mut beside = 0;
    for task in live(state, node).filter(|task| task.service == seeker.service) {
        if task.id == seeker.task.id || (supposed.gone)(task) {
            continue;
        }
        if task.slot != seeker.task.slot {
            *filled.entry(task.slot).or_default() += u32::from(task.fills_slot());
        } else if seeker.task.extras.beside == Some(task.id) {
            beside = 1;
        }
    }
    filled.values().map(|filled| (*filled).max(1)).sum::<u32>() + beside
}

/// The lowest free names of each named kind.
fn names(state: &State, node: &Node, seeker: Seeker<'_>) -> Result<Names, Obstacle> {
    let mut chosen = Names::new();
    for (place, (kind, wanted)) in seeker.spec.generic.iter().enumerate() {
        let Some(Generic::Named(all)) = node.description.generic.get(kind) else { continue };
        let taken = |name: &String| {
            live(state, node.id)
                .flat_map(|task| &task.extras.generic)
                .any(|(held, names)| held == kind && names.contains(name))
        };
        let mut free: Vec<&String> = all.iter().filter(|name| !taken(name)).collect();
        free.sort_unstable();
        free.dedup();
        let wanted = usize::try_from(*wanted).unwrap_or(usize::MAX);
        if free.len() < wanted {
            return Err(Obstacle::Generic(place));
        }
        if wanted > 0 {
            chosen.push((kind.clone(), free.into_iter().take(wanted).cloned().collect()));
        }
    }
    Ok(chosen)
}

fn live(state: &State, node: NodeId) -> impl Iterator<Item = &Task> {
    state.tasks_of_node(node).filter(|task| task.holds_resources())
}

/// What a task holds: by its own revision.
fn spec_of<'a>(state: &'a State, task: &Task) -> Option<&'a TaskSpec> {
    Some(state.service(task.service)?.task_spec(task.revision)?)
}
