//! A real cluster on one machine: every node with its own network, process and mount namespaces,
//! its own address, folder and cgroup. `clusterctl lab`, the demo and the black-box tests use it.
//!
//! What lives here: building the machines (a bridge in a namespace of its own, one namespace per
//! node, one for a client), starting the daemons in them, and breaking them in the ways hosts
//! break: power-off, freeze, silent partition, death of the agent alone. What never does: the
//! cluster's API. Where the lab must ask the cluster something it runs `clusterctl` like a user.
//!
//! No packet leaves the lab: its namespaces hold one connected route and no default route. The
//! machine itself reaches in only through [`Lab::expose`] and the managers' forwarded loopback
//! ports, both served by a process that accepts outside and connects inside.
//!
//! A node is a process tree in a PID namespace. Its first process ([`node_init_main`]) starts the
//! agent and reaps; killing it is a power-off. Four hidden commands must be reachable through
//! [`LabOptions::helper`]; [`hidden_main`] dispatches them.
//!
//! Everything is synchronous. State is kept in `lab.json` of the lab's folder, so that any
//! process can open a lab; changes are serialised by a lock beside it.

mod bringup;
mod cgroup;
mod daemons;
mod enter;
mod error;
mod exec;
mod forward;
mod init;
mod lab;
mod netns;
mod node;
mod options;
mod packet;
mod process;
mod ready;
mod relay;
mod state;
mod switch;
mod teardown;

pub use crate::cgroup::Hierarchy;
pub use crate::error::{Error, Result};
pub use crate::exec::{Place, enter_main};
pub use crate::forward::forward_main;
pub use crate::init::node_init_main;
pub use crate::lab::{Lab, NodeState, NodeStatus, Role};
pub use crate::options::{LabOptions, Machine, default_base};
pub use crate::process::Process;
pub use crate::relay::{Link, relay_main};
pub use crate::switch::Direction;

/// The names of the hidden commands, as they follow `clusterctl lab`.
pub const HIDDEN_COMMANDS: [&str; 4] = ["__node-init", "__enter", "__forward", "__relay"];

/// Runs the hidden command `name` with `args`; returns the exit code of the process, or `None`
/// when there is no such command. Call it before any runtime or thread is started.
pub fn hidden_main(name: &str, args: &[String]) -> Option<i32> {
    match name {
        "__node-init" => Some(node_init_main(args)),
        "__enter" => Some(enter_main(args)),
        "__forward" => Some(forward_main(args)),
        "__relay" => Some(relay_main(args)),
        _ => None,
    }
}
