//! The verdict on a rollout: counts what came up and what failed, and says how it goes on.
//!
//! Failures are weighed first: the share of slots that failed against the policy's ratio, then the
//! circuit breaker (nothing of the revision ever ran, after so many attempts). Then whether all is
//! done, whether canaries wait for a word, and at last whether it has been stuck for too long.

mod failing;

use std::sync::Arc;

use cluster_model::service::{RolloutKind, RolloutState};
use cluster_model::spec::FailureAction;
use cluster_model::{Rollout, Task};

use super::canary::{self, Canaries};
use super::survey::{Standing, Survey, due};
use crate::slots::{Steps, View};

enum Verdict {
    Goes,
    /// The policy's failure action, which may be to go on.
    Failed(String),
    /// The same, but going on would come to nothing.
    Hopeless(String),
    Enters(RolloutState, String),
    Promoted(String),
}

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    let Some(read) = &view.service.rollout else { return };
    match read.state {
        RolloutState::Running | RolloutState::AwaitingPromotion => {}
        RolloutState::PausedByUser | RolloutState::Paused | RolloutState::Completed => return,
    }
    let mut rollout = read.clone();
    if read.progress_at_ms == 0 {
        // It was begun or steered through another manager, whose clock may differ.
        rollout.started_at_ms = view.now_ms;
        rollout.since_ms = view.now_ms;
        rollout.progress_at_ms = view.now_ms;
        return write(view, rollout, steps);
    }
    let survey = Survey::of(view);
    let failed = u32::try_from(survey.failed().count()).unwrap_or(u32::MAX);
    rollout.failures = rollout.failures.max(failed);
    let done = done(view, &survey, read);
    if done > rollout.done {
        rollout.done = done;
        rollout.progress_at_ms = view.now_ms;
    }
    let policy = view.service.update_policy();
    match verdict(view, &survey, &rollout, steps) {
        Verdict::Goes => {}
        Verdict::Failed(why) => match policy.failure_action {
            FailureAction::Continue => {}
            FailureAction::Pause => pause(view, &mut rollout, why),
            FailureAction::Rollback => return give_up(view, rollout, why, steps),
        },
        Verdict::Hopeless(why) => match policy.failure_action {
            FailureAction::Continue | FailureAction::Pause => pause(view, &mut rollout, why),
            FailureAction::Rollback => return give_up(view, rollout, why, steps),
        },
        Verdict::Enters(state, why) => enter(view, &mut rollout, state, why),
        Verdict::Promoted(why) => {
            rollout.promoted = true;
            rollout.progress_at_ms = view.now_ms;
            enter(view, &mut rollout, RolloutState::Running, why);
        }
    }
    write(view, rollout, steps);
}

fn write(view: &View<'_>, rollout: Rollout, steps: &mut Steps) {
    if view.service.rollout.as_ref() != Some(&rollout) {
        steps.set_rollout(view, rollout);
    }
}

fn enter(view: &View<'_>, rollout: &mut Rollout, state: RolloutState, why: String) {
    rollout.state = state;
    rollout.since_ms = view.now_ms;
    rollout.message = why.into();
}

fn pause(view: &View<'_>, rollout: &mut Rollout, why: String) {
    enter(view, rollout, RolloutState::Paused, why);
}

/// Back to where an update came from; what cannot go back pauses, so a rollback that fails never
/// goes round in circles.
fn give_up(view: &View<'_>, mut rollout: Rollout, why: String, steps: &mut Steps) {
    let kept = view.service.revisions.contains_key(&rollout.from);
    if rollout.kind == RolloutKind::Update && kept {
        steps.roll_back(view, Arc::from(why));
    } else {
        pause(view, &mut rollout, why);
        write(view, rollout, steps);
    }
}

/// Slots that run the new revision. A rollback finds some that always did.
fn done(view: &View<'_>, survey: &Survey<'_>, rollout: &Rollout) -> u32 {
    let new = |task: &Task| match rollout.kind {
        RolloutKind::Update => true,
        RolloutKind::Rollback => task.created_at_ms >= rollout.started_at_ms,
    };
    let counts = |standing: &&Standing<'_>| {
        standing.new_task(view).is_some_and(|task| task.serves() && new(task))
    };
    u32::try_from(survey.slots.iter().filter(counts).count()).unwrap_or(u32::MAX)
}

fn verdict(view: &View<'_>, survey: &Survey<'_>, rollout: &Rollout, steps: &mut Steps) -> Verdict {
    if let Some(why) = failing::too_many(view, survey, rollout) {
        return Verdict::Failed(why);
    }
    if let Some(why) = failing::never_ran(survey, rollout) {
        return Verdict::Hopeless(why);
    }
    match completion(view, survey) {
        Completion::Done => {
            return Verdict::Enters(RolloutState::Completed, completed(survey, rollout));
        }
        Completion::Until(at_ms) => {
            steps.wake_at(at_ms);
            return Verdict::Goes;
        }
        Completion::NotYet => {}
    }
    if view.service.canaries() > 0 {
        match canary::look(view, survey) {
            Canaries::Good(count) => return good_canaries(view, rollout, count),
            Canaries::Until(at_ms) => {
                steps.wake_at(at_ms);
                return Verdict::Goes;
            }
            Canaries::NotYet => {}
        }
        if rollout.state == RolloutState::AwaitingPromotion {
            return Verdict::Goes;
        }
    } else if rollout.state == RolloutState::AwaitingPromotion {
        let why = "goes on: the policy asks for no canaries any more".to_owned();
        return Verdict::Enters(RolloutState::Running, why);
    }
    failing::stuck(view, survey, rollout, steps).map_or(Verdict::Goes, Verdict::Hopeless)
}

enum Completion {
    Done,
    Until(u64),
    NotYet,
}

/// Every slot has moved, and what came up has stayed up. Slots that failed were weighed before.
fn completion(view: &View<'_>, survey: &Survey<'_>) -> Completion {
    let mut until_ms = 0;
    for standing in &survey.slots {
        if standing.outdated || standing.slot.newcomer().is_some() {
            return Completion::NotYet;
        }
        match standing.current {
            Some(task) if task.serves() => {
                let monitor_ms = view.service.update_policy().monitor_ms;
                let due_ms = due(view, task.status.started_at_ms, monitor_ms);
                until_ms = until_ms.max(due_ms.unwrap_or(0));
            }
            Some(_) if standing.failure.is_none() && !standing.waits_for_room() => {
                return Completion::NotYet;
            }
            Some(_) | None => {}
        }
    }
    if until_ms == 0 { Completion::Done } else { Completion::Until(until_ms) }
}

fn completed(survey: &Survey<'_>, rollout: &Rollout) -> String {
    let down = survey.slots.iter().filter(|standing| !standing.healthy).count();
    match down {
        0 => format!("all slots run revision {}", rollout.to),
        _ => format!("all slots have revision {}, {down} of them do not run", rollout.to),
    }
}

fn good_canaries(view: &View<'_>, rollout: &Rollout, count: u32) -> Verdict {
    let told = |word: &str| match count {
        1 => format!("1 canary {word}"),
        _ => format!("{count} canaries {word}"),
    };
    if view.service.update_policy().auto_promote {
        return Verdict::Promoted(told("promoted: healthy"));
    }
    match rollout.state {
        RolloutState::AwaitingPromotion => Verdict::Goes,
        RolloutState::Running
        | RolloutState::PausedByUser
        | RolloutState::Paused
        | RolloutState::Completed => {
            Verdict::Enters(RolloutState::AwaitingPromotion, told("healthy"))
        }
    }
}
