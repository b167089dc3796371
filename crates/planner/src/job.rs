//! Jobs: runs to completion, decided from the state alone.
//!
//! A slot whose task of the present run ended well is done and stays so: that task is kept as long
//! as the service. Failed attempts follow the restart policy, lost and moved ones cost nothing;
//! both are the other stages' work. Three stages live here: what a task's end means, whether the
//! run is over, and which slots of a replicated job start next. A run is a revision, `apply` takes
//! the tasks of an earlier one away.

use std::collections::BTreeMap;

use cluster_model::spec::Mode;
use cluster_model::{Change, Desired, JobOutcome, NewTask, Observed, Reason, Task};

use crate::slots::{Slot, Steps, View};
use crate::{cron, global};

/// Marks completions, and lets go of what has no part in the run.
pub(crate) fn settle(view: &View<'_>, steps: &mut Steps) {
    for slot in view.slots.iter() {
        let done = view.done(&slot);
        let changes: Vec<(&Task, Desired, Reason)> = slot
            .tasks()
            .filter_map(|task| {
                let (desired, reason) = fate(view, &slot, task, done)?;
                Some((task, desired, reason))
            })
            .collect();
        if changes.is_empty() {
            continue;
        }
        if !steps.take_room() {
            return;
        }
        for (task, desired, reason) in changes {
            steps.set(task, desired, reason);
        }
    }
}

fn fate(
    view: &View<'_>,
    slot: &Slot<'_>,
    task: &Task,
    done: Option<&Task>,
) -> Option<(Desired, Reason)> {
    if task.desired == Desired::Remove {
        return None;
    }
    if task.revision != view.service.revision {
        return Some((Desired::Remove, Reason::NewRun));
    }
    if let Mode::ReplicatedJob { completions, .. } = view.service.spec.mode
        && slot.number() > completions
    {
        return Some((Desired::Remove, Reason::ScaleDown));
    }
    let done = done.filter(|_| task.is_wanted())?;
    if done.id == task.id {
        return Some((Desired::Complete, Reason::Completed));
    }
    // One that was given up did end well before its successor had.
    Some((Desired::Shutdown, Reason::Completed))
}

/// Ends the run when there is nothing left to do or to wait for, and the job when its time to live
/// is over.
pub(crate) fn conclude(view: &View<'_>, steps: &mut Steps) {
    let (run, policy) = (view.service.run, &view.service.spec.job);
    if run.finished_at_ms != 0 {
        stop_all(view, run.outcome, steps);
        if let Some(ttl_ms) = policy.ttl_after_finished_ms {
            let at_ms = run.finished_at_ms.saturating_add(ttl_ms);
            if at_ms <= view.now_ms {
                steps.change(cron::remove(view.service));
            } else {
                steps.wake_at(at_ms);
            }
        }
        return;
    }
    let mut outcome = outcome(view);
    if let Some(max_ms) = policy.max_run_duration_ms.filter(|_| outcome.is_none()) {
        let at_ms = run.started_at_ms.saturating_add(max_ms);
        if at_ms <= view.now_ms {
            outcome = Some(JobOutcome::TimedOut);
        } else {
            steps.wake_at(at_ms);
        }
    }
    let Some(outcome) = outcome else { return };
    stop_all(view, outcome, steps);
    steps.change(Change::FinishJob {
        service: view.service.id,
        started_at_ms: run.started_at_ms,
        outcome,
    });
}

/// Nothing of a finished run goes on or is tried again.
fn stop_all(view: &View<'_>, outcome: JobOutcome, steps: &mut Steps) {
    let reason = match outcome {
        JobOutcome::TimedOut => Reason::TimedOut,
        JobOutcome::Succeeded => Reason::Completed,
        JobOutcome::Failed | JobOutcome::Unfinished => Reason::Exhausted,
    };
    for task in view.slots.iter().flat_map(|slot| slot.tasks()).filter(|task| task.is_wanted()) {
        if task.status.state == Observed::Complete {
            continue;
        }
        if !steps.take_room() {
            return;
        }
        steps.set(task, Desired::Shutdown, reason.clone());
    }
}

/// How the run ended, if it did: every slot is done, or spent and nothing else is under way.
fn outcome(view: &View<'_>) -> Option<JobOutcome> {
    let (mut done, mut spent) = (0usize, 0usize);
    for slot in view.slots.iter() {
        // Slots beyond the completions are on their way out.
        if matches!(view.service.spec.mode, Mode::ReplicatedJob { completions, .. }
            if slot.number() > completions)
        {
            continue;
        }
        if view.done(&slot).is_some() {
            done += 1;
        } else if slot.lead().is_some() {
            return None;
        } else if slot.exhausted().is_some_and(|last| last.revision == view.service.revision) {
            spent += 1;
        }
    }
    let wanted = match view.service.spec.mode {
        Mode::ReplicatedJob { completions, .. } => completions as usize,
        Mode::GlobalJob => {
            // With no node at all there is nothing to succeed at yet.
            (done + spent + global::vacant(view)).max(1)
        }
        Mode::Replicated { .. } | Mode::Global => return None,
    };
    if done >= wanted && spent == 0 {
        Some(JobOutcome::Succeeded)
    } else {
        (done + spent >= wanted).then_some(JobOutcome::Failed)
    }
}

/// Starts slots in order, as many at once as are asked for. A slot keeps its place while its next
/// attempt waits, and until the last of its tasks has stopped.
pub(crate) fn start(view: &View<'_>, steps: &mut Steps) {
    let Mode::ReplicatedJob { completions, max_concurrent } = view.service.spec.mode else {
        return;
    };
    if view.service.run.finished_at_ms != 0 {
        return;
    }
    let revision = view.service.revision;
    let mut places = if max_concurrent == 0 { u32::MAX } else { max_concurrent };
    let mut known = BTreeMap::new();
    for slot in view.slots.iter() {
        let busy = slot.any_alive(None) || (view.done(&slot).is_none() && slot.lead().is_some());
        places = places.saturating_sub(u32::from(busy));
        known.insert(slot.number(), slot);
    }
    for number in 1..=completions {
        let slot = known.get(&number);
        let settled = |slot: &Slot<'_>| view.occupied(slot) || view.done(slot).is_some();
        if slot.is_some_and(settled) {
            continue;
        }
        let alive = slot.is_some_and(|slot| slot.any_alive(None));
        if !alive {
            if places == 0 {
                continue;
            }
            places -= 1;
        }
        if !steps.take_room() {
            return;
        }
        let desired = if alive { Desired::Ready } else { Desired::Running };
        steps.create(revision, NewTask { desired, ..NewTask::new(number, Reason::ScaleUp) });
    }
}
