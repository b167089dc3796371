//! Services: a spec with its revisions and what the managers allocated for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::ServiceId;
use crate::spec::{ServiceSpec, TaskSpec};

/// Revisions kept on a service beside those still in use by tasks.
pub const REVISIONS_KEPT: usize = 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub id: ServiceId,
    /// Log index of the last change by a user.
    pub version: u64,
    pub created_at_ms: u64,
    pub updated_at_ms: u64,
    /// Written by users.
    pub spec: Arc<ServiceSpec>,
    /// Number of the task spec that tasks should run.
    pub revision: u32,
    /// Task specs by revision number; shared by all tasks.
    pub revisions: BTreeMap<u32, Arc<TaskSpec>>,
    /// Written by `apply`: the ports in force.
    pub ports: Vec<PublishedPort>,
    /// Removed by a user; the object stays until its last task is gone, so that what still runs
    /// can be accounted for.
    pub removed: bool,
}

impl Service {
    /// The task spec of one revision.
    pub fn task_spec(&self, revision: u32) -> Option<&Arc<TaskSpec>> {
        self.revisions.get(&revision)
    }
}

/// A port in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    pub published: u16,
    pub target: u16,
}
