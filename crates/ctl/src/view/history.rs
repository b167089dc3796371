//! What happened: revisions, rollouts, runs, events, explanations.

use cluster_pb::control::v1 as control;
use cluster_pb::types::v1 as pb;
use serde::Serialize;

use super::{TaskSpecView, TaskView};

#[derive(Debug, Serialize)]
pub struct RevisionView {
    pub revision: u32,
    pub created_at_ms: u64,
    /// What the service asks for now.
    pub current: bool,
    /// Where a rollback without a number goes.
    pub previous: bool,
    /// Tasks that run it.
    pub tasks: u32,
    pub spec: TaskSpecView,
}

#[derive(Debug, Serialize)]
pub struct RolloutView {
    /// `update` or `rollback`
    pub kind: String,
    /// `running`, `awaiting-promotion`, `paused-by-user`, `paused` or `completed`
    pub state: String,
    pub from: u32,
    pub to: u32,
    pub started_at_ms: u64,
    pub since_ms: u64,
    pub total: u32,
    pub done: u32,
    pub failures: u32,
    pub promoted: bool,
    pub message: String,
}

#[derive(Debug, Serialize)]
pub struct RunView {
    pub started_at_ms: u64,
    /// Null while it runs.
    pub finished_at_ms: Option<u64>,
    /// `unfinished`, `succeeded`, `failed` or `timed-out`
    pub outcome: String,
}

#[derive(Debug, Serialize)]
pub struct EventView {
    pub at_ms: u64,
    pub text: String,
}

#[derive(Debug, Serialize)]
pub struct ExplainView {
    pub service: String,
    pub service_id: String,
    pub remarks: Vec<String>,
    pub slots: Vec<SlotView>,
    /// The oldest first.
    pub events: Vec<EventView>,
}

#[derive(Debug, Serialize)]
pub struct SlotView {
    pub slot: u32,
    pub task: Option<TaskView>,
    pub verdict: String,
    pub obstacles: Vec<ObstacleView>,
    pub remedies: Vec<String>,
    /// The newest first.
    pub history: Vec<TaskView>,
}

#[derive(Debug, Serialize)]
pub struct ObstacleView {
    pub nodes: u32,
    pub why: String,
    pub examples: Vec<String>,
}

impl From<pb::Revision> for RevisionView {
    fn from(revision: pb::Revision) -> Self {
        Self {
            revision: revision.number,
            created_at_ms: revision.created_at_ms,
            current: revision.current,
            previous: revision.previous,
            tasks: revision.tasks,
            spec: revision.task.unwrap_or_default().into(),
        }
    }
}

impl From<pb::Rollout> for RolloutView {
    fn from(rollout: pb::Rollout) -> Self {
        Self {
            kind: rollout.kind,
            state: rollout.state,
            from: rollout.from,
            to: rollout.to,
            started_at_ms: rollout.started_at_ms,
            since_ms: rollout.since_ms,
            total: rollout.total,
            done: rollout.done,
            failures: rollout.failures,
            promoted: rollout.promoted,
            message: rollout.message,
        }
    }
}

impl From<pb::JobRun> for RunView {
    fn from(run: pb::JobRun) -> Self {
        Self {
            started_at_ms: run.started_at_ms,
            finished_at_ms: (run.finished_at_ms != 0).then_some(run.finished_at_ms),
            outcome: run.outcome,
        }
    }
}

impl From<pb::Event> for EventView {
    fn from(event: pb::Event) -> Self {
        Self { at_ms: event.at_ms, text: event.text }
    }
}

impl From<control::ExplainResponse> for ExplainView {
    fn from(answer: control::ExplainResponse) -> Self {
        Self {
            service: answer.service_name,
            service_id: answer.service_id,
            remarks: answer.remarks,
            slots: answer.slots.into_iter().map(SlotView::from).collect(),
            events: answer.events.into_iter().map(EventView::from).collect(),
        }
    }
}

impl From<control::SlotExplanation> for SlotView {
    fn from(slot: control::SlotExplanation) -> Self {
        let obstacle = |obstacle: control::Obstacle| ObstacleView {
            nodes: obstacle.nodes,
            why: obstacle.why,
            examples: obstacle.examples,
        };
        Self {
            slot: slot.slot,
            task: slot.task.map(TaskView::from),
            verdict: slot.verdict,
            obstacles: slot.obstacles.into_iter().map(obstacle).collect(),
            remedies: slot.remedies,
            history: slot.history.into_iter().map(TaskView::from).collect(),
        }
    }
}
