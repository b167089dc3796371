//! Updates: slots move to the service's revision one at a time, gated by health.
//!
//! Stop first: the old task is shut down, its successor prepared and told to run once the old one
//! is gone. The next slot follows when every task of the new revision runs and has done so for a
//! moment, so a revision that does not come up costs one slot, the one it was tried on. Slots that
//! do not run anyway go first. A still newer revision simply makes the unfinished replacement an
//! old one that does not run.

use cluster_model::{Desired, NewTask, Observed, Reason, Task};

use crate::Note;
use crate::global;
use crate::slots::{Slot, Steps, View};

/// How long a replacement must have run before it counts.
const SETTLED_MS: u64 = 1_000;
/// The same when this revision already failed in the slot.
const SETTLED_AFTER_FAILURE_MS: u64 = 10_000;

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    let current = view.service.revision;
    let is_old = |slot: &Slot<'_>| {
        slot.lead().is_some_and(|lead| lead.revision != current) && !global::frozen(view, slot)
    };
    if !view.slots.iter().any(|slot| is_old(&slot)) {
        return;
    }
    for slot in view.slots.iter().filter(is_old) {
        if let Some(lead) = slot.lead().filter(|lead| never_placed(lead)) {
            if !steps.take_room() {
                return;
            }
            replace(view, &slot, lead, Reason::ScaleUp, steps);
        }
    }
    if let Some(slot) = view.slots.iter().find(|slot| comes_up(view, slot, current)) {
        steps.note(Note::RolloutWaits { service: view.service.id, slot: slot.number() });
        return;
    }
    let settled_at_ms =
        view.slots.iter().filter_map(|slot| settles_at_ms(view, slot.holder()?)).max();
    if let Some(at_ms) = settled_at_ms {
        steps.wake_at(at_ms);
        return;
    }
    let next = view
        .slots
        .iter()
        .filter(is_old)
        .filter_map(|slot| Some((slot.lead().filter(|lead| !never_placed(lead))?, slot)))
        .min_by_key(|(lead, slot)| (view.up(lead), slot.number()));
    if let Some((lead, slot)) = next
        && steps.take_room()
    {
        replace(view, &slot, lead, Reason::Update, steps);
    }
}

/// A slot of a new or grown service that has not found its first node: nothing is lost by
/// changing what it waits with, and it says nothing about the revision.
fn never_placed(task: &Task) -> bool {
    task.fills_slot() && task.node.is_none() && task.reason == Reason::ScaleUp
}

/// The slot has the current revision, but it does not run there (yet, or ever).
fn comes_up(view: &View<'_>, slot: &Slot<'_>, current: u32) -> bool {
    match slot.lead() {
        Some(lead) => lead.revision == current && !view.up(lead) && !never_placed(lead),
        // A task that was to end by itself and did has come up.
        None => slot.exhausted(current).is_some_and(|last| last.status.state != Observed::Complete),
    }
}

/// When a task of the current revision that runs will have run long enough; none when it has. The
/// agent's clock says since when: one that is far ahead is not waited for.
fn settles_at_ms(view: &View<'_>, task: &Task) -> Option<u64> {
    if task.revision != view.service.revision || !view.up(task) {
        return None;
    }
    let span = if task.restarts == 0 { SETTLED_MS } else { SETTLED_AFTER_FAILURE_MS };
    let at_ms = task.status.started_at_ms.saturating_add(span);
    let wait_ms = at_ms.saturating_sub(view.now_ms);
    (1..=2 * span).contains(&wait_ms).then_some(at_ms)
}

fn replace(view: &View<'_>, slot: &Slot<'_>, lead: &Task, reason: Reason, steps: &mut Steps) {
    steps.set(lead, Desired::Shutdown, Reason::Update);
    let desired = if slot.any_alive() { Desired::Ready } else { Desired::Running };
    let task = NewTask { desired, target: lead.target, ..NewTask::new(slot.number(), reason) };
    steps.create(view.service.revision, task);
}
