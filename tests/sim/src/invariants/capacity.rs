//! No node is given more than it has, counting every task until its end is known.

use super::{Look, Violation, broken};

pub(super) fn check(look: &Look<'_>) -> Result<(), Violation> {
    for seen in look.managers {
        let state = &seen.view.state;
        for node in state.nodes() {
            let held: u64 = state
                .tasks_of_node(node.id)
                .filter(|task| task.holds_resources())
                .filter_map(|task| state.service(task.service)?.task_spec(task.revision))
                .map(|spec| spec.reservations.memory_bytes)
                .sum();
            let capacity = node.description.capacity.memory_bytes;
            if held > capacity {
                let text = format!(
                    "tasks hold {held} bytes of memory on node {} with {capacity}, index {}",
                    node.name, seen.view.applied_index
                );
                return broken("nodes are not overcommitted", text);
            }
        }
    }
    Ok(())
}
