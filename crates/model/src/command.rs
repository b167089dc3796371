//! Commands: the entries of the Raft log, and what `apply` answers.
//!
//! Commands are compact: a plan that fills 10,000 slots of one service names the service once and
//! spends a few bytes a task. Times are cluster time in milliseconds since 1970, chosen by the
//! proposer; ids are minted by the proposer.

mod sets;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, Manager, Secret, Upkeep};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::node::{NodeDescription, NodeSpec};
use crate::security::Secure;
use crate::service::{JobOutcome, Rollout};
use crate::spec::{ServiceSpec, Strategy};
use crate::task::{Desired, Observed, Reason};
use crate::validate::Invalid;

pub use sets::{COMMANDS, OLDEST_COMMANDS};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// First entry of a cluster's life; refused when a cluster exists.
    Bootstrap(Box<Cluster>),
    CreateService {
        id: ServiceId,
        spec: Arc<ServiceSpec>,
        at_ms: u64,
    },
    /// `version` is the one the user read.
    UpdateService {
        id: ServiceId,
        version: u64,
        spec: Arc<ServiceSpec>,
        at_ms: u64,
        /// Tasks whose slots go first when the service shrinks by this update.
        give_up: Vec<TaskId>,
    },
    RemoveService {
        id: ServiceId,
        at_ms: u64,
        /// The one the user read, if it is to be compared.
        version: Option<u64>,
    },
    /// Makes an older revision the service's again.
    RollBackService {
        id: ServiceId,
        version: u64,
        /// None: the one before.
        to: Option<u32>,
        at_ms: u64,
    },
    /// A user's word on a rollout.
    SteerRollout {
        id: ServiceId,
        steer: Steer,
        at_ms: u64,
    },
    /// `version` is the one the user read.
    UpdateCluster {
        version: u64,
        strategy: Strategy,
    },
    /// A worker was given a certificate.
    RegisterNode {
        id: NodeId,
        name: String,
        at_ms: u64,
    },
    /// A worker said hello.
    NodeReady {
        id: NodeId,
        description: Box<NodeDescription>,
        at_ms: u64,
    },
    UpdateNode {
        id: NodeId,
        version: u64,
        spec: NodeSpec,
        at_ms: u64,
    },
    /// Refused for a ready node unless forced.
    RemoveNode {
        id: NodeId,
        force: bool,
        at_ms: u64,
    },
    PutManager {
        id: NodeId,
        manager: Manager,
    },
    RemoveManager {
        id: NodeId,
    },
    SetWorkerToken(Secret),
    SetManagerToken(Secret),
    /// What a planner proposes. Every change is re-checked by itself; stale ones are refused and
    /// counted, the others applied.
    Plan {
        at_ms: u64,
        changes: Vec<Change>,
    },
    /// What agents report.
    RecordStatus {
        reports: Vec<(NodeId, StatusReport)>,
    },
    /// What managers do for their own group. `version` is the one the user read.
    UpdateUpkeep {
        version: u64,
        upkeep: Upkeep,
    },
    /// The group begins anew with one manager, which took the state over from a survivor or a
    /// snapshot. `version` is the cluster object's as it was taken over: applied once.
    Recover {
        version: u64,
        id: NodeId,
        manager: Manager,
    },
    /// Certificates and locks.
    Secure(Secure),
}

