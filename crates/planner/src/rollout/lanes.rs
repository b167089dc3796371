//! Lanes: how many slots move at once, and which are next.
//!
//! A lane is taken from the moment a slot begins to move until its new task has been up long enough,
//! or failed. Slots that do not run go first.

use cluster_model::spec::Order;
use cluster_model::{Desired, NewTask, Reason, Task};

use super::survey::{Standing, Survey, due, worth_keeping};
use super::{canary, moves};
use crate::Note;
use crate::slots::{Slot, Steps, View};

enum Lane {
    Free,
    Until(u64),
    Taken,
}

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    let outdated = |slot: &Slot<'_>| slot.lead().is_some_and(|lead| view.is_outdated(lead));
    if view.service.spec.mode.is_job() || !view.slots.iter().any(|slot| outdated(&slot)) {
        return;
    }
    if view.service.canaries() > 0 {
        canary::plan(view, &Survey::of(view), steps);
        return;
    }
    if !moves(view) {
        return;
    }
    let survey = Survey::of(view);
    let (unplaced, waiting): (Vec<&Standing<'_>>, Vec<&Standing<'_>>) = survey
        .slots
        .iter()
        .filter(|standing| standing.outdated && may_begin(view, standing))
        .partition(|standing| standing.never_placed());
    for lead in unplaced.iter().filter_map(|standing| standing.lead) {
        if !steps.take_room() {
            return;
        }
        stop_first(view, lead, Reason::ScaleUp, steps);
    }
    let mut next: Vec<(&Task, &Standing<'_>)> =
        waiting.into_iter().filter_map(|standing| Some((standing.lead?, standing))).collect();
    next.sort_unstable_by_key(|(lead, _)| (view.up(lead), lead.slot));
    let free = free_lanes(view, &survey, !next.is_empty(), steps);
    for (lead, standing) in next.into_iter().take(free) {
        if !steps.take_room() {
            return;
        }
        if start_first(view) && worth_keeping(view, lead) {
            beside(&standing.slot, lead, view.service.revision, steps);
        } else {
            stop_first(view, lead, Reason::Update, steps);
        }
    }
}

fn start_first(view: &View<'_>) -> bool {
    view.service.update_policy().order == Order::StartFirst
}

/// The slot has not begun to move, or may begin again.
fn may_begin(view: &View<'_>, standing: &Standing<'_>) -> bool {
    if standing.slot.newcomer().is_some() || standing.slot.ended_newcomer().is_some() {
        return false;
    }
    // What runs is not given up for what was tried in vain, or about to leave its node anyway.
    let keeps = start_first(view) && standing.lead.is_some_and(|lead| worth_keeping(view, lead));
    !(keeps && (standing.is_spent(view) || standing.must_leave_node(view)))
}

/// Lanes that are free now. When somebody waits for one: says when the next is, or for which slot.
fn free_lanes(view: &View<'_>, survey: &Survey<'_>, awaited: bool, steps: &mut Steps) -> usize {
    let parallelism = view.service.update_policy().parallelism.of(survey.count());
    let lanes = match usize::try_from(parallelism).unwrap_or(usize::MAX) {
        0 => usize::MAX,
        lanes => lanes,
    };
    let mut taken = 0;
    for standing in &survey.slots {
        match lane(view, survey, standing) {
            Lane::Free => continue,
            Lane::Until(at_ms) if awaited => steps.wake_at(at_ms),
            Lane::Taken if awaited => steps.note(Note::RolloutWaits {
                service: view.service.id,
                slot: standing.slot.number(),
            }),
            Lane::Until(_) | Lane::Taken => {}
        }
        taken += 1;
    }
    lanes.saturating_sub(taken)
}

fn lane(view: &View<'_>, survey: &Survey<'_>, standing: &Standing<'_>) -> Lane {
    let delay_ms = view.service.update_policy().delay_ms;
    let until = |begun_ms, span_ms| due(view, begun_ms, span_ms).map_or(Lane::Free, Lane::Until);
    match (standing.current, standing.failure) {
        (Some(task), _) if task.serves() => {
            until(task.status.started_at_ms, delay_ms.max(survey.settle_ms))
        }
        // Moved anew after a pause: what failed before does not speak for it.
        (Some(task), Some(_)) if task.fills_slot() && task.restarts == 0 => Lane::Taken,
        (_, Some(failure)) => until(failure.last.status.at_ms, delay_ms),
        (Some(_), None) if !standing.waits_for_room() => Lane::Taken,
        (_, None) => Lane::Free,
    }
}

fn stop_first(view: &View<'_>, lead: &Task, reason: Reason, steps: &mut Steps) {
    steps.set(lead, Desired::Shutdown, Reason::Update);
    let alive = view.state.tasks_of_slot(lead.service, lead.slot).any(Task::holds_resources);
    let desired = if alive { Desired::Ready } else { Desired::Running };
    let task = NewTask { desired, target: lead.extras.target, ..NewTask::new(lead.slot, reason) };
    steps.create(view.service.revision, task);
}

/// A task of the new revision beside the one that fills the slot.
pub(super) fn beside(slot: &Slot<'_>, holder: &Task, revision: u32, steps: &mut Steps) {
    let alive = slot.any_alive(Some(holder.id));
    let task = NewTask {
        desired: if alive { Desired::Ready } else { Desired::Running },
        target: holder.extras.target,
        beside: Some(holder.id),
        ..NewTask::new(holder.slot, Reason::Update)
    };
    steps.create(revision, task);
}
