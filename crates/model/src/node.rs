//! Nodes: machines that run workers, as objects in the state.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::spec::Resources;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    /// Log index of the last change.
    pub version: u64,
    pub created_at_ms: u64,
    /// Host name given at join; unique among nodes.
    pub name: String,
    /// Written by users.
    pub spec: NodeSpec,
    /// Written from the worker's hello.
    pub description: NodeDescription,
    /// Written by the managers from the leases.
    pub state: NodeState,
    /// Why the node is in its state, for people.
    pub message: Arc<str>,
    /// When the state was entered.
    pub state_since_ms: u64,
    /// When it was last declared down; 0: never.
    pub last_down_ms: u64,
    /// Log index of that.
    pub down_index: u64,
}

impl Node {
    /// Whether new tasks may be placed here.
    pub fn accepts_tasks(&self) -> bool {
        self.state == NodeState::Ready && self.spec.availability == Availability::Active
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    pub availability: Availability,
    pub labels: BTreeMap<String, String>,
    /// How a drain goes; means nothing for other availabilities.
    pub drain: DrainPolicy,
}

/// Bounds of a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainPolicy {
    /// At this moment of cluster time what is left goes at once; none: never.
    pub deadline_at_ms: Option<u64>,
    /// Everything goes at once.
    pub force: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Availability {
    /// Keeps its tasks and takes new ones.
    #[default]
    Active,
    /// Keeps its tasks, takes no new ones.
    Pause,
    /// Gives its tasks away.
    Drain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// Joined but not yet heard from.
    Unknown,
    Ready,
    /// The lease ended.
    Down,
}

/// What a worker says of its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Address at which other workers reach this one.
    pub address: String,
    pub mesh_port: u16,
    pub os: String,
    pub arch: String,
    /// Counts starts of the worker on this data folder; a smaller one is stale.
    pub boot: u64,
    pub capacity: Resources,
    pub labels: BTreeMap<String, String>,
    pub agent_version: String,
    pub runtime: String,
    /// What the worker cannot do or finds wrong; empty when all is well.
    pub notices: Vec<String>,
    /// False when the runtime no longer answers.
    pub healthy: bool,
    /// Generic resources by kind.
    pub generic: BTreeMap<String, Generic>,
}

/// What a node has of one kind of generic resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Generic {
    Count(u64),
    /// Each can be held by one task.
    Named(Vec<String>),
}

impl Generic {
    pub fn count(&self) -> u64 {
        match self {
            Generic::Count(count) => *count,
            Generic::Named(names) => names.len() as u64,
        }
    }
}
