//! Moves a service to its newest revision, one serving slot at a time: the next goes when all
//! others serve, so a revision that does not come up costs one slot and no more. Slots that do not
//! serve anyway are replaced at once.

use cluster_model::{Reason, ServiceId};

use crate::draft::Draft;
use crate::drain::replace;
use crate::slot::{Slot, slots};

pub fn run(draft: &mut Draft<'_>, id: ServiceId) {
    let Some(revision) = draft.state().service(id).map(|service| service.revision) else { return };
    let all = slots(draft.state(), id);
    let outdated =
        |slot: &&Slot| slot.filler.as_ref().is_some_and(|task| task.revision != revision);
    for slot in all.iter().filter(outdated).filter(|slot| !slot.serves()) {
        if let Some(filler) = &slot.filler {
            replace(draft, id, filler, Reason::Update, 0);
        }
    }
    if !all.iter().all(Slot::is_settled) {
        return;
    }
    let next = all.iter().filter(outdated).find_map(|slot| slot.filler.as_ref());
    if let Some(filler) = next {
        replace(draft, id, filler, Reason::Update, 0);
    }
}
