//! Replicated services: as many occupied slots as there are replicas.
//!
//! New slots take the lowest free numbers. Which slots go when a service shrinks depends on what
//! they do, so the remaining numbers may have gaps; slots that stay are never touched.

use std::collections::{BTreeMap, BTreeSet};

use cluster_model::spec::Mode;
use cluster_model::{Desired, NewTask, NodeId, Reason};

use crate::slots::{Slot, Steps, View};

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    let Mode::Replicated { replicas } = view.service.spec.mode else { return };
    let wanted = replicas as usize;
    let occupied: Vec<Slot<'_>> = view.slots.iter().filter(|slot| view.occupied(slot)).collect();
    if occupied.len() < wanted {
        grow(view, &occupied, wanted, steps);
    } else if occupied.len() > wanted {
        shrink(view, &occupied, wanted, steps);
    }
}

fn grow(view: &View<'_>, occupied: &[Slot<'_>], wanted: usize, steps: &mut Steps) {
    let taken: BTreeSet<u32> = occupied.iter().map(Slot::number).collect();
    let vacant: BTreeMap<u32, Slot<'_>> = view
        .slots
        .iter()
        .filter(|slot| !taken.contains(&slot.number()))
        .map(|slot| (slot.number(), slot))
        .collect();
    let free = (1u32..).filter(|number| !taken.contains(number));
    for number in free.take(wanted - taken.len()) {
        if !steps.take_room() {
            return;
        }
        let before = vacant.get(&number);
        let reason = match before.and_then(Slot::newest) {
            // Spent under an older revision; this one gets its own attempts.
            Some(last) if last.reason == Reason::Exhausted => Reason::Update,
            _ => Reason::ScaleUp,
        };
        // A task of the slot's former life may still be stopping.
        let alive = before.is_some_and(|slot| slot.any_alive(None));
        let desired = if alive { Desired::Ready } else { Desired::Running };
        let task = NewTask { desired, ..NewTask::new(number, reason) };
        steps.create(view.fresh_revision(), task);
    }
}

/// Lets go first of what does not run, then of the node that has most of this service, then of
/// the highest slot.
fn shrink(view: &View<'_>, occupied: &[Slot<'_>], wanted: usize, steps: &mut Steps) {
    let mut copies: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut order: Vec<(u8, u32, u32, usize)> = Vec::with_capacity(occupied.len());
    for (place, slot) in occupied.iter().enumerate() {
        // Of two tasks beside each other, the one that runs speaks for the slot.
        let holder = slot.newcomer().filter(|task| view.up(task)).or_else(|| slot.holder());
        let standing = match holder {
            None => 0,
            Some(task) if task.node.is_none() => 1,
            Some(task) if !view.up(task) => 2,
            Some(_) => 3,
        };
        // The n-th copy on its node: taking the largest first levels the nodes.
        let nth = match holder.and_then(|task| task.node).filter(|_| standing == 3) {
            Some(node) => {
                let copies = copies.entry(node).or_default();
                *copies += 1;
                *copies
            }
            None => 0,
        };
        order.push((standing, u32::MAX - nth, u32::MAX - slot.number(), place));
    }
    order.sort_unstable();
    for (.., place) in order.into_iter().take(occupied.len() - wanted) {
        if !steps.take_room() {
            return;
        }
        for task in occupied[place].tasks().filter(|task| task.desired != Desired::Remove) {
            steps.set(task, Desired::Remove, Reason::ScaleDown);
        }
    }
}
