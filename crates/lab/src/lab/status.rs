//! What a lab is made of and how each node is.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::Lab;
use crate::error::Result;
use crate::state::{Node, State};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Manager,
    Worker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manager => "manager",
            Self::Worker => "worker",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    Running,
    /// The node is on, its agent is not.
    AgentDown,
    Stopped,
    Paused,
    /// On, but some or all frames from or to it are dropped.
    Cut,
    /// On, but frames from or to it are delayed, slowed down or lost at random.
    Degraded,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::AgentDown => "agent-down",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
            Self::Cut => "cut",
            Self::Degraded => "degraded",
        })
    }
}

/// One row of `lab status`; who leads only the cluster itself can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub name: String,
    pub role: Role,
    pub address: Ipv4Addr,
    /// The agent's pid on this machine.
    pub pid: Option<i32>,
    pub state: NodeState,
}

impl Lab {
    pub fn status(&self) -> Result<Vec<NodeStatus>> {
        let state = self.load()?;
        state.nodes.iter().map(|node| self.node_status(&state, node)).collect()
    }

    fn node_status(&self, state: &State, node: &Node) -> Result<NodeStatus> {
        let row = |state, pid| NodeStatus {
            name: node.name.clone(),
            role: node.role,
            address: node.address,
            pid,
            state,
        };
        if node.running().is_none() {
            return Ok(row(NodeState::Stopped, None));
        }
        let pid = self.hall(|hall| hall.agent(&self.name, &node.name))?.map(|agent| agent.pid);
        let summary = if self.cgroups.is_frozen(&self.name, &node.name) {
            NodeState::Paused
        } else if state.cuts.iter().any(|cut| cut.concerns(&node.name)) {
            NodeState::Cut
        } else if pid.is_none() {
            NodeState::AgentDown
        } else if state.shapes.iter().any(|shape| shape.node == node.name) {
            NodeState::Degraded
        } else {
            NodeState::Running
        };
        Ok(row(summary, pid))
    }
}
