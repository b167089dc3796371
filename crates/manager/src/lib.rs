//! The manager: holds the desired state, replicated by Raft, plans until the observed state equals
//! it, and serves users and workers over gRPC with mutual TLS.
//!
//! Shell around the pure `cluster_model` and `cluster_planner`: clocks, randomness, files and
//! sockets are here and only here.

pub mod access;
pub mod api;
mod begun;
pub mod certificates;
pub mod cli;
pub mod clock;
pub mod context;
pub mod dispatch;
mod enrolled;
pub mod founding;
pub mod host;
pub mod join;
pub mod keys;
pub mod leader;
pub mod managers;
pub mod raft;
pub mod recover;
pub mod serve;
mod server;
pub mod setup;
pub mod unlock;
