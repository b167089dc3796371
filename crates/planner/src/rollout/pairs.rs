//! Two tasks beside each other in a slot: when the old one makes way, and when the newcomer goes.
//!
//! No pair outlives a reason to leave a node: the newcomer goes or takes over, so that what moves
//! tasks between nodes finds one task in a slot.

use cluster_model::{Desired, Reason, Task};

use super::survey::{Survey, due, unplaced, worth_keeping};
use super::{moves, room, unfinished, wants_beside};
use crate::drain;
use crate::slots::{Steps, View};

enum Fate {
    /// Both stay as they are.
    Wait,
    /// The same, until the newcomer has run long enough to be trusted.
    WaitUntil(u64),
    /// The old one goes, the newcomer does its work.
    HandOver,
    /// The old one goes although the newcomer does not run: there is no room for both.
    StopFirst,
    /// The newcomer goes.
    Withdraw,
}

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    let mut cramped = Vec::new();
    let mut settle_ms = None;
    for slot in view.slots.iter() {
        let (Some(old), Some(new)) = (slot.holder(), slot.newcomer()) else { continue };
        let settle_ms = *settle_ms.get_or_insert_with(|| Survey::of(view).settle_ms);
        let fate = fate(view, old, new, settle_ms);
        if !matches!(fate, Fate::Wait | Fate::WaitUntil(_)) && !steps.take_room() {
            break;
        }
        match fate {
            Fate::Wait => {}
            Fate::WaitUntil(at_ms) => steps.wake_at(at_ms),
            Fate::HandOver => steps.set(old, Desired::Shutdown, Reason::Update),
            Fate::StopFirst => {
                steps.set(old, Desired::Shutdown, Reason::Update);
                cramped.push(slot.number());
            }
            Fate::Withdraw => steps.set(new, Desired::Shutdown, Reason::Withdrawn),
        }
    }
    if let Some(rollout) = unfinished(view).filter(|_| !cramped.is_empty()) {
        let mut rollout = rollout.clone();
        rollout.message = told(&cramped).into();
        steps.set_rollout(view, rollout);
    }
}

fn fate(view: &View<'_>, old: &Task, new: &Task, settle_ms: u64) -> Fate {
    let leaves = |task: &Task| drain::must_move(view.state, view.service, task).is_some();
    let canary = view.service.canaries() > 0;
    // There is nothing to keep.
    let lone = !worth_keeping(view, old) && !view.is_outdated(new);
    if lone && !canary && (new.serves() || moves(view)) {
        return Fate::HandOver;
    }
    if leaves(new) || view.is_outdated(new) || !view.is_outdated(old) {
        return Fate::Withdraw;
    }
    if leaves(old) {
        return if new.serves() { Fate::HandOver } else { Fate::Withdraw };
    }
    if new.serves() && !canary {
        let settled = due(view, new.status.started_at_ms, settle_ms).filter(|_| view.up(old));
        return settled.map_or(Fate::HandOver, Fate::WaitUntil);
    }
    if !view.up(new) && !wants_beside(view, old) {
        return Fate::Withdraw;
    }
    // Its time has come, so what it says is not that it waits for it.
    let stuck = unplaced(new) && new.desired == Desired::Running;
    if stuck && !canary && moves(view) && room::is_all_that_lacks(view, old, new) {
        return Fate::StopFirst;
    }
    Fate::Wait
}

fn told(slots: &[u32]) -> String {
    const NAMED: usize = 5;
    let mut names: Vec<String> = slots.iter().take(NAMED).map(u32::to_string).collect();
    if slots.len() > NAMED {
        names.push("…".to_owned());
    }
    match slots {
        [slot] => {
            format!("slot {slot} is replaced stop-first: no room to start it beside the old task")
        }
        _ => format!(
            "slots {} are replaced stop-first: no room to start them beside the old tasks",
            names.join(", ")
        ),
    }
}
