//! Which nodes can take a task of a group at all, and what refused the others.

use std::collections::BTreeMap;

use cluster_model::node::{Availability, Node, NodeState};
use cluster_model::spec::Resources;
use cluster_model::{State, TaskSpec};

/// Why a node was refused; ordered as shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    Constraint(String),
    Cpu { wanted_nanos: u64 },
    Memory { wanted_bytes: u64 },
    Down,
    Unknown,
    Drained,
    Paused,
}

/// How many nodes each reason refused.
pub type Counts = BTreeMap<Refused, usize>;

/// The nodes that pass, without a look at what earlier tasks of the group will take.
pub fn run<'a>(state: &'a State, spec: &TaskSpec) -> (Vec<&'a Node>, Counts) {
    let mut feasible = Vec::new();
    let mut refused = Counts::new();
    for node in state.nodes() {
        match check(node, spec) {
            Ok(()) => feasible.push(node),
            Err(reason) => *refused.entry(reason).or_default() += 1,
        }
    }
    (feasible, refused)
}

fn check(node: &Node, spec: &TaskSpec) -> Result<(), Refused> {
    match node.state {
        NodeState::Ready => {}
        NodeState::Down => return Err(Refused::Down),
        NodeState::Unknown => return Err(Refused::Unknown),
    }
    match node.spec.availability {
        Availability::Active => {}
        Availability::Pause => return Err(Refused::Paused),
        Availability::Drain => return Err(Refused::Drained),
    }
    match spec.constraints.iter().find(|constraint| !constraint.holds(node)) {
        Some(constraint) => Err(Refused::Constraint(constraint.to_string())),
        None => Ok(()),
    }
}

/// What a node without room lacks.
pub fn lacking(capacity: Resources, used: Resources, wanted: Resources) -> Refused {
    if used.memory_bytes.saturating_add(wanted.memory_bytes) > capacity.memory_bytes {
        Refused::Memory { wanted_bytes: wanted.memory_bytes }
    } else {
        Refused::Cpu { wanted_nanos: wanted.cpu_nanos }
    }
}
