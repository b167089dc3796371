//! Node liveness: a ready node whose lease ended is down.

use cluster_model::{Change, NodeId, NodeState, State};

use crate::{Plan, earlier};

/// Plans for the nodes whose lease ended.
///
/// `leases` answers when a node was last heard, in the same time as `now_ms`. A node it does not
/// know is left alone, so whoever begins to lead first grants every ready node a fresh lease.
pub fn plan(
    view: &State,
    leases: &impl Fn(NodeId) -> Option<u64>,
    lease_ms: u64,
    now_ms: u64,
) -> Plan {
    let mut plan = Plan::default();
    for node in view.nodes().filter(|node| node.state == NodeState::Ready) {
        let Some(heard_ms) = leases(node.id) else { continue };
        let silent_ms = now_ms.saturating_sub(heard_ms);
        if silent_ms > lease_ms {
            plan.changes.push(Change::NodeDown {
                node: node.id,
                version: node.version,
                message: format!("not heard for {silent_ms} ms, its lease is {lease_ms} ms").into(),
            });
        } else {
            let end_ms = heard_ms.saturating_add(lease_ms).saturating_add(1);
            plan.wake_at_ms = earlier(plan.wake_at_ms, Some(end_ms));
        }
    }
    plan
}
