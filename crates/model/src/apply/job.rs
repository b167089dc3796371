//! Jobs: ends of runs, and launches by schedules.

use std::sync::Arc;

use super::Step;
use crate::id::ServiceId;
use crate::service::{JobOutcome, Service};

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
        if !service.spec.mode.is_job() || !this_run || outcome == JobOutcome::Unfinished {
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

    pub(super) fn remove_job(&mut self, id: ServiceId) -> bool {
        let Ok(service) = self.existing_service(id) else { return false };
        service.spec.mode.is_job() && self.remove_service(id, None).is_ok()
    }

    fn due(&self, parent: ServiceId, scheduled_at_ms: u64) -> Option<Service> {
        let service = self.existing_service(parent).ok()?;
        let due = service.spec.job.schedule.is_some() && scheduled_at_ms > service.last_launch_ms;
        due.then(|| service.clone())
    }
}
