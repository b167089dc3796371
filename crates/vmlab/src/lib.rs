//! Virtual machines for a cluster: each with its own kernel, systemd and cgroup v2, which the
//! namespaces of `crates/lab` cannot give. `cargo xtask vm-lab` uses it.
//!
//! What lives here: the image all machines begin with, their network, qemu, and getting in by ssh;
//! losing power and getting it back. What never does: the cluster. Packages, joining and the drill
//! are the caller's.
//!
//! No packet leaves the lab: the machines meet on a bridge in a network namespace of its own that
//! has no way out. Whoever drives the lab enters that namespace ([`VmLab::inside`], or a command
//! through `ip netns exec`).
//!
//! Everything is synchronous. What a lab consists of is in `lab.json` of its folder, so that any
//! process can open it; that of one machine is in the machine's folder. One lab per computer.

mod accelerator;
mod base;
mod error;
mod exec;
mod lab;
mod machine;
mod network;
mod qemu;
mod qmp;
mod ssh;
mod state;

pub use crate::accelerator::Accelerator;
pub use crate::base::Base;
pub use crate::error::{Error, Result};
pub use crate::lab::{MachineStatus, Options, VmLab};
pub use crate::machine::{Machine, NETWORK, Role};
