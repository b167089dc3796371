//! History: each slot keeps its last few tasks, slots that are gone keep none.
//!
//! Tasks of removed services need nothing from here, `apply` forgets them as they end.

use cluster_model::{Desired, Task};

use crate::global;
use crate::slots::{Slot, Steps, View, age};

/// Tasks kept per slot, the present one included.
const KEPT: usize = 5;

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    let revision = view.service.revision;
    for slot in view.slots.iter() {
        let done = view.done(&slot).is_some();
        let stays = slot.occupied(revision) || done || global::owned(view, &slot);
        let kept = if stays { KEPT } else { 0 };
        if slot.tasks().count() <= kept {
            continue;
        }
        for task in surplus(view, &slot, kept) {
            if !steps.take_room() {
                return;
            }
            steps.delete(task);
        }
    }
}

/// The oldest tasks beyond what is kept. What still decides something stays: tasks that are not
/// over or not dealt with, and the one that says the slot is spent or done.
fn surplus<'a>(view: &View<'a>, slot: &Slot<'a>, kept: usize) -> Vec<&'a Task> {
    let spent = slot.exhausted(view.service.revision).map(|task| task.id);
    let done = view.done(slot).map(|task| task.id);
    let (mut history, live): (Vec<&Task>, Vec<&Task>) = slot.tasks().partition(|task| {
        task.status.state.is_terminal()
            && task.desired > Desired::Running
            && Some(task.id) != spent
            && Some(task.id) != done
    });
    history.sort_unstable_by_key(|task| age(task));
    let surplus = history.len().saturating_sub(kept.saturating_sub(live.len()));
    history.truncate(surplus);
    history
}
