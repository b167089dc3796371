//! Jobs: ends of runs, what a run may still start, and launches by schedules.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Step;
use crate::command::NewTask;
use crate::id::{ServiceId, TaskId};
use crate::service::{JobOutcome, JobRun, Service};
use crate::spec::{Mode, ServiceSpec};
use crate::task::{Desired, Observed, Reason, Task};
use crate::validate::Invalid;

/// Schedules count in minutes.
const MINUTE_MS: u64 = 60_000;

/// Longest name of a scheduled service: its launches append a number.
pub const SCHEDULED_NAME_MAX: usize = 52;

impl Step<'_> {
    pub(super) fn finish_job(
        &mut self,
        at_ms: u64,
        id: ServiceId,
        started_at_ms: u64,
        outcome: JobOutcome,
    ) -> bool {
        let Ok(service) = self.existing_service(id) else { return false };
        let run = service.run;
        let this_run = run.started_at_ms == started_at_ms && run.finished_at_ms == 0;
        let is_job = service.spec.mode.is_job() && outcome != JobOutcome::Unfinished;
        if !is_job || !this_run || !self.may_end(service, outcome) {
            return false;
        }
        let mut service = service.clone();
        service.run.finished_at_ms = at_ms;
        service.run.outcome = outcome;
        service.note(
            at_ms,
            match outcome {
                JobOutcome::Succeeded => "the job succeeded",
                JobOutcome::TimedOut => "the job ran longer than it may",
                JobOutcome::Failed | JobOutcome::Unfinished => "the job failed",
            },
        );
        self.write_service(service);
        true
    }

    /// More completions may have been asked for since the end was seen.
    fn may_end(&self, service: &Service, outcome: JobOutcome) -> bool {
        let Mode::ReplicatedJob { completions, .. } = service.spec.mode else { return true };
        let ended = |task: &&Task| match outcome {
            JobOutcome::Succeeded => completes(task, service),
            JobOutcome::Failed | JobOutcome::Unfinished => {
                completes(task, service)
                    || (task.reason == Reason::Exhausted && task.revision == service.revision)
            }
            JobOutcome::TimedOut => true,
        };
        let slots: BTreeSet<u32> = self
            .state
            .tasks_of_service(service.id)
            .filter(|task| (1..=completions).contains(&task.slot))
            .filter(ended)
            .map(|task| task.slot)
            .collect();
        outcome == JobOutcome::TimedOut || slots.len() >= completions as usize
    }

    /// Another run begins, or more is asked of one that ended: it goes on from here.
    pub(super) fn reopen_job(service: &mut Service, at_ms: u64) {
        service.run = JobRun { started_at_ms: at_ms, ..JobRun::default() };
    }

    /// A finished job that is asked for more completions than before goes on.
    pub(super) fn reopen_if_more(service: &mut Service, spec: &ServiceSpec, at_ms: u64) {
        let more = spec.replicas() > service.spec.replicas();
        if spec.mode.is_job() && more && service.run.finished_at_ms != 0 {
            Self::reopen_job(service, at_ms);
            service.note(at_ms, "goes on: more completions were asked for");
        }
    }

    /// What an earlier run started has no part in the next, even if that one returns to a revision
    /// that was run before.
    pub(super) fn end_run(&mut self, id: ServiceId) {
        let tasks: Vec<TaskId> = self.state.tasks_of_service(id).map(|task| task.id).collect();
        for task in tasks {
            let Some(mut task) = self.state.task(task).cloned() else { continue };
            if task.desired != Desired::Remove {
                task.desired = Desired::Remove;
                task.reason = Reason::NewRun;
                self.write_task(task);
            }
        }
    }

    /// The slots in which a job may have one more task: none when its run is over or another one
    /// is meant. A task that already ended well is the slot's completion, and there are no more at
    /// once than were asked for.
    pub(super) fn job_room(&self, service: &Service, revision: u32) -> JobRoom {
        let mut room = JobRoom {
            closed: false,
            done: BTreeSet::new(),
            busy: BTreeSet::new(),
            max: None,
            completions: None,
        };
        if !service.spec.mode.is_job() {
            return room;
        }
        // A node that joins a global job that succeeded gets its task all the same.
        let joins =
            service.spec.mode == Mode::GlobalJob && service.run.outcome == JobOutcome::Succeeded;
        let over = service.run.finished_at_ms != 0 && !joins;
        room.closed = over || revision != service.revision;
        if let Mode::ReplicatedJob { completions, max_concurrent } = service.spec.mode {
            room.completions = Some(completions);
            room.max = usize::try_from(max_concurrent).ok().filter(|max| *max > 0);
        }
        for task in self.state.tasks_of_service(service.id) {
            if completes(task, service) {
                room.done.insert(task.slot);
            }
            // One that ended and was not dealt with keeps its place for the attempt after it.
            let open = matches!(task.desired, Desired::Ready | Desired::Running);
            if open || task.holds_resources() {
                room.busy.insert(task.slot);
            }
        }
        room
    }

    /// The slot of a job's task has its completion.
    pub(super) fn slot_done(&self, task: &Task) -> bool {
        self.state.service(task.service).is_some_and(|service| {
            service.spec.mode.is_job()
                && self
                    .state
                    .tasks_of_slot(task.service, task.slot)
                    .any(|other| completes(other, service))
        })
    }

    /// A global job that had succeeded got another task.
    pub(super) fn job_goes_on(&mut self, id: ServiceId, at_ms: u64) {
        let Some(service) = self.state.service(id) else { return };
        if service.spec.mode != Mode::GlobalJob || service.run.finished_at_ms == 0 {
            return;
        }
        let mut service = service.clone();
        Self::reopen_job(&mut service, at_ms);
        service.note(at_ms, "goes on: a node joined");
        self.write_service(service);
    }

    pub(super) fn launch(
        &mut self,
        at_ms: u64,
        parent: ServiceId,
        child: ServiceId,
        scheduled_at_ms: u64,
    ) -> bool {
        let Some(mut service) = self.due(parent, scheduled_at_ms) else { return false };
        if self.state.service(child).is_some() {
            return false;
        }
        let mut spec = (*service.spec).clone();
        spec.name = format!("{}-{}", spec.name, scheduled_at_ms / MINUTE_MS);
        spec.job.schedule = None;
        service.last_launch_ms = scheduled_at_ms;
        match self.create_child(child, &Arc::new(spec), at_ms, parent) {
            Ok(name) => service.note(at_ms, format!("launched {name}")),
            Err(why) => service.note(at_ms, format!("could not launch: {why}")),
        }
        self.write_service(service);
        true
    }

    pub(super) fn skip_launch(
        &mut self,
        at_ms: u64,
        parent: ServiceId,
        scheduled_at_ms: u64,
        message: &Arc<str>,
    ) -> bool {
        let Some(mut service) = self.due(parent, scheduled_at_ms) else { return false };
        service.last_launch_ms = scheduled_at_ms;
        service.note(at_ms, message.clone());
        self.write_service(service);
        true
    }

    /// Removes a job whose run is still the one that was looked at.
    pub(super) fn remove_job_of(
        &mut self,
        id: ServiceId,
        started_at_ms: u64,
        finished_at_ms: u64,
    ) -> bool {
        let run = self.existing_service(id).map(|service| service.run);
        let same = run.is_ok_and(|run| {
            (run.started_at_ms, run.finished_at_ms) == (started_at_ms, finished_at_ms)
        });
        same && self.remove_job(id)
    }

    fn remove_job(&mut self, id: ServiceId) -> bool {
        let Ok(service) = self.existing_service(id) else { return false };
        service.spec.mode.is_job() && self.remove_service(id, None).is_ok()
    }

    /// Jobs that a schedule launched go with it.
    pub(super) fn remove_children(&mut self, parent: ServiceId) {
        let children: Vec<ServiceId> = self
            .state
            .children(parent)
            .filter(|service| !service.removed)
            .map(|service| service.id)
            .collect();
        for child in children {
            self.remove_job(child);
        }
    }

    fn due(&self, parent: ServiceId, scheduled_at_ms: u64) -> Option<Service> {
        let service = self.existing_service(parent).ok()?;
        let due = service.spec.job.schedule.is_some() && scheduled_at_ms > service.last_launch_ms;
        due.then(|| service.clone())
    }
}

