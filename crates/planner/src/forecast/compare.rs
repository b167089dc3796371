//! What differs between two states, slot by slot.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_model::task::Moved;
use cluster_model::{NodeId, Observed, Reason, ServiceId, State, Task};

use super::{Effect, Forecast};
use crate::slots::age;

type Slots<'a> = BTreeMap<(ServiceId, u32), &'a Task>;

pub(super) fn compare(before: &State, after: &State) -> Forecast {
    let mut forecast = Forecast::default();
    let (old, new) = (holders(before), holders(after));
    for (key, task) in &old {
        match new.get(key) {
            Some(next) => changed(before, after, task, next, &mut forecast),
            None => gone(before, after, task, &mut forecast),
        }
    }
    for (key, task) in new.iter().filter(|(key, _)| !old.contains_key(key)) {
        let ran_before = before.tasks_of_slot(key.0, key.1).any(|old| old.id == task.id);
        if !ran_before {
            begun(after, task, None, &mut forecast);
        }
    }
    forecast
}

/// The task of each slot: the newest that fills it, or that completed it.
fn holders(state: &State) -> Slots<'_> {
    let mut slots = Slots::new();
    for task in state.tasks() {
        let completion = || {
            let job = state.service(task.service).is_some_and(|s| s.spec.mode.is_job());
            job && task.status.state == Observed::Complete
        };
        if !(task.fills_slot() || completion()) {
            continue;
        }
        let best = slots.entry((task.service, task.slot)).or_insert(task);
        if age(task) > age(best) {
            *best = task;
        }
    }
    slots
}

fn gone(before: &State, after: &State, task: &Task, forecast: &mut Forecast) {
    let Some(from) = task.node.filter(|_| task.fills_slot()) else { return };
    let reason = match after.task(task.id) {
        Some(ended) if !ended.fills_slot() => ended.reason.clone(),
        _ if after.service(task.service).is_none_or(|service| service.removed) => {
            Reason::ServiceRemoved
        }
        _ => Reason::ScaleDown,
    };
    let lost = effect(before, task, Some(from), None, reason.to_string().into());
    match reason {
        Reason::Reschedule(Moved::Preempted) => forecast.preempted.push(lost),
        _ => forecast.stopped.push(lost),
    }
}

fn changed(before: &State, after: &State, task: &Task, next: &Task, forecast: &mut Forecast) {
    if task.id == next.id {
        // It found its node, or ran to its end.
        if task.node.is_none() {
            begun(after, next, Some(task), forecast);
        }
        return;
    }
    let Some(from) = task.node.filter(|_| task.fills_slot()) else {
        begun(after, next, Some(task), forecast);
        return;
    };
    if next.reason == Reason::Reschedule(Moved::Preempted) {
        let why = next.reason.to_string().into();
        forecast.preempted.push(effect(before, task, Some(from), next.node, why));
    }
    match next.node {
        None => begun(after, next, Some(task), forecast),
        Some(to) => {
            let why = next.reason.to_string().into();
            let moved = effect(before, task, Some(from), Some(to), why);
            if from == to {
                forecast.replaced.push(moved);
            } else {
                forecast.moved.push(moved);
            }
        }
    }
}

/// A slot has a task that it had not, or one that waits as none did before.
fn begun(after: &State, task: &Task, before: Option<&Task>, forecast: &mut Forecast) {
    if task.node.is_some() {
        let why = task.reason.to_string().into();
        forecast.started.push(effect(after, task, None, task.node, why));
        return;
    }
    if before.is_none_or(|before| before.node.is_some()) {
        let why = task.status.details.message.clone();
        let why = why.unwrap_or_else(|| "waits for a node".into());
        let from = before.and_then(|before| before.node);
        forecast.pending.push(effect(after, task, from, None, why));
    }
}

fn effect(
    state: &State,
    task: &Task,
    from: Option<NodeId>,
    to: Option<NodeId>,
    why: Arc<str>,
) -> Effect {
    let name = state.service(task.service).map(|service| service.spec.name.clone());
    let (service, slot) = (task.service, task.slot);
    Effect { service, name: name.unwrap_or_default(), slot, from, to, why }
}
