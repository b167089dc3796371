//! A task.

use cluster_pb::types::v1 as pb;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct TaskView {
    pub id: String,
    /// `web.1`; of a service with a slot for each node `web.worker-1`.
    pub name: String,
    pub service: String,
    pub service_id: String,
    pub slot: u32,
    pub revision: u32,
    pub image: String,
    /// Name of the node; empty while none is chosen.
    pub node: String,
    pub node_id: String,
    pub desired_state: String,
    pub observed_state: String,
    pub observed_at_ms: u64,
    pub error: String,
    /// Why the managers want what they want.
    pub reason: String,
    /// Why it waits, or what is being done.
    pub message: String,
    pub exit_code: Option<i32>,
    pub oom: bool,
    pub restarts: u32,
    pub created_at_ms: u64,
    pub started_at_ms: Option<u64>,
    pub not_before_ms: Option<u64>,
    /// Of a running task: connections come to it.
    pub ready: bool,
    /// Id of the older task of its slot that it starts beside; empty: none.
    pub beside: String,
    /// It ended several times in a row and waits before the next attempt.
    pub crash_loop: bool,
    pub version: u64,
}

/// What people call a task.
pub fn task_name(task: &pb::Task) -> String {
    match task.target_node_name.as_str() {
        "" => format!("{}.{}", task.service_name, task.slot),
        node => format!("{}.{node}", task.service_name),
    }
}

impl From<pb::Task> for TaskView {
    fn from(task: pb::Task) -> Self {
        let moment = |ms: u64| (ms != 0).then_some(ms);
        Self {
            name: task_name(&task),
            id: task.id,
            service: task.service_name,
            service_id: task.service_id,
            slot: task.slot,
            revision: task.revision,
            image: task.image,
            node: task.node_name,
            node_id: task.node_id,
            desired_state: task.desired_state,
            observed_state: task.observed_state,
            observed_at_ms: task.observed_at_ms,
            error: task.error,
            reason: task.reason,
            message: task.message,
            exit_code: task.exit_code,
            oom: task.oom,
            restarts: task.restarts,
            created_at_ms: task.created_at_ms,
            started_at_ms: moment(task.started_at_ms),
            not_before_ms: moment(task.not_before_ms),
            ready: task.ready,
            beside: task.beside,
            crash_loop: task.crash_loop,
            version: task.version,
        }
    }
}
