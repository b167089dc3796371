//! Nodes whose lease ended are down.

use cluster_model::node::NodeState;
use cluster_model::{Change, NodeId, State};

use crate::Plan;

/// Declares ready nodes down that were not heard for longer than the lease. `last_heard` answers in
/// cluster time; a node it knows nothing of is left alone.
pub fn plan(
    view: &State,
    last_heard: &impl Fn(NodeId) -> Option<u64>,
    lease_ms: u64,
    now_ms: u64,
) -> Plan {
    let mut plan = Plan::default();
    for node in view.nodes().filter(|node| node.state == NodeState::Ready) {
        let Some(heard) = last_heard(node.id) else { continue };
        let ends = heard.saturating_add(lease_ms);
        if now_ms > ends {
            let silent_ms = now_ms.saturating_sub(heard);
            let message =
                format!("not heard for {}.{} s", silent_ms / 1000, silent_ms % 1000 / 100);
            let (node, version) = (node.id, node.version);
            plan.changes.push(Change::NodeDown { node, version, message: message.into() });
        } else {
            let wake = ends + 1;
            plan.wake_at_ms = Some(plan.wake_at_ms.map_or(wake, |known| known.min(wake)));
        }
    }
    plan
}
