//! The leader's opinion: what should change so that the state becomes what users asked for.
//!
//! Everything here is a function from a view of the state, the time and a source of ids to a
//! [`Plan`]. Plans are proposals: `apply` checks each step again and refuses what is stale.
//! [`plan`] runs the reconcilers and then the scheduler on a speculative copy of the state, each
//! stage seeing what the stages before it proposed, so that a new task and its node travel in one
//! command.
//!
//! What never lives here: clocks, randomness, I/O, async, logging, memory between passes. A new
//! leader that plans from the same state comes to the same decisions.

mod budget;
pub mod certs;
pub mod cron;
mod drain;
pub mod explain;
pub mod forecast;
mod global;
mod ids;
mod job;
pub mod liveness;
mod lost;
pub mod managers;
mod pass;
mod reaper;
mod replicated;
mod rest;
mod restart;
mod rollout;
mod schedule;
mod slots;
pub mod storm;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use cluster_model::{Change, ServiceId};

pub use ids::Ids;
pub use lost::Held;
pub use pass::{Now, plan};

/// What a pass looks at.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Every service: at start, on timers, and whenever a node or the cluster changed.
    All,
    /// The services whose spec or tasks changed. Tasks that wait for a node are always looked at,
    /// whichever service they belong to.
    Services(&'a BTreeSet<ServiceId>),
}

/// What a pass proposes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be proposed in this order, in one command.
    pub changes: Vec<Change>,
    /// When a full pass is due even if nothing happens. A scoped pass speaks only for the
    /// services it looked at, so the caller keeps the earlier of this and what it already had.
    pub wake_at_ms: Option<u64>,
    /// For people and logs; nothing depends on them.
    pub notes: Vec<Note>,
}

/// Something worth telling about a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The pass reached its bound; the rest is left to the next one.
    Bounded,
    /// Steps that the speculative `apply` refused. Always a mistake in a planner.
    Refused { count: u32 },
    /// Tasks of one service for which no node was found.
    Unplaced { service: ServiceId, tasks: usize, why: Arc<str> },
    /// A scheduled service whose schedule is not understood launches nothing.
    NoSchedule { service: ServiceId, why: Arc<str> },
    /// An update waits until the replacement in this slot runs.
    RolloutWaits { service: ServiceId, slot: u32 },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Bounded => f.write_str("the pass reached its bound, the rest follows"),
            Note::Refused { count } => write!(f, "{count} steps contradict the state"),
            Note::Unplaced { service, tasks, why } => {
                write!(f, "{tasks} tasks of service {service} wait: {why}")
            }
            Note::NoSchedule { service, why } => {
                write!(f, "service {service} launches nothing: {why}")
            }
            Note::RolloutWaits { service, slot } => {
                write!(f, "update of service {service} waits for slot {slot} to run")
            }
        }
    }
}

/// The earlier of two moments, where none means never.
fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
