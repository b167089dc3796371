//! Why a service or a task is where it is, or nowhere, and what led to it: the planner's
//! explanation of each slot, with its history and what holds the service as a whole up.

use std::cmp::Reverse;

use cluster_model::{JobOutcome, RolloutState, Service, State, Task, TaskId};
use cluster_pb::control::v1 as pb;
use cluster_planner::explain::{self, Explanation};
use cluster_planner::{cron, storm};
use cluster_wire::{Code, Failure, object};

use super::ControlService;
use super::task::Shown;
use crate::api::lookup;
use crate::raft::View;

/// Slots explained in one answer.
const SLOTS_MAX: usize = 200;

impl ControlService {
    pub(super) async fn explanation(
        &self,
        request: pb::ExplainRequest,
    ) -> Result<pb::ExplainResponse, Failure> {
        let view = self.context.read(request.stale).await?;
        let now_ms = self.context.clock.now_ms();
        // Inspecting every node for each of many slots must not hold other requests up.
        self.explanations.take(move || explanation(&view, &request.object, now_ms)).await?
    }
}

fn explanation(view: &View, object: &str, now_ms: u64) -> Result<pb::ExplainResponse, Failure> {
    let state = &view.state;
    let (service, only) = find(state, object)?;
    let mut tasks: Vec<&Task> = state.tasks_of_service(service.id).collect();
    tasks.retain(|task| only.is_none_or(|slot| task.slot == slot));
    let mut slots: Vec<Vec<&Task>> =
        tasks.chunk_by(|a, b| a.slot == b.slot).map(<[&Task]>::to_vec).collect();
    // What does not run is what is asked about.
    slots.sort_by_key(|tasks| tasks.iter().any(|task| task.serves()));
    let mut remarks = remarks(state, service, now_ms);
    if slots.len() > SLOTS_MAX {
        let more = slots.len() - SLOTS_MAX;
        remarks.push(format!("{more} more slots are left out; those that run come last"));
        slots.truncate(SLOTS_MAX);
    }
    slots.sort_by_key(|tasks| tasks.first().map(|task| task.slot));
    let shown = Shown::of(state, now_ms);
    Ok(pb::ExplainResponse {
        service_id: service.id.to_string(),
        service_name: service.spec.name.clone(),
        slots: slots.into_iter().map(|tasks| slot(state, &shown, tasks, now_ms)).collect(),
        events: service.events.iter().map(object::event).collect(),
        remarks,
        index: view.applied_index,
    })
}

/// A service, or the slot of a task.
fn find<'a>(state: &'a State, text: &str) -> Result<(&'a Service, Option<u32>), Failure> {
    let missing = match lookup::service(state, text) {
        Ok(service) => return Ok((service, None)),
        Err(failure) if failure.code != Code::NotFound => return Err(failure),
        Err(failure) => failure,
    };
    if let Some((name, slot)) = text.rsplit_once('.')
        && let (Some(service), Ok(slot)) = (state.service_named(name), slot.parse::<u32>())
        && let Some(service) = state.service(service)
        && state.tasks_of_slot(service.id, slot).next().is_some()
    {
        return Ok((service, Some(slot)));
    }
    match lookup::task(state, text) {
        Ok(task) => {
            let service = state.service(task.service).ok_or(missing)?;
            Ok((service, Some(task.slot)))
        }
        Err(failure) if failure.code == Code::NotFound => {
            Err(Failure::not_found("service or task", text))
        }
        Err(failure) => Err(failure),
    }
}

fn slot(
    state: &State,
    shown: &Shown<'_>,
    mut tasks: Vec<&Task>,
    now_ms: u64,
) -> pb::SlotExplanation {
    tasks.sort_by_key(|task| (!task.fills_slot(), Reverse((task.created_at_ms, task.version))));
    let present = tasks.first().copied();
    let explained = match present {
        Some(task) => explain::task(state, task.id, now_ms),
        None => Explanation::default(),
    };
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let obstacles = explained.obstacles.into_iter().map(|obstacle| pb::Obstacle {
        nodes: count(obstacle.count),
        why: obstacle.why,
        examples: obstacle.examples,
    });
    let id: Option<TaskId> = present.map(|task| task.id);
    let before = tasks.iter().filter(|task| Some(task.id) != id);
    pb::SlotExplanation {
        slot: present.map_or(0, |task| task.slot),
        task: present.map(|task| shown.task(task)),
        verdict: explained.verdict,
        obstacles: obstacles.collect(),
        remedies: explained.remedies,
        history: before.map(|task| shown.task(task)).collect(),
    }
}

/// What concerns the service as a whole.
fn remarks(state: &State, service: &Service, now_ms: u64) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(rollout) = service.rollout.as_ref().filter(|rollout| !rollout.state.is_over()) {
        let what = match rollout.state {
            RolloutState::Running => "is under way",
            RolloutState::AwaitingPromotion => "waits: promote it or roll it back",
            RolloutState::PausedByUser => "is paused by a user: resume it or roll it back",
            RolloutState::Paused => "is paused: mend it, resume it or roll it back",
            RolloutState::Completed => "is over",
        };
        remarks.push(format!(
            "the move from revision {} to {} {what} ({} of {} slots failed; {})",
            rollout.from, rollout.to, rollout.failures, rollout.total, rollout.message
        ));
    }
    match service.run.outcome {
        JobOutcome::Failed => remarks.push("the job failed; an update runs it again".to_owned()),
        JobOutcome::TimedOut => remarks.push("the job ran longer than it may".to_owned()),
        JobOutcome::Succeeded => remarks.push("the job succeeded".to_owned()),
        JobOutcome::Unfinished => {}
    }
    if let Some(schedule) = &service.spec.job.schedule {
        remarks.push(match cron::next_after(schedule, now_ms) {
            Some(at_ms) => format!(
                "runs nothing itself; launches a job in {} s",
                at_ms.saturating_sub(now_ms) / 1000
            ),
            None => "its schedule has no further moment".to_owned(),
        });
    }
    remarks.extend(storm::assess(state, now_ms).map(|storm| storm.text));
    remarks
}
