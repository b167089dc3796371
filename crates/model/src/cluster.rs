//! The cluster object: settings, the certificate authority's material and the managers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, NodeId};
use crate::spec::Strategy;
use crate::validate::Invalid;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub id: ClusterId,
    pub name: String,
    pub version: u64,
    pub created_at_ms: u64,
    pub ca_certificate: String,
    pub ca_key: Secret,
    pub worker_token: Secret,
    pub manager_token: Secret,
    /// How often a worker speaks, milliseconds.
    pub heartbeat_period_ms: u64,
    /// How long a silent worker is believed alive, milliseconds.
    pub lease_ms: u64,
    /// Members of the Raft group and where they listen.
    pub managers: BTreeMap<NodeId, Manager>,
    /// Written by users.
    pub strategy: Strategy,
    /// Written by users.
    pub upkeep: Upkeep,
}

/// What managers do by themselves for their own group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upkeep {
    /// A voter that is not heard for so long is replaced by a spare, milliseconds; 0: never.
    pub replace_dead_after_ms: u64,
    /// How often every manager writes a snapshot beside its data, milliseconds; 0: never.
    pub snapshot_every_ms: u64,
    /// How many of them each keeps.
    pub snapshot_keep: u32,
}

/// Shortest silence after which a manager may be replaced: well beyond any restart.
pub const REPLACE_DEAD_AFTER_MIN_MS: u64 = 10_000;
pub const SNAPSHOT_EVERY_MIN_MS: u64 = 1_000;
pub const SNAPSHOT_KEEP_MAX: u32 = 1_000;
/// No setting is longer than a year.
const LONGEST_MS: u64 = 366 * 24 * 3600 * 1000;

impl Upkeep {
    /// Refuses settings that cannot be meant; names the field and its bounds.
    pub fn check(&self) -> Result<(), Invalid> {
        let refuse = |field: &str, problem: &str| {
            Err(Invalid { field: field.into(), problem: problem.into() })
        };
        let within = |ms: u64, least: u64| ms == 0 || (least..=LONGEST_MS).contains(&ms);
        if !within(self.replace_dead_after_ms, REPLACE_DEAD_AFTER_MIN_MS) {
            return refuse("replace_dead_managers_after", "use 10s up to a year, or off");
        }
        if !within(self.snapshot_every_ms, SNAPSHOT_EVERY_MIN_MS) {
            return refuse("snapshot_every", "use 1s up to a year, or off");
        }
        if self.snapshot_every_ms > 0 && !(1..=SNAPSHOT_KEEP_MAX).contains(&self.snapshot_keep) {
            return refuse("snapshot_keep", "use 1 to 1000");
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manager {
    pub name: String,
    /// `ip:port` at which clients, workers and other managers reach it.
    pub address: String,
    pub joined_at_ms: u64,
}

/// Text that must not be printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself; whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
