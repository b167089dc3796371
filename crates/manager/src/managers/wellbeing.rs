//! How each manager is doing beyond being heard: its version and its scheduled snapshots. In memory
//! only: each knows its own, followers tell the leader with what they hear.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use cluster_model::NodeId;
use cluster_pb::peer::v1::ManagerWellbeing;

use crate::dispatch::table::lock;

#[derive(Default)]
pub struct Wellbeing {
    own: Mutex<ManagerWellbeing>,
    others: Mutex<BTreeMap<NodeId, ManagerWellbeing>>,
    /// Since when this manager leads, if it does.
    leads_since: Mutex<Option<Instant>>,
    /// Why a dead manager is not replaced, if one should be.
    held: Mutex<String>,
}

impl Wellbeing {
    /// This manager's own.
    pub fn own(&self) -> ManagerWellbeing {
        let mut own = lock(&self.own).clone();
        own.version = env!("CARGO_PKG_VERSION").to_owned();
        own
    }

    pub fn snapshot_written(&self, at_ms: u64) {
        let mut own = lock(&self.own);
        own.snapshot_at_ms = at_ms;
        own.snapshot_failure.clear();
    }

    pub fn snapshot_failed(&self, why: String) {
        lock(&self.own).snapshot_failure = why;
    }

    /// Another manager told.
    pub fn told(&self, id: NodeId, wellbeing: ManagerWellbeing) {
        lock(&self.others).insert(id, wellbeing);
    }

    pub fn of(&self, id: NodeId) -> ManagerWellbeing {
        lock(&self.others).get(&id).cloned().unwrap_or_default()
    }

    /// Drops what is known of managers that are no longer in the group.
    pub fn retain(&self, known: impl Fn(NodeId) -> bool) {
        lock(&self.others).retain(|id, _| known(*id));
    }

    pub fn leads(&self, since: Option<Instant>) {
        *lock(&self.leads_since) = since;
        lock(&self.held).clear();
    }

    pub fn leads_since(&self) -> Option<Instant> {
        *lock(&self.leads_since)
    }

    /// Notes why a dead manager is not replaced; whether that is news.
    pub fn hold(&self, why: &str) -> bool {
        let mut held = lock(&self.held);
        let news = *held != why;
        why.clone_into(&mut held);
        news
    }

    pub fn held(&self) -> String {
        lock(&self.held).clone()
    }
}
