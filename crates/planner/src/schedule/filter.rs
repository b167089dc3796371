//! Which nodes can take a task, and what speaks against the others.

use cluster_model::spec::Resources;
use cluster_model::state::{Usage, fits};
use cluster_model::{Availability, Node, NodeState, TaskSpec};

/// A node with what it holds, this pass's placements included.
pub(super) struct Candidate<'a> {
    pub node: &'a Node,
    pub used: Resources,
    pub tasks: u32,
}

impl<'a> Candidate<'a> {
    pub fn new(node: &'a Node, usage: Usage) -> Self {
        Self { node, used: usage.reserved, tasks: usage.tasks }
    }

    pub fn has_room(&self, spec: &TaskSpec) -> bool {
        fits(self.node.description.capacity, self.used, spec.reservations)
    }

    pub fn take(&mut self, spec: &TaskSpec) {
        let Resources { cpu_nanos, memory_bytes } = spec.reservations;
        self.used.cpu_nanos = self.used.cpu_nanos.saturating_add(cpu_nanos);
        self.used.memory_bytes = self.used.memory_bytes.saturating_add(memory_bytes);
        self.tasks += 1;
    }

    pub fn free(&self) -> Resources {
        let Resources { cpu_nanos, memory_bytes } = self.node.description.capacity;
        Resources {
            cpu_nanos: cpu_nanos.saturating_sub(self.used.cpu_nanos),
            memory_bytes: memory_bytes.saturating_sub(self.used.memory_bytes),
        }
    }
}

/// What speaks against a node; the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    /// By its place in the spec.
    Constraint(usize),
    Cpu,
    Memory,
    Unhealthy,
    Down,
    Drained,
    Paused,
    Unknown,
}

/// None when the node can take the task.
pub(super) fn obstacle(candidate: &Candidate<'_>, spec: &TaskSpec) -> Option<Obstacle> {
    let node = candidate.node;
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
    if !node.description.healthy {
        return Some(Obstacle::Unhealthy);
    }
    if let Some(place) =
        spec.placement.constraints.iter().position(|constraint| !constraint.holds(node))
    {
        return Some(Obstacle::Constraint(place));
    }
    if candidate.has_room(spec) {
        return None;
    }
    let cpu_only = Resources { memory_bytes: 0, ..spec.reservations };
    let used = Resources { memory_bytes: 0, ..candidate.used };
    let cpu_fits = fits(node.description.capacity, used, cpu_only);
    Some(if cpu_fits { Obstacle::Memory } else { Obstacle::Cpu })
}
