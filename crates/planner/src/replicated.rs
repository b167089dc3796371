//! As many claimed slots as replicas: creates the lowest free numbers, gives up the slots that are
//! missed least.

use std::collections::{BTreeMap, BTreeSet};

use cluster_model::{Desired, NewTask, NodeId, Reason, ServiceId};

use crate::draft::Draft;
use crate::slot::{Slot, slots};

pub fn scale(draft: &mut Draft<'_>, id: ServiceId) {
    let Some(service) = draft.state().service(id) else { return };
    let wanted = usize::try_from(service.spec.replicas()).unwrap_or(usize::MAX);
    let revision = service.revision;
    let claimed = slots(draft.state(), id);
    if claimed.len() > wanted {
        shrink(draft, id, claimed, wanted);
    } else if claimed.len() < wanted {
        grow(draft, id, revision, &claimed, wanted);
    }
}

fn grow(draft: &mut Draft<'_>, id: ServiceId, revision: u32, claimed: &[Slot], wanted: usize) {
    let taken: BTreeSet<u32> = claimed.iter().map(|slot| slot.number).collect();
    let free = (1..=u32::MAX).filter(|number| !taken.contains(number));
    let tasks = free
        .take(wanted - claimed.len())
        .map(|slot| NewTask {
            slot,
            desired: draft.successor_desired(id, slot),
            reason: Reason::ScaleUp,
            not_before_ms: 0,
            restarts: 0,
        })
        .collect();
    draft.create(id, revision, tasks);
}

/// Gives up slots that do not serve first, then those on the nodes with most of this service's
/// tasks, then the highest numbers.
fn shrink(draft: &mut Draft<'_>, id: ServiceId, mut claimed: Vec<Slot>, wanted: usize) {
    let node = |slot: &Slot| slot.filler.as_ref().filter(|task| task.serves()).and_then(|t| t.node);
    // The n-th serving slot of a node ranks n: the fullest nodes have the highest ranks.
    let mut seen: BTreeMap<NodeId, usize> = BTreeMap::new();
    let rank = |slot: &Slot, seen: &mut BTreeMap<NodeId, usize>| match node(slot) {
        None => (1, 0),
        Some(node) => {
            let nth = seen.entry(node).or_default();
            *nth += 1;
            (0, *nth)
        }
    };
    claimed.sort_by_key(|slot| slot.number);
    let mut ranked: Vec<((u8, usize), u32)> =
        claimed.iter().map(|slot| (rank(slot, &mut seen), slot.number)).collect();
    ranked.sort_unstable();
    for (_, number) in ranked.split_off(wanted) {
        let tasks: Vec<_> = draft
            .state()
            .tasks_of_slot(id, number)
            .filter(|task| task.desired < Desired::Remove)
            .map(|task| task.id)
            .collect();
        for task in tasks {
            draft.set_desired(task, Desired::Remove, Reason::ScaleDown);
        }
    }
}
