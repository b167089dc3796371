//! Tasks: immutable attempts to fill a slot, and the lattice their states move along.
//!
//! Managers write `desired`, agents' reports write `status`; both only move forward.

mod stored;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, ServiceId, TaskId};
use crate::seldom::{Absent, Seldom};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub id: TaskId,
    pub service: ServiceId,
    pub slot: u32,
    pub revision: u32,
    /// Log index of the last change.
    pub version: u64,
    pub created_at_ms: u64,
    /// Chosen once by the scheduler, never changed.
    pub node: Option<NodeId>,
    /// Written by managers.
    pub desired: Desired,
    /// Why `desired` is what it is.
    pub reason: Reason,
    /// Restarts of this slot in a row under this revision, for policy and back-off.
    pub restarts: u32,
    /// Log index at which the task left the balancers: its stop signal waits until every worker
    /// has acknowledged endpoints of at least this index. 0: never served.
    pub withdrawn: u64,
    /// Written from agents' reports, by the scheduler's explanation and by `lost`.
    pub status: TaskStatus,
    pub extras: Seldom<Extras>,
}

/// What few tasks have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// A prepared successor waits in `Desired::Ready` until this moment of cluster time.
    pub not_before_ms: u64,
    /// The only node it may run on, for services with a slot for each node.
    pub target: Option<NodeId>,
    /// The older task of the slot that may live while this one starts (start first, canary).
    pub beside: Option<TaskId>,
    /// Named generic resources it holds on its node, by kind. Chosen with the node.
    pub generic: Vec<(String, Vec<String>)>,
}

impl Absent for Extras {
    const ABSENT: &Self =
        &Self { not_before_ms: 0, target: None, beside: None, generic: Vec::new() };
}

impl Task {
    /// The container may be running, or be about to: counts against its node's capacity.
    pub fn holds_resources(&self) -> bool {
        self.node.is_some() && !self.status.state.is_terminal()
    }

    /// Runs or is to run. It may have ended without anybody having dealt with that yet.
    pub fn is_wanted(&self) -> bool {
        matches!(self.desired, Desired::Ready | Desired::Running)
    }

    /// Wanted and not over: fills its slot.
    pub fn fills_slot(&self) -> bool {
        self.is_wanted() && !self.status.state.is_terminal()
    }

    /// One of the two started beside the other: they may be alive at the same time.
    pub fn is_beside(&self, other: &Task) -> bool {
        self.extras.beside == Some(other.id) || other.extras.beside == Some(self.id)
    }

    /// New connections may be sent here.
    pub fn serves(&self) -> bool {
        self.desired == Desired::Running
            && self.status.state == Observed::Running
            && self.status.ready
    }
}

/// What managers want of a task. Only forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Desired {
    /// Prepared and waiting.
    Ready,
    Running,
    /// For tasks that end by themselves.
    Complete,
    Shutdown,
    /// Stopped, then forgotten.
    Remove,
}

/// What is known of a task. Only forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Observed {
    New,
    Pending,
    Assigned,
    Accepted,
    Preparing,
    Ready,
    Starting,
    Running,
    /// Ended by itself with exit code 0.
    Complete,
    /// Ended because it was asked to.
    Shutdown,
    /// Ended by itself otherwise, after it had started.
    Failed,
    /// Never started.
    Rejected,
    /// Its node's lease ended; what became of it is unknown.
    Lost,
}

impl Observed {
    /// Nothing follows.
    pub fn is_terminal(self) -> bool {
        self >= Observed::Complete
    }

    /// Whether a report of `next` moves the task forward. A lost task whose node comes back may
    /// still be reported as ended, which only settles how.
    pub fn can_advance_to(self, next: Observed) -> bool {
        match self {
            Observed::Lost => next.is_terminal() && next != Observed::Lost,
            state if state.is_terminal() => false,
            state => next > state,
        }
    }
}

/// Why the managers want what they want; shown by `service ps`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// A slot of a new or grown service.
    ScaleUp,
    ScaleDown,
    /// The task before it in the slot ended.
    Restart,
    /// The node of the task before it was lost, drained or no longer matches.
    Reschedule(Moved),
    /// A newer revision took or takes its place.
    Update,
    /// The service was removed.
    ServiceRemoved,
    /// The task ended and its policy allows no other.
    Exhausted,
    /// The job's task did what it was for.
    Completed,
    /// The job ran longer than it may.
    TimedOut,
    /// A newer run of the job began.
    NewRun,
    /// A newer task started beside it and did not come up, or is no longer wanted.
    Withdrawn,
}

/// What made a task leave its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moved {
    NodeDown,
    NodeDrained,
    NodeRemoved,
    ConstraintsNotMet,
    /// A task of higher priority took its place.
    Preempted,
}

/// What was last heard of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    pub state: Observed,
    /// When the state was entered: the agent's clock for its reports, cluster time otherwise.
    pub at_ms: u64,
    /// The kernel killed a process of the task for memory.
    pub oom: bool,
    /// When the task entered `Running`, 0 if it never did.
    pub started_at_ms: u64,
    /// Its readiness probe, if it has one, lets connections come.
    pub ready: bool,
    /// Number of the report that said so; only higher ones change it.
    pub readiness: u64,
    pub details: Seldom<Details>,
}

/// What is said of few states: of those that wait or went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// For people: why it is pending, what is being prepared.
    pub message: Option<Arc<str>>,
    /// For people: what went wrong.
    pub error: Option<Arc<str>>,
    pub exit_code: Option<i32>,
}

impl Absent for Details {
    const ABSENT: &Self = &Self { message: None, error: None, exit_code: None };
}

impl TaskStatus {
    /// A state entered at a moment, nothing else known.
    pub fn new(state: Observed, at_ms: u64) -> Self {
        Self {
            state,
            at_ms,
            oom: false,
            started_at_ms: 0,
            ready: false,
            readiness: 0,
            details: Seldom::default(),
        }
    }
}

impl fmt::Display for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Desired::Ready => "ready",
            Desired::Running => "running",
            Desired::Complete => "complete",
            Desired::Shutdown => "shutdown",
            Desired::Remove => "remove",
        })
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Observed::New => "new",
            Observed::Pending => "pending",
            Observed::Assigned => "assigned",
            Observed::Accepted => "accepted",
            Observed::Preparing => "preparing",
            Observed::Ready => "ready",
            Observed::Starting => "starting",
            Observed::Running => "running",
            Observed::Complete => "complete",
            Observed::Shutdown => "shutdown",
            Observed::Failed => "failed",
            Observed::Rejected => "rejected",
            Observed::Lost => "lost",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::ScaleUp => "scale up",
            Reason::ScaleDown => "scale down",
            Reason::Restart => "restart",
            Reason::Reschedule(Moved::NodeDown) => "rescheduled: node down",
            Reason::Reschedule(Moved::NodeDrained) => "rescheduled: node drained",
            Reason::Reschedule(Moved::NodeRemoved) => "rescheduled: node removed",
            Reason::Reschedule(Moved::ConstraintsNotMet) => {
                "rescheduled: node no longer meets the constraints"
            }
            Reason::Update => "update",
            Reason::ServiceRemoved => "service removed",
            Reason::Reschedule(Moved::Preempted) => "preempted by a service of higher priority",
            Reason::Exhausted => "restart policy allows no further attempt",
            Reason::Completed => "completed",
            Reason::TimedOut => "the job ran longer than it may",
            Reason::NewRun => "a newer run of the job began",
            Reason::Withdrawn => "the task that started beside the old one was withdrawn",
        })
    }
}
