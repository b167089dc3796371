//! Node liveness: a ready node whose lease ended is down.
//!
//! Nodes that fall silent together are declared down together, although their leases end up to a
//! heartbeat apart: else the first of them would be replaced before the storm guard could see the
//! others.

use cluster_model::{Change, Node, NodeId, NodeState, State};

use crate::{Plan, earlier};

/// So many late nodes may be the beginning of a storm.
const LATE_MIN: usize = 3;

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
    let silent: Vec<(&Node, u64)> = view
        .nodes()
        .filter(|node| node.state == NodeState::Ready)
        .filter_map(|node| Some((node, now_ms.saturating_sub(leases(node.id)?))))
        .collect();
    // A node that is well is heard more than twice in a lease.
    let late = |silent_ms: u64| silent_ms > lease_ms / 2;
    let undecided = silent.iter().any(|(_, ms)| late(*ms) && *ms <= lease_ms);
    let gathering = undecided && silent.iter().filter(|(_, ms)| late(*ms)).count() >= LATE_MIN;
    // Waiting for the others has a bound of its own.
    let patience_ms = if gathering { lease_ms.saturating_add(lease_ms / 2) } else { lease_ms };
    for (node, silent_ms) in silent {
        if silent_ms > patience_ms {
            plan.changes.push(Change::NodeDown {
                node: node.id,
                version: node.version,
                message: format!("not heard for {silent_ms} ms, its lease is {lease_ms} ms").into(),
            });
        } else {
            let limit_ms = if silent_ms > lease_ms { patience_ms } else { lease_ms };
            let left_ms = limit_ms.saturating_sub(silent_ms).saturating_add(1);
            plan.wake_at_ms = earlier(plan.wake_at_ms, Some(now_ms.saturating_add(left_ms)));
        }
    }
    plan
}
