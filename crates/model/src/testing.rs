//! What tests of several crates begin with.

use std::collections::BTreeMap;

use crate::cluster::{Cluster, Secret};
use crate::id::ClusterId;

/// A cluster as founded, with no managers and nothing in its secrets.
pub fn cluster(id: u64) -> Cluster {
    Cluster {
        id: ClusterId(id),
        name: "test".into(),
        version: 0,
        created_at_ms: 0,
        ca_certificate: String::new(),
        ca_key: Secret::new(String::new()),
        worker_token: Secret::new(String::new()),
        manager_token: Secret::new(String::new()),
        heartbeat_period_ms: 1000,
        lease_ms: 3000,
        managers: BTreeMap::new(),
        strategy: Default::default(),
        upkeep: Default::default(),
    }
}
