//! What must hold at every step, one file each, and how they look at the world.
//!
//! They see what the managers' own memory holds and which containers exist, never what anybody
//! reports about himself.

mod agreement;
mod capacity;
mod durability;
mod fences;
mod forward;
mod leadership;
mod reads;
mod slots;
mod watches;

use cluster_manager::raft::{Leadership, View};
use cluster_model::NodeId;

use cluster_worker::assignments::Stamp;

use crate::client::Call;

/// What one running manager holds.
pub struct Seen {
    pub host: usize,
    pub view: View,
    pub leadership: Leadership,
    pub id: NodeId,
}

/// The moment that is judged.
pub struct Look<'a> {
    /// Running managers whose view or leadership changed since the last look.
    pub managers: &'a [Seen],
    /// Assignments that workers have written down, by worker.
    pub workers: &'a [(usize, Stamp)],
    /// Requests that ended since the last look.
    pub calls: &'a [Call],
}

/// A broken invariant.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{invariant}: {text}")]
pub struct Violation {
    pub invariant: &'static str,
    pub text: String,
}

/// All of them, with what they remember.
#[derive(Default)]
pub struct Invariants {
    agreement: agreement::Agreement,
    leadership: leadership::OneLeader,
    forward: forward::Forward,
    durability: durability::Durability,
    reads: reads::Reads,
    fences: fences::Fences,
}

impl Invariants {
    /// Judges a moment.
    pub fn check(&mut self, look: &Look<'_>) -> Result<(), Violation> {
        self.leadership.check(look)?;
        self.agreement.check(look)?;
        self.forward.check(look)?;
        self.fences.check(look)?;
        slots::check(look)?;
        capacity::check(look)?;
        self.reads.check(look)?;
        watches::check(look)?;
        self.durability.check(look)
    }

    /// What can only be judged once every request has ended.
    pub fn at_the_end(&self) -> Result<(), Violation> {
        self.reads.at_the_end()
    }
}

fn broken(invariant: &'static str, text: String) -> Result<(), Violation> {
    Err(Violation { invariant, text })
}
