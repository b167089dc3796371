//! The replicated model: what the managers agree on.
//!
//! Here live ids, specs and their validation, the task state lattice, the cluster state with its
//! indexes, the commands of the Raft log and `apply`, which is a function of
//! (state, log index, command) and nothing else.
//!
//! What never lives here: clocks, randomness, I/O, async, logging, protobuf. Times and ids come in
//! with the command. Every manager version in a rolling upgrade must agree on this crate bit for
//! bit, so stored types only grow at their end and under golden tests.

pub mod apply;
pub mod changes;
pub mod cluster;
pub mod command;
pub mod constraint;
pub mod endpoint;
pub mod fit;
pub mod id;
pub mod node;
pub mod security;
pub mod seldom;
pub mod service;
pub mod spec;
pub mod state;
pub mod task;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod validate;

pub use apply::{Outcome, apply};
pub use changes::Changes;
pub use cluster::{Cluster, Manager, Upkeep};
pub use command::{Change, Command, NewTask, Refusal, Reply, StatusReport, Steer};
pub use id::{ClusterId, NodeId, ServiceId, TaskId};
pub use node::{Availability, DrainPolicy, Node, NodeDescription, NodeSpec, NodeState};
pub use security::{CaPhase, Secure};
pub use seldom::Seldom;
pub use service::{
    JobOutcome, JobRun, PublishedPort, Revision, Rollout, RolloutKind, RolloutState, Service,
};
pub use spec::{ServiceSpec, TaskSpec};
pub use state::State;
pub use task::{Desired, Details, Extras, Observed, Reason, Task, TaskStatus};
