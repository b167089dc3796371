//! The worker: keeps one session with any manager, runs the tasks that it is assigned, reports what
//! becomes of them, and makes this machine's published ports lead to tasks wherever they run.
//!
//! Hops: [`session`] hears and tells, [`assignments`] accepts, [`task`] steps and executes,
//! [`report`] tells back, [`endpoints`] feeds the balancers. What the machine gives (runtime,
//! images, network, balancers) comes in through [`node::Parts`].
//!
//! What never lives here: placement, restart policy, and anything that outlives a container on
//! purpose; containers themselves outlive this process.

pub mod assignments;
pub mod cli;
pub mod contact;
pub mod data_dir;
pub mod describe;
mod durable;
pub mod endpoints;
#[cfg(test)]
mod golden;
pub mod health;
pub mod host;
pub mod join;
pub mod local;
pub mod logs;
pub mod member;
pub mod node;
pub mod probe;
pub mod pulse;
pub mod renewal;
pub mod report;
pub mod session;
pub mod simulated;
pub mod task;
pub mod trust;
pub mod worker;
