//! Whether a task that cannot start beside the old one could take the old one's place.
//!
//! Asked before the old task is stopped for it, so every doubt speaks against: the old task's own
//! node must take the new one once the old is gone.

use cluster_model::state::fits;
use cluster_model::{Node, Task, TaskSpec};

use crate::slots::View;

pub(super) fn is_all_that_lacks(view: &View<'_>, old: &Task, new: &Task) -> bool {
    let node = old.node.and_then(|node| view.state.node(node));
    let (Some(node), Some(spec)) = (node, view.service.task_spec(new.revision)) else {
        return false;
    };
    node.accepts_tasks()
        && node.description.healthy
        && new.target.is_none_or(|target| target == node.id)
        && spec.placement.admits(node)
        && fits_instead(view, node, old, spec)
}

/// The node has what the new task wants beside all it holds but the old one.
fn fits_instead(view: &View<'_>, node: &Node, old: &Task, spec: &TaskSpec) -> bool {
    let others = || {
        view.state.tasks_of_node(node.id).filter(|task| task.id != old.id && task.holds_resources())
    };
    let spec_of = |task: &Task| view.state.service(task.service)?.task_spec(task.revision).cloned();
    let mut used = view.state.usage(node.id).reserved;
    if let Some(held) = spec_of(old) {
        let held = held.reservations;
        used.cpu_nanos = used.cpu_nanos.saturating_sub(held.cpu_nanos);
        used.memory_bytes = used.memory_bytes.saturating_sub(held.memory_bytes);
    }
    let of_service = others().filter(|task| task.service == view.service.id).count();
    let most = usize::try_from(spec.placement.max_per_node).unwrap_or(usize::MAX);
    let taken = |port: u16| {
        let holds = |task| {
            spec_of(task).is_some_and(|spec| spec.host_ports.iter().any(|p| p.published == port))
        };
        others().any(holds)
    };
    let free = |kind: &String| {
        let all = node.description.generic.get(kind).map_or(0, cluster_model::node::Generic::count);
        let held = others().filter_map(|task| spec_of(task)?.generic.get(kind).copied());
        all.saturating_sub(held.sum())
    };
    fits(node.description.capacity, used, spec.reservations)
        && (most == 0 || of_service < most)
        && !spec.host_ports.iter().any(|port| taken(port.published))
        && spec.generic.iter().all(|(kind, wanted)| *wanted <= free(kind))
}