/// Where a job may have another task.
pub(super) struct JobRoom {
    closed: bool,
    done: BTreeSet<u32>,
    busy: BTreeSet<u32>,
    max: Option<usize>,
    completions: Option<u32>,
}

impl JobRoom {
    /// Whether the task is refused; its place is taken otherwise.
    pub fn refuses(&mut self, new: &NewTask) -> bool {
        let full =
            !self.busy.contains(&new.slot) && self.max.is_some_and(|max| self.busy.len() >= max);
        if self.closed
            || full
            || self.done.contains(&new.slot)
            || self.completions.is_some_and(|completions| new.slot > completions)
        {
            return true;
        }
        self.busy.insert(new.slot);
        false
    }
}

/// Refuses a scheduled service whose launches could not be named.
pub(super) fn check_scheduled(spec: &ServiceSpec) -> Result<(), Invalid> {
    if spec.job.schedule.is_none() || spec.name.len() <= SCHEDULED_NAME_MAX {
        return Ok(());
    }
    let problem = format!(
        "is {} characters long; a service with a schedule has at most {SCHEDULED_NAME_MAX}, since \
         its jobs are named after it",
        spec.name.len()
    );
    Err(Invalid { field: "name".into(), problem })
}

/// The task is its slot's completion in the present run.
fn completes(task: &Task, service: &Service) -> bool {
    task.status.state == Observed::Complete && task.revision == service.revision
}
