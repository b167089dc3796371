//! Rollouts: slots move from one revision to another, within the bounds of the update policy.
//!
//! The rollout itself is an object on the service; what it has done so far is read from the tasks,
//! so a new leader goes on where the last one was. Three stages, in this order:
//!
//! - `pairs`: what becomes of two tasks beside each other in a slot (start first, canaries);
//! - `judge`: counts progress and failures, and says whether the rollout goes on, waits, pauses,
//!   goes back or is complete;
//! - `advance`: moves the next slots, as many as there are free lanes.
//!
//! They know slots only, not modes; jobs have no rollouts. Slots that are outdated although the last
//! rollout is over (a node changed since, a late proposal) move under the same bounds, unjudged.

mod canary;
mod failure;
mod judge;
mod lanes;
mod pairs;
mod room;
mod survey;

use cluster_model::service::RolloutState;
use cluster_model::{Rollout, Task};

use crate::drain;
use crate::slots::View;

pub(crate) use failure::first as first_failure;
pub(crate) use judge::plan as judge;
pub(crate) use lanes::plan as advance;
pub(crate) use pairs::plan as pairs;

/// A task beside the slot's holder is wanted: the holder is outdated and stays where it is, and the
/// update has not been found bad.
pub(crate) fn wants_beside(view: &View<'_>, holder: &Task) -> bool {
    view.is_outdated(holder)
        && drain::must_move(view.state, view.service, holder).is_none()
        && state(view) != Some(RolloutState::Paused)
}

fn state(view: &View<'_>) -> Option<RolloutState> {
    view.service.rollout.as_ref().map(|rollout| rollout.state)
}

/// The rollout that is under way, steered or not.
fn unfinished<'a>(view: &View<'a>) -> Option<&'a Rollout> {
    view.service.rollout.as_ref().filter(|rollout| !rollout.state.is_over())
}

/// Slots may move.
fn moves(view: &View<'_>) -> bool {
    match state(view) {
        Some(RolloutState::Running | RolloutState::Completed) | None => true,
        Some(
            RolloutState::AwaitingPromotion | RolloutState::PausedByUser | RolloutState::Paused,
        ) => false,
    }
}
