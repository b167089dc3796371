//! Drain: tasks leave nodes that are drained or that no longer meet their constraints.
//!
//! Healthy tasks move only as far as the service's budget of slots without one allows: exits are
//! waited for, and replacements until they are well. What is not healthy moves at once, and so does
//! everything left when the drain's deadline has passed or it is forced. Running tasks of jobs are
//! left to finish until then.
//!
//! A drain always ends. When no other node can take a task it still empties the node: the
//! replacement waits and says why, and the tasks behind it leave too. Slots that keep failing, have
//! no hope or take too long to come up hold it no further than to one move at a time.
//!
//! Tasks with a target are not ours: they have nowhere else to go.

use cluster_model::task::Moved;
use cluster_model::{Availability, Desired, NewTask, Node, Reason, Service, State, Task};

use crate::budget::{is_healthy, slots_wanted};
use crate::schedule;
use crate::slots::{Slot, Slots, Steps, View, up};

/// How long a slot that is not healthy is waited for, from the creation of its task.
const PATIENCE_MS: u64 = 10 * 60 * 1000;

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    for leaving in survey(view.state, view.service, view.now_ms) {
        match leaving.verdict {
            Verdict::Now if !steps.take_room() => return,
            Verdict::Now => go(view, &leaving, steps),
            Verdict::Finishes { until_ms } | Verdict::Waits { until_ms, .. } => {
                // Those that are waited for lose hope when others take the last node they could go to.
                if matches!(leaving.verdict, Verdict::Waits { .. }) {
                    steps.mind_others();
                }
                if let Some(at_ms) = until_ms {
                    steps.wake_at(at_ms);
                }
            }
        }
    }
}

/// The task stops; its slot gets a successor unless another task fills it already. A task that
/// started beside another is made again by the rollout it belongs to.
fn go(view: &View<'_>, leaving: &Leaving<'_>, steps: &mut Steps) {
    let task = leaving.task;
    let reason = Reason::Reschedule(leaving.why);
    steps.set(task, Desired::Shutdown, reason.clone());
    let mut others = view.state.tasks_of_slot(task.service, task.slot);
    if others.any(|other| other.id != task.id && other.fills_slot()) {
        return;
    }
    let new = NewTask {
        slot: task.slot,
        desired: Desired::Ready,
        reason,
        not_before_ms: task.extras.not_before_ms,
        restarts: task.restarts,
        target: None,
        beside: None,
    };
    steps.create(task.revision, new);
}

/// A task that must leave its node.
pub(crate) struct Leaving<'a> {
    pub task: &'a Task,
    pub why: Moved,
    pub verdict: Verdict,
}

/// Whether it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Now,
    /// A job's task: it is left to finish.
    Finishes {
        until_ms: Option<u64>,
    },
    /// The service cannot spare more: so many of so many slots are without a healthy task, the
    /// given one among them.
    Waits {
        unhealthy: u32,
        allowed: u32,
        slot: Option<u32>,
        until_ms: Option<u64>,
    },
}

/// The tasks of a service that must leave their nodes: first those that go whatever the others do.
pub(crate) fn survey<'a>(state: &'a State, service: &Service, now_ms: u64) -> Vec<Leaving<'a>> {
    let mut leaving: Vec<(&'a Task, &'a Node, Moved)> = state
        .tasks_of_service(service.id)
        .filter(|task| task.fills_slot() && task.extras.target.is_none())
        .filter_map(|task| {
            let node = state.node(task.node?)?;
            Some((task, node, must_move(state, service, task)?))
        })
        .collect();
    if leaving.is_empty() {
        return Vec::new();
    }
    leaving.sort_by_key(|(task, ..)| is_healthy(state, task));
    let is_job = service.spec.mode.is_job();
    let mut budget = Budget::of(state, service, now_ms);
    let verdict = |(task, node, why): (&'a Task, &'a Node, Moved)| {
        let drained = why == Moved::NodeDrained;
        let policy = node.spec.drain;
        let deadline_ms = policy.deadline_at_ms.filter(|_| drained);
        let forced = drained && policy.force || deadline_ms.is_some_and(|at| at <= now_ms);
        let verdict = if forced {
            Verdict::Now
        } else if is_job && drained && up(task) {
            Verdict::Finishes { until_ms: deadline_ms }
        } else if !is_healthy(state, task) {
            Verdict::Now
        } else {
            budget.take(deadline_ms)
        };
        Leaving { task, why, verdict }
    };
    leaving.into_iter().map(verdict).collect()
}

