//! What speaks for giving a rollout up, each with the reason in words.

use cluster_model::spec::FailureAction;
use cluster_model::spec::rollout::PPM;
use cluster_model::{Desired, Rollout};

use super::super::canary;
use super::super::survey::{Standing, Survey};
use crate::slots::{Slot, Steps, View};

/// Attempts after which a revision that never ran is given up: half the slots, within these.
const BREAKER: (u32, u32) = (3, 200);

/// More slots failed than the policy allows.
pub(super) fn too_many(view: &View<'_>, survey: &Survey<'_>, rollout: &Rollout) -> Option<String> {
    let policy = view.service.update_policy();
    let share = u64::from(rollout.failures) * u64::from(PPM);
    let allowed = u64::from(rollout.total) * u64::from(policy.max_failure_ratio_ppm);
    let last = survey.failed().max_by_key(|failure| failure.last.status.at_ms)?;
    // Where failures are no reason to stop, none is looked for.
    let stops = policy.failure_action != FailureAction::Continue;
    (stops && share > allowed)
        .then(|| format!("{} of {} slots failed; {}", rollout.failures, rollout.total, last.told()))
}

/// The circuit breaker: nothing of the revision ever ran, after so many attempts.
pub(super) fn never_ran(survey: &Survey<'_>, rollout: &Rollout) -> Option<String> {
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

/// Something is to be done, and nothing has come up for too long or ever will.
pub(super) fn stuck(
    view: &View<'_>,
    survey: &Survey<'_>,
    rollout: &Rollout,
    steps: &mut Steps,
) -> Option<String> {
    // Nobody but the canaries moves before they are promoted.
    let tried =
        |standing: &Standing<'_>| view.service.canaries() == 0 || canary::is_canary(view, standing);
    let mut open =
        survey.slots.iter().filter(|s| tried(s) && !s.healthy && !s.waits_for_room()).peekable();
    let spent = |standing: &Standing<'_>| standing.current.is_none() && standing.is_spent(view);
    if open.peek().is_some() && open.all(spent) {
        let why = survey.failed().last().map_or_else(String::new, |last| last.told());
        return Some(format!("the restart policy allows no other attempt; {why}"));
    }
    let policy = view.service.update_policy();
    let deadline_ms = policy.progress_deadline_ms?;
    // A slot may not begin before its delay is over, and a task that is stopped has its time to end.
    let stops = |slot: &Slot<'_>| {
        slot.tasks().any(|task| task.desired > Desired::Running && task.holds_resources())
    };
    let old = view.service.task_spec(rollout.from);
    let old = old.filter(|_| survey.slots.iter().any(|standing| stops(&standing.slot)));
    let ends_ms = old
        .map_or(0, |old| old.drain_timeout_ms.saturating_add(old.container.stop_grace_period_ms));
    let waits_ms = policy.delay_ms.saturating_add(ends_ms);
    // What another leader wrote down by its clock says nothing about the time that has passed: the
    // deadline begins anew with each leader.
    let here_ms = Some(rollout.progress_at_ms).filter(|progress| *progress <= view.now_ms);
    let since_ms = here_ms.unwrap_or(0).max(view.leads_since_ms);
    let at_ms = since_ms.saturating_add(waits_ms).saturating_add(deadline_ms);
    if view.now_ms < at_ms {
        steps.wake_at(at_ms);
        return None;
    }
    Some(format!("no slot came up for {} s; {}", deadline_ms / 1000, hindrance(survey)))
}

/// What keeps the rollout, in words.
fn hindrance(survey: &Survey<'_>) -> String {
    let begun = || survey.slots.iter().filter(|s| !s.healthy && s.current.is_some());
    // A task that failed before has its failure to tell, not that it waits for the next attempt.
    let fresh = begun().filter(|standing| standing.failure.is_none());
    let waiting = fresh.filter_map(|standing| standing.current).find_map(|task| {
        let why = task.status.details.message.as_ref()?;
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
