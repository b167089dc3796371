//! Specs: what users ask for. Stored as sent, never rewritten by the system.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::constraint::Constraint;

/// What a user asks a service to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub mode: Mode,
    pub task: TaskSpec,
    pub ports: Vec<PortSpec>,
}

/// How many tasks a service wants and where they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// As many slots as replicas, numbered from 1; a scale-down may leave gaps.
    Replicated { replicas: u32 },
}

impl ServiceSpec {
    /// Slots the service wants filled.
    pub fn replicas(&self) -> u32 {
        match self.mode {
            Mode::Replicated { replicas } => replicas,
        }
    }
}

/// What every task of a service runs. A change of this is a new revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub container: ContainerSpec,
    pub limits: Resources,
    pub reservations: Resources,
    pub restart: RestartPolicy,
    pub constraints: Vec<Constraint>,
    /// Counter that users raise to replace every task although nothing else changed.
    pub force_update: u64,
}

/// The process and its surroundings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Image reference as the user wrote it.
    pub image: String,
    /// Replaces the image's entrypoint when not empty.
    pub entrypoint: Vec<String>,
    /// Replaces the image's command when not empty.
    pub args: Vec<String>,
    /// `KEY=VALUE` pairs, in the user's order.
    pub env: Vec<(String, String)>,
    pub workdir: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub user: Option<String>,
    pub hostname: Option<String>,
    pub mounts: Vec<Mount>,
    pub read_only: bool,
    /// Signal sent to ask the container to stop; the image's own, else SIGTERM, when empty.
    pub stop_signal: Option<String>,
    /// Time between the stop signal and SIGKILL, milliseconds.
    pub stop_grace_period_ms: u64,
    /// Labels put on the container.
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub kind: MountKind,
    /// Absolute path inside the container.
    pub target: String,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A path of the node, which must exist there.
    Bind { source: String },
    /// A named directory under the node's state, made when first used.
    Volume { name: String },
    /// Memory, lost with the task. Size in bytes; 0 means the kernel's default.
    Tmpfs { size_bytes: u64 },
}

/// Amounts of CPU and memory. 0 means none asked or unlimited, by context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Billionths of one core.
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
}

/// What happens when a task has ended by itself. A lost node is not the task's failure and is not
/// governed by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    pub condition: RestartCondition,
    /// Fixed delay before each restart, milliseconds; none means the exponential back-off.
    pub delay_ms: Option<u64>,
    /// Restarts allowed in one slot under one revision; none means no limit.
    pub max_attempts: Option<u32>,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { condition: RestartCondition::Any, delay_ms: None, max_attempts: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartCondition {
    None,
    OnFailure,
    Any,
}

/// A port users reach on every worker, balanced over the service's running tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// Port on every worker; 0 asks the managers to choose one of 30000-32767.
    pub published: u16,
    /// Port inside the container.
    pub target: u16,
}
