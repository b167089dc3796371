//! Whether a task that cannot start beside the old one could take the old one's place.
//!
//! Asked before the old task is stopped for it, so every doubt speaks against: the old task's own
//! node must take the new one once the old is gone.

use cluster_model::Task;
use cluster_model::fit::{self, Seeker, Supposed};

use crate::slots::View;

pub(super) fn is_all_that_lacks(view: &View<'_>, old: &Task, new: &Task) -> bool {
    let node = old.node.and_then(|node| view.state.node(node));
    let (Some(node), Some(spec)) = (node, view.service.rules_of(new.revision)) else {
        return false;
    };
    let seeker = Seeker { service: view.service.id, spec, task: new };
    let gone = |task: &Task| task.id == old.id;
    fit::obstacle(view.state, node, seeker, Supposed { gone: &gone, come: &[] }).is_none()
}
