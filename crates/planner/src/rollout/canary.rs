//! Canaries: slots that try the new revision beside the old one, before any old task is stopped.

use cluster_model::Task;
use cluster_model::service::RolloutState;

use super::lanes::beside;
use super::state;
use super::survey::{Standing, Survey, due};
use crate::slots::{Steps, View};

/// How the canaries do.
pub(super) enum Canaries {
    /// All of them have run long enough.
    Good(u32),
    /// They will have then, if nothing happens.
    Until(u64),
    /// Some are missing or not well.
    NotYet,
}

/// As many canaries as asked for, in slots whose old task runs if there are enough of them.
pub(super) fn plan(view: &View<'_>, survey: &Survey<'_>, steps: &mut Steps) {
    match state(view) {
        Some(RolloutState::Running | RolloutState::AwaitingPromotion) => {}
        Some(RolloutState::PausedByUser | RolloutState::Paused | RolloutState::Completed)
        | None => return,
    }
    let lacking = wanted(view, survey).saturating_sub(canaries(view, survey).count());
    let mut candidates: Vec<(&Task, &Standing<'_>)> = survey
        .slots
        .iter()
        .filter(|standing| standing.outdated && !is_canary(view, standing))
        .filter(|standing| !standing.must_leave_node(view))
        .filter_map(|standing| Some((standing.slot.holder()?, standing)))
        .collect();
    candidates.sort_unstable_by_key(|(holder, _)| (!view.up(holder), holder.slot));
    for (holder, standing) in candidates.into_iter().take(lacking) {
        if !steps.take_room() {
            return;
        }
        beside(&standing.slot, holder, view.service.revision, steps);
    }
}

pub(super) fn look(view: &View<'_>, survey: &Survey<'_>) -> Canaries {
    let mut good = 0;
    let mut until_ms = 0;
    for standing in canaries(view, survey) {
        let Some(task) = standing.current.filter(|task| task.serves()) else {
            return Canaries::NotYet;
        };
        let monitor_ms = view.service.update_policy().monitor_ms;
        until_ms = until_ms.max(due(view, task.status.started_at_ms, monitor_ms).unwrap_or(0));
        good += 1;
    }
    if good < wanted(view, survey) {
        return Canaries::NotYet;
    }
    match until_ms {
        0 => Canaries::Good(u32::try_from(good).unwrap_or(u32::MAX)),
        at_ms => Canaries::Until(at_ms),
    }
}

/// Never more than there are slots to move.
fn wanted(view: &View<'_>, survey: &Survey<'_>) -> usize {
    let asked = usize::try_from(view.service.canaries()).unwrap_or(usize::MAX);
    let movable = |s: &&Standing<'_>| s.outdated || is_canary(view, s);
    asked.min(survey.slots.iter().filter(movable).count())
}

fn canaries<'s, 'a>(
    view: &'s View<'a>,
    survey: &'s Survey<'a>,
) -> impl Iterator<Item = &'s Standing<'a>> {
    survey.slots.iter().filter(|standing| is_canary(view, standing))
}

/// The slot has, or had to its last attempt, a task of the new revision.
pub(super) fn is_canary(view: &View<'_>, standing: &Standing<'_>) -> bool {
    standing.new_task(view).is_some() || standing.is_spent(view)
}
