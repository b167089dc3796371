//! Specs: what users ask for. Stored as sent, never rewritten by the system.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub mod health;
pub mod job;
pub mod placement;
pub mod rollout;

pub use health::{Check, Health, Probe};
pub use job::{JobPolicy, Overlap, Schedule};
pub use placement::{Affinity, AffinityTarget, Placement, Strategy};
pub use rollout::{Amount, FailureAction, Order, UpdatePolicy};

/// Priority of a service that does not say otherwise.
pub const PRIORITY_DEFAULT: u8 = 50;

/// What a user asks a service to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub mode: Mode,
    pub task: TaskSpec,
    pub ports: Vec<PortSpec>,
    /// How tasks move to a new revision.
    pub update: UpdatePolicy,
    /// How tasks move back. Its failure action is never `Rollback`.
    pub rollback: UpdatePolicy,
    /// What happens to tasks whose node is silent.
    pub disconnect: Disconnect,
    /// 0 to 100. A pending task may take the place of tasks whose priority is at least 10 lower.
    pub priority: u8,
    /// Slots that may be without a healthy task because of drain, eviction or preemption.
    pub max_unavailable: Amount,
    /// Only for jobs.
    pub job: JobPolicy,
}

impl Default for ServiceSpec {
    /// One replica of nothing, with the defaults of every policy.
    fn default() -> Self {
        Self {
            name: String::new(),
            labels: BTreeMap::new(),
            mode: Mode::Replicated { replicas: 1 },
            task: TaskSpec::default(),
            ports: Vec::new(),
            update: UpdatePolicy::default(),
            rollback: UpdatePolicy::default(),
            disconnect: Disconnect::default(),
            priority: PRIORITY_DEFAULT,
            max_unavailable: Amount::Count(1),
            job: JobPolicy::default(),
        }
    }
}

/// How many tasks a service wants and where they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// As many slots as replicas, numbered from 1; a scale-down may leave gaps.
    Replicated { replicas: u32 },
    /// One slot for each node that is active and meets the constraints.
    Global,
    /// Runs to completion in `completions` slots, at most `max_concurrent` (0: all) at once.
    ReplicatedJob { completions: u32, max_concurrent: u32 },
    /// Runs to completion once on each node that is active and meets the constraints.
    GlobalJob,
}

impl Mode {
    /// Tasks run to completion.
    pub fn is_job(self) -> bool {
        matches!(self, Mode::ReplicatedJob { .. } | Mode::GlobalJob)
    }

    /// Slots belong to nodes.
    pub fn is_global(self) -> bool {
        matches!(self, Mode::Global | Mode::GlobalJob)
    }
}

impl ServiceSpec {
    /// Slots the service wants filled, or completions for a job; 0 for global modes, which follow
    /// the nodes.
    pub fn replicas(&self) -> u32 {
        match self.mode {
            Mode::Replicated { replicas } => replicas,
            Mode::ReplicatedJob { completions, .. } => completions,
            Mode::Global | Mode::GlobalJob => 0,
        }
    }
}

/// What happens to the tasks of a node whose lease ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disconnect {
    /// They are lost; replacements run elsewhere at once.
    #[default]
    Replace,
    /// Never two copies: they are waited for until the node returns or an operator removes it.
    Wait,
    /// The worker stops them by itself after so long without a manager, milliseconds; replacements
    /// run elsewhere when that bound has surely passed.
    StopAfter { after_ms: u64 },
}

/// What every task of a service runs. A change of this is a new revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub container: ContainerSpec,
    pub limits: Resources,
    pub reservations: Resources,
    pub restart: RestartPolicy,
    pub placement: Placement,
    /// Counter that users raise to replace every task although nothing else changed.
    pub force_update: u64,
    /// Reserved amounts of generic resources by kind.
    pub generic: BTreeMap<String, u64>,
    /// Ports bound on the task's own node only.
    pub host_ports: Vec<HostPort>,
    pub health: Health,
    /// Time that open connections get to end between leaving the balancers and the stop signal,
    /// milliseconds.
    pub drain_timeout_ms: u64,
}

impl TaskSpec {
    /// A task of one runs what a task of the other would: they differ at most in where it may run.
    pub fn runs_same_as(&self, other: &TaskSpec) -> bool {
        let Self {
            container,
            limits,
            reservations,
            restart,
            placement: _,
            force_update,
            generic,
            host_ports,
            health,
            drain_timeout_ms,
        } = self;
        container == &other.container
            && limits == &other.limits
            && reservations == &other.reservations
            && restart == &other.restart
            && force_update == &other.force_update
            && generic == &other.generic
            && host_ports == &other.host_ports
            && health == &other.health
            && drain_timeout_ms == &other.drain_timeout_ms
    }
}

/// A port of the node that leads to the task running there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// Port of the node; never 0.
    pub published: u16,
    /// Port inside the container.
    pub target: u16,
}

/// The process and its surroundings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Only restarts of the last so many milliseconds count against `max_attempts`; none: all.
    pub window_ms: Option<u64>,
    /// Longest wait of the exponential back-off, milliseconds; none: 60 s.
    pub max_delay_ms: Option<u64>,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay_ms: None,
            max_attempts: None,
            window_ms: None,
            max_delay_ms: None,
        }
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