/// How many healthy tasks may still go.
struct Budget {
    left: u32,
    unhealthy: u32,
    allowed: u32,
    /// When the last of the slots that are waited for is no longer, and which that is.
    coming: Option<(u64, u32)>,
    /// Nothing is won by waiting.
    unbounded: bool,
}

impl Budget {
    fn of(state: &State, service: &Service, now_ms: u64) -> Self {
        let (mut filled, mut healthy) = (0u32, 0u32);
        let mut coming: Option<(u64, u32)> = None;
        let mut unbounded = false;
        for slot in Slots::of(state, service.id).iter().filter(|slot| slot.lead().is_some()) {
            filled += 1;
            if slot.tasks().any(|task| is_healthy(state, task)) {
                healthy += 1;
                continue;
            }
            let Some(holder) = slot.holder() else { continue };
            let nowhere = explained(holder) && schedule::is_hopeless(state, holder);
            unbounded |= nowhere && moving(holder);
            if let Some(until_ms) = hope(&slot, holder, now_ms).filter(|_| !nowhere) {
                coming = coming.max(Some((until_ms, slot.number())));
            }
        }
        let total = slots_wanted(service, filled);
        let unhealthy = total - healthy;
        let allowed = service.spec.max_unavailable.of(total).max(1);
        let left = allowed.saturating_sub(unhealthy);
        // What is broken for good must not hold the drain for ever.
        let left = if coming.is_none() { left.max(1) } else { left };
        Self { left, unhealthy, allowed, coming, unbounded }
    }

    fn take(&mut self, deadline_ms: Option<u64>) -> Verdict {
        if self.unbounded {
            return Verdict::Now;
        }
        if self.left > 0 {
            self.left -= 1;
            self.unhealthy += 1;
            return Verdict::Now;
        }
        let patience_ms = self.coming.map(|(until_ms, _)| until_ms);
        Verdict::Waits {
            unhealthy: self.unhealthy,
            allowed: self.allowed,
            slot: self.coming.map(|(_, slot)| slot),
            until_ms: crate::earlier(patience_ms, deadline_ms),
        }
    }
}

/// Until when an unhealthy slot may be expected to become healthy; none when it was seen to fail,
/// or had its time.
fn hope(slot: &Slot<'_>, holder: &Task, now_ms: u64) -> Option<u64> {
    let newest_ms = slot.newest().map_or(holder.created_at_ms, |task| task.created_at_ms);
    let until_ms = newest_ms.saturating_add(PATIENCE_MS);
    (holder.restarts == 0 && until_ms > now_ms).then_some(until_ms)
}

/// The task replaces one that had to leave its node.
fn moving(task: &Task) -> bool {
    matches!(task.reason, Reason::Reschedule(Moved::NodeDrained | Moved::ConstraintsNotMet))
}

/// The scheduler looked and found no node.
fn explained(task: &Task) -> bool {
    task.node.is_none() && task.status.details.message.is_some()
}

/// Why the task has to leave its node, if it has to.
pub(crate) fn must_move(state: &State, service: &Service, task: &Task) -> Option<Moved> {
    let node = state.node(task.node?)?;
    if node.spec.availability == Availability::Drain {
        return Some(Moved::NodeDrained);
    }
    (!service.may_stay(task.revision, node)).then_some(Moved::ConstraintsNotMet)
}
