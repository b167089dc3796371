//! The cluster object: settings, the certificate authority's material and the managers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, NodeId};
use crate::spec::Strategy;

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