/// As version of a rollout in a step of a plan: the one that an earlier step of this plan wrote.
pub const WRITTEN_BY_THIS_PLAN: u64 = u64::MAX;

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// New attempts; the i-th gets id `base + i`. Refused for a slot that is already filled, other
    /// than by the one task the new one starts beside.
    CreateTasks { service: ServiceId, revision: u32, base: TaskId, tasks: Vec<NewTask> },
    /// Refused when the task has a node, or the node cannot take it any more.
    Assign { task: TaskId, node: NodeId },
    /// Refused unless forward. `Running` is refused while another task of the slot may be alive, other
    /// than one that started beside this one or beside which this one started.
    SetDesired { task: TaskId, desired: Desired, reason: Reason },
    /// Why a task has no node, or what is waited for while its node is down.
    Explain { task: TaskId, message: Arc<str> },
    /// Forgets terminal tasks.
    Delete { task: TaskId },
    /// The node's lease ended: the node is down and its tasks are no endpoints. What becomes of
    /// them is another matter, see `Lose`. Refused when the node changed since `version` was
    /// read.
    NodeDown { node: NodeId, version: u64, message: Arc<str> },
    /// What became of a task is unknown and nobody waits for it any more. Refused unless its node is
    /// down.
    Lose { task: TaskId },
    /// Moves a rollout on. Refused when it changed since `version` was read; a plan that writes it
    /// again names [`WRITTEN_BY_THIS_PLAN`].
    SetRollout { service: ServiceId, version: u64, rollout: Box<Rollout> },
    /// A rollout failed and its policy wants the old revision back. Refused when it changed since
    /// `version` was read.
    RollBack { service: ServiceId, version: u64, message: Arc<str> },
    /// Ends the present run of a job. Refused when it ended, or another began.
    FinishJob { service: ServiceId, started_at_ms: u64, outcome: JobOutcome },
    /// Launches a job of a scheduled service. Refused when a launch of that moment or a later one
    /// was made or skipped.
    Launch { parent: ServiceId, child: ServiceId, scheduled_at_ms: u64 },
    /// Passes over a launch.
    SkipLaunch { parent: ServiceId, scheduled_at_ms: u64, message: Arc<str> },
    /// Removes a job that a schedule launched, or whose time to live is over.
    /// Refused when its run is another by now, or ended or went on.
    RemoveJob { service: ServiceId, started_at_ms: u64, finished_at_ms: u64 },
}

/// What users say to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Steer {
    Pause,
    Resume,
    /// The canaries are good.
    Promote,
}

/// A slot's next attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTask {
    pub slot: u32,
    /// `Ready` for a successor that waits, else `Running`.
    pub desired: Desired,
    pub reason: Reason,
    pub not_before_ms: u64,
    pub restarts: u32,
    /// The only node it may run on.
    pub target: Option<NodeId>,
    /// The task that fills the slot and may live on while this one starts.
    pub beside: Option<TaskId>,
}

impl NewTask {
    /// A task for a slot, to run at once.
    pub fn new(slot: u32, reason: Reason) -> Self {
        Self {
            slot,
            desired: Desired::Running,
            reason,
            not_before_ms: 0,
            restarts: 0,
            target: None,
            beside: None,
        }
    }
}

/// What an agent says of one task. Merged monotonically, so it may come twice or late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    pub task: TaskId,
    pub state: Observed,
    pub at_ms: u64,
    pub message: Option<Arc<str>>,
    pub error: Option<Arc<str>>,
    pub exit_code: Option<i32>,
    pub oom: bool,
    /// Of a running task: connections may come.
    pub ready: bool,
    /// Counts changes of `ready` and of the message within a state, over starts of the worker too.
    pub readiness: u64,
}

impl StatusReport {
    /// A state, nothing else said.
    pub fn new(task: TaskId, state: Observed, at_ms: u64) -> Self {
        Self {
            task,
            state,
            at_ms,
            message: None,
            error: None,
            exit_code: None,
            oom: false,
            ready: state == Observed::Running,
            readiness: 0,
        }
    }
}

/// What `apply` answers to an accepted command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    /// Id and version of the object that was written.
    Service {
        id: ServiceId,
        version: u64,
    },
    Node {
        id: NodeId,
        version: u64,
    },
    /// How many steps of a plan, or reports, were taken and how many refused as stale.
    Counted {
        taken: u32,
        refused: u32,
    },
}

/// Why `apply` refused a command. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("this cluster has no such {kind}: `{id}`")]
    NotFound { kind: String, id: String },
    #[error("{kind} name `{name}` is already taken")]
    NameTaken { kind: String, name: String },
    #[error("id `{0}` is already in use")]
    IdTaken(String),
    #[error("port {port} is already published by service `{service}`")]
    PortTaken { port: u16, service: String },
    #[error("no free port is left in 30000-32767")]
    NoFreePort,
    #[error(
        "the {kind} changed since it was read (version {read}, now {current}); read it again and \
         repeat the change"
    )]
    VersionMoved { kind: String, read: u64, current: u64 },
    #[error("field `{field}` cannot be changed after creation")]
    Immutable { field: String },
    #[error("{0}")]
    Invalid(Invalid),
    #[error("node `{name}` is ready; drain or stop it first, or force its removal")]
    NodeReady { name: String },
    #[error("{0}")]
    NotNow(String),
    #[error("the cluster is already bootstrapped")]
    AlreadyBootstrapped,
    #[error("the cluster is not bootstrapped")]
    NotBootstrapped,
    #[error("{0}")]
    CaNotNow(String),
}
