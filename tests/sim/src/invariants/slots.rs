//! At most one task fills a slot, but for the pair of which one was started beside the other.

use std::collections::BTreeMap;

use cluster_model::{NodeState, ServiceId, Task};

use super::{Look, Violation, broken};

pub(super) fn check(look: &Look<'_>) -> Result<(), Violation> {
    for seen in look.managers {
        let state = &seen.view.state;
        let mut slots: BTreeMap<(ServiceId, u32), Vec<&Task>> = BTreeMap::new();
        for task in state.tasks().filter(|task| task.fills_slot()) {
            let connected = task
                .node
                .and_then(|node| state.node(node))
                .is_none_or(|node| node.state != NodeState::Down);
            // A prepared successor waits in Ready.
            if connected && task.desired == cluster_model::Desired::Running {
                slots.entry((task.service, task.slot)).or_default().push(task);
            }
        }
        for ((service, slot), tasks) in slots {
            let pair = tasks.len() == 2 && tasks[0].is_beside(tasks[1]);
            if tasks.len() > 1 && !pair {
                let ids: Vec<String> = tasks
                    .iter()
                    .map(|task| format!("{} {:?} {:?}", task.id, task.desired, task.status.state))
                    .collect();
                let text = format!("slot {slot} of {service} is filled by {}", ids.join(" and "));
                return broken("one live task a slot", text);
            }
        }
    }
    Ok(())
}
