//! The verdict on a rollout: counts what came up and what failed, and says how it goes on.
//!
//! Failures are weighed first: the share of slots that failed against the policy's ratio, then the
//! circuit breaker (nothing of the revision ever ran, after so many attempts). Then whether all is
//! done, whether canaries wait for a word, and at last whether it has been stuck for too long.

use std::sync::Arc;

use cluster_model::service::{RolloutKind, RolloutState};
use cluster_model::spec::FailureAction;
use cluster_model::spec::rollout::PPM;
use cluster_model::{Rollout, Task};

use super::canary::{self, Canaries};
use super::survey::{Standing, Survey, due};
use crate::slots::{Steps, View};

/// Attempts after which a revision that never ran is given up: half the slots, within these.
const BREAKER: (u32, u32) = (3, 200);

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
    let survey = Survey::of(view);
    let mut rollout = read.clone();
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
    if let Some(why) = too_many_failed(view, survey, rollout) {
        return Verdict::Failed(why);
    }
    if let Some(why) = never_ran(survey, rollout) {
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
            Canaries::Until(at_ms) if rollout.state == RolloutState::Running => {
                steps.wake_at(at_ms);
            }
            Canaries::Until(_) | Canaries::NotYet => {}
        }
        if rollout.state == RolloutState::AwaitingPromotion {
            return Verdict::Goes;
        }
    } else if rollout.state == RolloutState::AwaitingPromotion {
        let why = "goes on: the policy asks for no canaries any more".to_owned();
        return Verdict::Enters(RolloutState::Running, why);
    }
    stuck(view, survey, rollout, steps)
}

fn too_many_failed(view: &View<'_>, survey: &Survey<'_>, rollout: &Rollout) -> Option<String> {
    let policy = view.service.update_policy();
    let share = u64::from(rollout.failures) * u64::from(PPM);
    let allowed = u64::from(rollout.total) * u64::from(policy.max_failure_ratio_ppm);
    let last = survey.failed().max_by_key(|failure| failure.last.status.at_ms)?;
    // Where failures are no reason to stop, none is looked for.
    let stops = policy.failure_action != FailureAction::Continue;
    (stops && share > allowed)
        .then(|| format!("{} of {} slots failed; {}", rollout.failures, rollout.total, last.told()))
}

fn never_ran(survey: &Survey<'_>, rollout: &Rollout) -> Option<String> {
    let mut tasks = survey.slots.iter().flat_map(|standing| standing.slot.tasks());
    let ran = tasks.any(|task| {
        task.revision == rollout.to
            && (task.serves()
                || task.created_at_ms >= rollout.started_at_ms && task.status.started_at_ms > 0)
    });
    let attempts = survey.failed().fold(0u32, |sum, f| sum.saturating_add(f.attempts()));
    let bound = survey.count().div_ceil(2).clamp(BREAKER.0, BREAKER.1);
    let last = survey.failed().max_by_key(|failure| failure.last.status.at_ms)?;
    (!ran && attempts >= bound).then(|| {
        format!("no task of revision {} ran in {attempts} attempts; {}", rollout.to, last.told())
    })
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
    let down = survey.slots.iter().filter(|standing| !standing.is_healthy()).count();
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

/// Something is to be done, and nothing has come up for too long or ever will.
fn stuck(view: &View<'_>, survey: &Survey<'_>, rollout: &Rollout, steps: &mut Steps) -> Verdict {
    // Nobody but the canaries moves before they are promoted.
    let tried =
        |standing: &Standing<'_>| view.service.canaries() == 0 || canary::is_canary(view, standing);
    let mut open = survey
        .slots
        .iter()
        .filter(|s| tried(s) && !s.is_healthy() && !s.waits_for_room())
        .peekable();
    let spent = |standing: &Standing<'_>| standing.current.is_none() && standing.is_spent(view);
    if open.peek().is_some() && open.all(spent) {
        let why = survey.failed().last().map_or_else(String::new, |last| last.told());
        return Verdict::Hopeless(format!("the restart policy allows no other attempt; {why}"));
    }
    let policy = view.service.update_policy();
    let Some(deadline_ms) = policy.progress_deadline_ms else { return Verdict::Goes };
    // A slot may not begin before its delay is over.
    let at_ms = rollout.progress_at_ms.saturating_add(policy.delay_ms).saturating_add(deadline_ms);
    if view.now_ms < at_ms {
        steps.wake_at(at_ms);
        return Verdict::Goes;
    }
    Verdict::Hopeless(format!(
        "no slot came up for {} s; {}",
        deadline_ms / 1000,
        hindrance(survey)
    ))
}

/// What keeps the rollout, in words.
fn hindrance(survey: &Survey<'_>) -> String {
    let begun = || survey.slots.iter().filter(|s| !s.is_healthy() && s.current.is_some());
    let waiting = begun().filter_map(|s| s.current).find_map(|task| {
        let why = task.status.message.as_ref()?;
        Some(format!("slot {} waits: {why}", task.slot))
    });
    let failed = || survey.failed().last().map(|failure| failure.told());
    let coming = || {
        let task = begun().find_map(|standing| standing.current)?;
        Some(format!("task {} of slot {} is {}, not ready", task.id, task.slot, task.status.state))
    };
    waiting
        .or_else(failed)
        .or_else(coming)
        .unwrap_or_else(|| "the slots that are left wait for others".to_owned())
}
