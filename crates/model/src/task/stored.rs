//! The stored form of tasks: flat, whatever their form in memory is.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Desired, Details, Extras, Observed, Reason, Task, TaskStatus};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::seldom::Seldom;

type Generic = [(String, Vec<String>)];

// The order of fields is the stored format.
#[derive(Serialize, Deserialize)]
struct StoredTask<'a> {
    id: TaskId,
    service: ServiceId,
    slot: u32,
    revision: u32,
    version: u64,
    created_at_ms: u64,
    node: Option<NodeId>,
    desired: Desired,
    reason: Cow<'a, Reason>,
    not_before_ms: u64,
    restarts: u32,
    withdrawn: u64,
    status: Cow<'a, TaskStatus>,
    target: Option<NodeId>,
    beside: Option<TaskId>,
    generic: Cow<'a, Generic>,
}

#[derive(Serialize, Deserialize)]
struct StoredStatus {
    state: Observed,
    at_ms: u64,
    message: Option<Arc<str>>,
    error: Option<Arc<str>>,
    exit_code: Option<i32>,
    oom: bool,
    started_at_ms: u64,
    ready: bool,
    readiness: u64,
}

impl Serialize for Task {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = StoredTask {
            id: self.id,
            service: self.service,
            slot: self.slot,
            revision: self.revision,
            version: self.version,
            created_at_ms: self.created_at_ms,
            node: self.node,
            desired: self.desired,
            reason: Cow::Borrowed(&self.reason),
            not_before_ms: self.extras.not_before_ms,
            restarts: self.restarts,
            withdrawn: self.withdrawn,
            status: Cow::Borrowed(&self.status),
            target: self.extras.target,
            beside: self.extras.beside,
            generic: Cow::Borrowed(&self.extras.generic),
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Task {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = StoredTask::deserialize(deserializer)?;
        Ok(Self {
            id: stored.id,
            service: stored.service,
            slot: stored.slot,
            revision: stored.revision,
            version: stored.version,
            created_at_ms: stored.created_at_ms,
            node: stored.node,
            desired: stored.desired,
            reason: stored.reason.into_owned(),
            restarts: stored.restarts,
            withdrawn: stored.withdrawn,
            status: stored.status.into_owned(),
            extras: Seldom::new(Extras {
                not_before_ms: stored.not_before_ms,
                target: stored.target,
                beside: stored.beside,
                generic: stored.generic.into_owned(),
            }),
        })
    }
}

impl Serialize for TaskStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = StoredStatus {
            state: self.state,
            at_ms: self.at_ms,
            message: self.details.message.clone(),
            error: self.details.error.clone(),
            exit_code: self.details.exit_code,
            oom: self.oom,
            started_at_ms: self.started_at_ms,
            ready: self.ready,
            readiness: self.readiness,
        };
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TaskStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = StoredStatus::deserialize(deserializer)?;
        Ok(Self {
            state: stored.state,
            at_ms: stored.at_ms,
            oom: stored.oom,
            started_at_ms: stored.started_at_ms,
            ready: stored.ready,
            readiness: stored.readiness,
            details: Seldom::new(Details {
                message: stored.message,
                error: stored.error,
                exit_code: stored.exit_code,
            }),
        })
    }
}
