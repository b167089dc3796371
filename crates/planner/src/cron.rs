//! Scheduled services: they run nothing themselves, each due moment launches a job of its own.
//!
//! Of several moments that were missed only the last is launched. Launches that ended are kept as
//! history, as many as asked for. A launch is decided from the state alone and `apply` takes each
//! moment once, so a change of the leader neither loses nor doubles one.

mod schedule;

use std::cmp::Reverse;

use cluster_model::spec::{Overlap, Schedule};
use cluster_model::{Change, JobOutcome, JobRun, Service};

use crate::Note;
use crate::slots::{Steps, View};

pub use schedule::{next_after, validate};

use schedule::Calendar;

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    let service = view.service;
    let Some(schedule) = service.spec.job.schedule.as_ref() else { return };
    let calendar = match Calendar::new(&schedule.cron, &schedule.time_zone) {
        Ok(calendar) => calendar,
        Err(why) => {
            steps.note(Note::NoSchedule { service: service.id, why: why.into() });
            return;
        }
    };
    let mut children: Vec<&Service> =
        view.state.children(service.id).filter(|child| !child.removed).collect();
    children.sort_unstable_by_key(|child| Reverse((child.created_at_ms, child.id)));
    forget(&children, schedule, steps);
    let due = calendar.last_until(view.now_ms).filter(|at_ms| *at_ms > service.last_launch_ms);
    if let Some(at_ms) = due {
        launch(view, schedule, &children, at_ms, steps);
    }
    // A clock that was set back must not launch again what it launched.
    if let Some(at_ms) = calendar.next_after(view.now_ms.max(service.last_launch_ms)) {
        steps.wake_at(at_ms);
    }
}

fn launch(
    view: &View<'_>,
    schedule: &Schedule,
    children: &[&Service],
    at_ms: u64,
    steps: &mut Steps,
) {
    if !steps.take_room() {
        return;
    }
    let parent = view.service.id;
    let mut skip = |message: String| {
        steps.change(Change::SkipLaunch {
            parent,
            scheduled_at_ms: at_ms,
            message: message.into(),
        });
    };
    let late_ms = view.now_ms.saturating_sub(at_ms);
    if let Some(deadline_ms) = schedule.starting_deadline_ms.filter(|most| late_ms > *most) {
        return skip(format!(
            "skipped a launch: it was {} s late, more than the starting deadline of {} s",
            late_ms / 1000,
            deadline_ms / 1000
        ));
    }
    let unfinished: Vec<&&Service> =
        children.iter().filter(|child| child.run.finished_at_ms == 0).collect();
    match (schedule.overlap, unfinished.first()) {
        (Overlap::Forbid, Some(child)) => {
            return skip(format!("skipped a launch: {} has not finished", child.spec.name));
        }
        (Overlap::Replace, _) => {
            for child in unfinished {
                steps.change(remove(child));
            }
        }
        (Overlap::Forbid, None) | (Overlap::Allow, _) => {}
    }
    steps.launch(at_ms);
}

/// Removes finished launches beyond those kept; the newest come first.
fn forget(children: &[&Service], schedule: &Schedule, steps: &mut Steps) {
    let mut kept = [schedule.keep_succeeded, schedule.keep_failed];
    for child in children {
        let kind = match child.run.outcome {
            JobOutcome::Unfinished => continue,
            JobOutcome::Succeeded => 0,
            JobOutcome::Failed | JobOutcome::TimedOut => 1,
        };
        if kept[kind] > 0 {
            kept[kind] -= 1;
            continue;
        }
        if !steps.take_room() {
            return;
        }
        steps.change(remove(child));
    }
}

/// Removes a job as it was seen: one that began anew meanwhile stays.
pub(crate) fn remove(job: &Service) -> Change {
    let JobRun { started_at_ms, finished_at_ms, .. } = job.run;
    Change::RemoveJob { service: job.id, started_at_ms, finished_at_ms }
}
