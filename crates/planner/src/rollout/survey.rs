//! Where each slot stands between two revisions.

use cluster_model::{Reason, Task};

use super::failure::Failure;
use crate::slots::{Slot, View};
use crate::{drain, global};

/// How long tasks of a revision that never ran before must have run before it is given to more.
const PROVEN_MS: u64 = 1_000;
/// The same once one of them failed.
const PROVEN_AFTER_FAILURE_MS: u64 = 10_000;

pub(super) struct Survey<'a> {
    pub slots: Vec<Standing<'a>>,
    /// A task must have run so long before its slot makes way for the next.
    pub settle_ms: u64,
}

pub(super) struct Standing<'a> {
    pub slot: Slot<'a>,
    /// None: the slot is spent.
    pub lead: Option<&'a Task>,
    /// The lead has to make way.
    pub outdated: bool,
    /// The task that is what the service asks for: the lead, or the one beside it. It may have ended
    /// without being followed yet.
    pub current: Option<&'a Task>,
    /// The current task serves, on a node that is heard.
    pub healthy: bool,
    pub failure: Option<Failure<'a>>,
}

impl<'a> Survey<'a> {
    pub fn of(view: &View<'a>) -> Self {
        let slots: Vec<Standing<'a>> = view
            .slots
            .iter()
            .filter(|slot| view.occupied(slot))
            .map(|slot| Standing::of(view, slot))
            // Where the node takes nothing new at present, nothing can move.
            .filter(|standing| !(standing.outdated && global::frozen(view, &standing.slot)))
            .collect();
        let failed = slots.iter().any(|standing| standing.failure.is_some());
        let monitor_ms = view.service.update_policy().monitor_ms;
        let settle_ms = if failed {
            monitor_ms.min(PROVEN_AFTER_FAILURE_MS)
        } else {
            let settle_ms = monitor_ms.min(PROVEN_MS);
            let mut tasks = slots.iter().flat_map(|standing| standing.slot.tasks());
            if tasks.any(|task| has_run(view, task, settle_ms)) { 0 } else { settle_ms }
        };
        Self { slots, settle_ms }
    }

    pub fn failed(&self) -> impl Iterator<Item = &Failure<'a>> {
        self.slots.iter().filter_map(|standing| standing.failure.as_ref())
    }

    pub fn count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }
}

impl<'a> Standing<'a> {
    fn of(view: &View<'a>, slot: Slot<'a>) -> Self {
        let lead = slot.lead();
        let outdated = lead.is_some_and(|lead| view.is_outdated(lead));
        let beside = || slot.newcomer().or_else(|| slot.ended_newcomer());
        let current = match outdated {
            true => beside().filter(|task| !view.is_outdated(task)),
            false => lead,
        };
        let healthy = current.is_some_and(|task| view.serves(task));
        Self { lead, outdated, current, healthy, failure: Failure::of(view, &slot), slot }
    }

    /// The task that the move to the present revision gave the slot. One of an older revision that
    /// is as good as the present one was there before.
    pub fn new_task(&self, view: &View<'_>) -> Option<&'a Task> {
        self.current.filter(|task| self.outdated || task.revision == view.service.revision)
    }

    /// The present revision has no attempt left in this slot.
    pub fn is_spent(&self, view: &View<'_>) -> bool {
        let since_ms = view.service.rollout.as_ref().map_or(0, |rollout| rollout.started_at_ms);
        self.slot.exhausted().is_some_and(|spent| {
            spent.revision == view.service.revision && spent.created_at_ms >= since_ms
        })
    }

    /// A slot of a new or grown service that has not found its first node: nothing is lost by
    /// changing what it waits with, and it says nothing about the revision.
    pub fn never_placed(&self) -> bool {
        self.lead.is_some_and(|task| {
            task.fills_slot() && task.node.is_none() && task.reason == Reason::ScaleUp
        })
    }

    /// The slot is not up, but neither the rollout nor its revision is why: it never had a node, or
    /// it ran what it should until its node was lost, and no other takes it.
    pub fn waits_for_room(&self) -> bool {
        let ran = |task: &Task| task.status.started_at_ms > 0;
        self.current.is_some_and(|current| {
            let moved = matches!(current.reason, Reason::Reschedule(_))
                && unplaced(current)
                && self.slot.tasks().any(|task| task.revision == current.revision && ran(task));
            !self.outdated && (self.never_placed() || moved)
        })
    }

    /// Its holder is another stage's to move first.
    pub fn must_leave_node(&self, view: &View<'_>) -> bool {
        self.lead.is_some_and(|lead| drain::must_move(view.state, view.service, lead).is_some())
    }
}

/// The task runs, or is about to as far as anybody can tell.
pub(super) fn worth_keeping(view: &View<'_>, task: &Task) -> bool {
    if view.silent_node(task).is_some() {
        // Beside what may run on unheard there would be two.
        return false;
    }
    view.up(task) || (task.fills_slot() && task.restarts == 0 && !unplaced(task))
}

/// The scheduler looked and found no node.
pub(super) fn unplaced(task: &Task) -> bool {
    task.fills_slot() && task.node.is_none() && task.status.details.message.is_some()
}

/// A task of the present revision that ran, or has been up, for so long.
fn has_run(view: &View<'_>, task: &Task, span_ms: u64) -> bool {
    let status = &task.status;
    let long = if status.state.is_terminal() {
        status.at_ms.saturating_sub(status.started_at_ms) >= span_ms
    } else {
        task.serves() && due(view, status.started_at_ms, span_ms).is_none()
    };
    long && status.started_at_ms > 0 && task.revision == view.service.revision
}

/// The moment at which something that began then has lasted for a span; none when it has. A clock
/// that is far ahead is not waited for.
pub(super) fn due(view: &View<'_>, begun_ms: u64, span_ms: u64) -> Option<u64> {
    let at_ms = begun_ms.saturating_add(span_ms);
    let wait_ms = at_ms.saturating_sub(view.now_ms);
    (1..=span_ms.saturating_mul(2)).contains(&wait_ms).then_some(at_ms)
}
