//! Where tasks may run and where they would rather run. A change of this alone moves only tasks
//! whose node no longer satisfies it.

use serde::{Deserialize, Serialize};

use crate::constraint::{Constraint, Key};
use crate::node::Node;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// All must hold.
    pub constraints: Vec<Constraint>,
    /// Labels to spread over, the most important first.
    pub spread_over: Vec<Key>,
    /// Tasks of the service on one node; 0: no limit.
    pub max_per_node: u32,
    /// None: the cluster's.
    pub strategy: Option<Strategy>,
    pub affinities: Vec<Affinity>,
}

impl Placement {
    /// The node meets all constraints.
    pub fn admits(&self, node: &Node) -> bool {
        self.constraints.iter().all(|constraint| constraint.holds(node))
    }
}

/// Which of equally suitable nodes is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// The emptiest.
    #[default]
    Spread,
    /// The fullest that still has room.
    BinPack,
}

/// A soft wish: nodes that meet it are better, or worse when the weight is negative.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affinity {
    pub target: AffinityTarget,
    /// -100 to 100, never 0.
    pub weight: i8,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AffinityTarget {
    /// Nodes that run a task of the service of this name.
    Service(String),
    /// Nodes that meet a condition.
    Node(Constraint),
}
