//! History: each slot keeps its last few tasks, slots that are gone keep none.
//!
//! Tasks of removed services need nothing from here, `apply` forgets them as they end.

use cluster_model::{Desired, Task};

use crate::slots::{Slot, Steps, View, age};
use crate::{global, rollout};

/// Tasks kept per slot, the present one included.
const KEPT: usize = 5;
/// The same where the restart policy counts the attempts of a window.
const KEPT_OF_WINDOW: usize = 51;

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    let most = kept(view);
    for slot in view.slots.iter() {
        let done = view.done(&slot).is_some();
        let stays = view.occupied(&slot) || done || global::owned(view, &slot);
        let kept = if stays { most } else { 0 };
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

/// Attempts of a window are counted over the history, so it has to reach that far.
fn kept(view: &View<'_>) -> usize {
    let counted = view
        .service
        .task_spec(view.service.revision)
        .map(|spec| spec.restart)
        .filter(|policy| policy.window_ms.is_some())
        .and_then(|policy| policy.max_attempts)
        .map_or(0, |max| usize::try_from(max).unwrap_or(usize::MAX).saturating_add(1));
    counted.clamp(KEPT, KEPT_OF_WINDOW)
}

/// The oldest tasks beyond what is kept. What still decides something stays: tasks that are not
/// over or not dealt with, the ones that say the slot is spent or done, and the first that failed in
/// the present rollout.
fn surplus<'a>(view: &View<'a>, slot: &Slot<'a>, kept: usize) -> Vec<&'a Task> {
    let telling = [
        slot.exhausted(),
        slot.completed(view.service.revision),
        view.done(slot),
        rollout::first_failure(view, slot),
    ];
    let tells = |task: &Task| telling.iter().flatten().any(|telling| telling.id == task.id);
    let (mut history, live): (Vec<&Task>, Vec<&Task>) = slot.tasks().partition(|task| {
        let decides = kept > 0 && tells(task);
        task.status.state.is_terminal() && task.desired > Desired::Running && !decides
    });
    history.sort_unstable_by_key(|task| age(task));
    let surplus = history.len().saturating_sub(kept.saturating_sub(live.len()));
    history.truncate(surplus);
    history
}
