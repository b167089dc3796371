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

/// When a node was last heard, in milliseconds of any clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub heard_ms: u64,
    /// Its silence counts from then on: later than `heard_ms` where it may not be the node's own.
    pub counts_from_ms: u64,
}

impl From<u64> for Lease {
    fn from(heard_ms: u64) -> Self {
        Self { heard_ms, counts_from_ms: heard_ms }
    }
}

/// Plans for the nodes whose lease ended.
///
/// `leases` answers in the same time as `now_ms`. A node it does not know is left alone, so whoever
/// begins to lead first grants every ready node a fresh lease.
pub fn plan<L: Into<Lease>>(
    view: &State,
    leases: &impl Fn(NodeId) -> Option<L>,
    lease_ms: u64,
    now_ms: u64,
) -> Plan {
    let mut plan = Plan::default();
    let ready = view.nodes().filter(|node| node.state == NodeState::Ready);
    let known: Vec<(&Node, Lease)> =
        ready.filter_map(|node| Some((node, leases(node.id)?.into()))).collect();
    let counted = |lease: &Lease| now_ms.saturating_sub(lease.counts_from_ms);
    let silent: Vec<(&Node, u64)> =
        known.iter().map(|(node, lease)| (*node, counted(lease))).collect();
    // A node that is well is heard more than twice in a lease.
    let late = |silent_ms: u64| silent_ms > lease_ms / 2;
    let storms = gathering(view, &silent, late, lease_ms);
    for (node, lease) in &known {
        let silent_ms = counted(lease);
        // Waiting for the others has a bound of its own: about a heartbeat.
        let patience_ms = match storms.contains(storm::zone(node)) {
            true => lease_ms.saturating_add(lease_ms / 3),
            false => lease_ms,
        };
        if silent_ms > patience_ms {
            plan.changes.push(Change::NodeDown {
                node: node.id,
                version: node.version,
                message: format!(
                    "not heard for {} ms, its lease is {lease_ms} ms",
                    now_ms.saturating_sub(lease.heard_ms)
                )
                .into(),
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
