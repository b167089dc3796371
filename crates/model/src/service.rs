//! Services: a spec with its revisions and what the managers allocated for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::ServiceId;
use crate::node::Node;
use crate::spec::{Disconnect, ServiceSpec, TaskSpec, UpdatePolicy};

/// Revisions kept on a service beside those still in use by tasks.
pub const REVISIONS_KEPT: usize = 10;

/// Events kept on a service.
pub const EVENTS_KEPT: usize = 32;

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
    /// By number; a rollback returns to an old number.
    pub revisions: BTreeMap<u32, Revision>,
    /// The revision before this one: where a rollback goes.
    pub previous: Option<u32>,
    /// The last move between revisions; none before the first.
    pub rollout: Option<Rollout>,
    /// Written by `apply`: the ports in force.
    pub ports: Vec<PublishedPort>,
    /// Removed by a user; the object stays until its last task is gone, so that what still runs
    /// can be accounted for.
    pub removed: bool,
    /// The scheduled service that launched this job.
    pub parent: Option<ServiceId>,
    /// Of jobs: the present run.
    pub run: JobRun,
    /// Of scheduled jobs: the moment of the last launch, or of one that was skipped; the creation
    /// before the first.
    pub last_launch_ms: u64,
    /// What happened to the service, the newest last; see [`EVENTS_KEPT`].
    pub events: Vec<Event>,
    /// The policy for silent nodes before the last change of it, and the log index of that change:
    /// a worker that was silent by then knows only the old one.
    pub disconnect_before: Option<(Disconnect, u64)>,
}

/// A numbered version of a service's task spec; shared by all tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    pub task: Arc<TaskSpec>,
    pub created_at_ms: u64,
}

impl Service {
    /// The task spec of one revision.
    pub fn task_spec(&self, revision: u32) -> Option<&Arc<TaskSpec>> {
        self.revisions.get(&revision).map(|revision| &revision.task)
    }

    /// A task of this revision runs what the service now asks for.
    pub fn is_current(&self, revision: u32) -> bool {
        revision == self.revision
            || match (self.task_spec(revision), self.task_spec(self.revision)) {
                (Some(one), Some(now)) => one.runs_same_as(now),
                _ => false,
            }
    }

    /// A task of this revision on this node has to make way for one of the present revision: it runs
    /// something else, or the service now asks for other nodes. A change of the node alone is no
    /// matter of revisions, see [`Service::may_stay`].
    pub fn is_outdated(&self, revision: u32, node: Option<&Node>) -> bool {
        if revision == self.revision {
            return false;
        }
        let misplaced = || {
            let now = self.task_spec(self.revision);
            node.zip(now).is_some_and(|(node, now)| !now.placement.admits(node))
        };
        !self.is_current(revision) || misplaced()
    }

    /// The node still meets the constraints under which a task of this revision was placed there.
    pub fn may_stay(&self, revision: u32, node: &Node) -> bool {
        let admits =
            |spec: Option<&Arc<TaskSpec>>| spec.is_none_or(|spec| spec.placement.admits(node));
        admits(self.task_spec(revision)) || admits(self.rules_of(revision))
    }

    /// The bounds of the present rollout.
    pub fn update_policy(&self) -> &UpdatePolicy {
        match self.rollout.as_ref().map(|rollout| rollout.kind) {
            Some(RolloutKind::Rollback) => &self.spec.rollback,
            Some(RolloutKind::Update) | None => &self.spec.update,
        }
    }

    /// Slots that try the new revision beside the old one until it is promoted; 0: none do.
    pub fn canaries(&self) -> u32 {
        let unproven = self.rollout.as_ref().is_some_and(|rollout| {
            rollout.kind == RolloutKind::Update && !rollout.promoted && !rollout.state.is_over()
        });
        if unproven { self.spec.update.canary } else { 0 }
    }

    /// The spec that decides where tasks of a revision may be: the present one's, unless they run
    /// something else and are to be replaced anyway.
    pub fn rules_of(&self, revision: u32) -> Option<&Arc<TaskSpec>> {
        self.task_spec(if self.is_current(revision) { self.revision } else { revision })
    }

    /// The policy that holds for a node which went down at a log index. Users may give its tasks
    /// up or wait longer at any time; a bound that its worker was never told cannot be relied on.
    pub fn disconnect_of(&self, down_index: u64) -> Disconnect {
        let now = self.spec.disconnect;
        let Some((before, _)) = self.disconnect_before.filter(|(_, at)| *at > down_index) else {
            return now;
        };
        match (before, now) {
            (_, Disconnect::Replace | Disconnect::Wait) => now,
            (Disconnect::Replace | Disconnect::Wait, Disconnect::StopAfter { .. }) => before,
            (Disconnect::StopAfter { after_ms: told_ms }, Disconnect::StopAfter { after_ms }) => {
                Disconnect::StopAfter { after_ms: after_ms.max(told_ms) }
            }
        }
    }

    /// Remembers an event, forgets the oldest.
    pub fn note(&mut self, at_ms: u64, text: impl Into<Arc<str>>) {
        if self.events.len() >= EVENTS_KEPT {
            self.events.remove(0);
        }
        self.events.push(Event { at_ms, text: text.into() });
    }
}

/// Something that happened to a service, in words for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub at_ms: u64,
    pub text: Arc<str>,
}

/// One run of a job. An update of its task spec begins another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRun {
    pub started_at_ms: u64,
    /// 0 while it runs.
    pub finished_at_ms: u64,
    pub outcome: JobOutcome,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobOutcome {
    #[default]
    Unfinished,
    Succeeded,
    /// A slot's restart policy allows no further attempt.
    Failed,
    /// It ran longer than it may.
    TimedOut,
}

/// The move from one revision to another. Advanced by the planner, steered by users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Log index of its last change.
    pub version: u64,
    pub kind: RolloutKind,
    pub state: RolloutState,
    pub from: u32,
    pub to: u32,
    pub started_at_ms: u64,
    /// When the state was entered.
    pub since_ms: u64,
    /// Slots that had to move at the start.
    pub total: u32,
    /// Slots whose new task failed.
    pub failures: u32,
    /// Slots that ran the new revision when progress was last seen, and when that was. A rollback
    /// does not count those that ran it all along.
    pub done: u32,
    /// 0 until the leader has looked at the rollout.
    pub progress_at_ms: u64,
    /// Canaries were found good.
    pub promoted: bool,
    /// Why it is in its state, for people.
    pub message: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RolloutKind {
    Update,
    Rollback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RolloutState {
    Running,
    /// Canaries run and wait for a user's word.
    AwaitingPromotion,
    /// A user said so.
    PausedByUser,
    /// Too much failed, or nothing moved for too long; users resume, update or roll back.
    Paused,
    Completed,
}

impl RolloutState {
    /// Slots move, or may move again without a user's word.
    pub fn is_active(self) -> bool {
        self == RolloutState::Running
    }

    pub fn is_over(self) -> bool {
        self == RolloutState::Completed
    }
}

/// A port in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    pub published: u16,
    pub target: u16,
}
