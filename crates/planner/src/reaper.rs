//! Keeps the last tasks of each slot, forgets older ones.

use cluster_model::{Change, ServiceId, Task};

use crate::draft::Draft;
use crate::slot::age_rank;

/// Tasks kept in a slot, the present one included.
pub const KEPT: usize = 5;

pub fn run(draft: &mut Draft<'_>, id: ServiceId) {
    let mut tasks: Vec<&Task> = draft.state().tasks_of_service(id).collect();
    tasks.sort_by_key(|task| (task.slot, std::cmp::Reverse(age_rank(task))));
    let mut old = Vec::new();
    let (mut slot, mut seen) = (0, 0);
    for task in tasks {
        if task.slot != slot {
            (slot, seen) = (task.slot, 0);
        }
        seen += 1;
        if seen > KEPT && task.status.state.is_terminal() && !task.fills_slot() {
            old.push(task.id);
        }
    }
    for task in old {
        draft.push(Change::Delete { task });
    }
}
