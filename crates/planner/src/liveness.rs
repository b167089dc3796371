//! Node liveness: a ready node whose lease ended is down.
//!
//! Nodes that fall silent together are declared down together, although their leases end up to a
//! heartbeat apart: else the first of them would be replaced before the storm guard could see the
//! others.

use std::collections::{BTreeMap, BTreeSet};

use cluster_model::{Change, Node, NodeId, NodeState, State};

use crate::{Plan, earlier, storm};

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
    let storms = gathering(view, &silent, late, lease_ms);
    for (node, silent_ms) in silent {
        // Waiting for the others has a bound of its own: about a heartbeat.
        let patience_ms = match storms.contains(storm::zone(node)) {
            true => lease_ms.saturating_add(lease_ms / 3),
            false => lease_ms,
        };
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

/// Zones in which so many nodes are late that it may be a storm, and not all leases have ended.
fn gathering<'a>(
    view: &'a State,
    silent: &[(&'a Node, u64)],
    late: impl Fn(u64) -> bool,
    lease_ms: u64,
) -> BTreeSet<&'a str> {
    let mut zones: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    for (node, silent_ms) in silent.iter().filter(|(node, ms)| late(*ms) && storm::counts(node)) {
        let (count, undecided) = zones.entry(storm::zone(node)).or_default();
        *count += 1;
        *undecided |= *silent_ms <= lease_ms;
    }
    zones.retain(|_, (count, undecided)| *undecided && *count >= LATE_MIN);
    // The size of a zone is looked at only when it matters.
    let size = |zone: &str| {
        view.nodes().filter(|node| storm::counts(node) && storm::zone(node) == zone).count()
    };
    zones.into_iter().filter(|(zone, (count, _))| count * 2 > size(zone)).map(|(z, _)| z).collect()
}
