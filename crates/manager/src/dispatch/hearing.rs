//! Which nodes are heard, when last, and how far their balancers are.
//!
//! Each manager knows this of its own sessions and tells the leader; the leader knows it of all.
//! Never through Raft: only the up and down that follow from it are.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cluster_model::NodeId;
use cluster_pb::peer::v1::HeardNode;
use tokio::sync::watch;

use super::table::lock;

/// What one worker takes to come back after its manager was lost, when thousands do: 250 a second, which
/// two other managers on two cores that hold a million tasks manage (docs/benchmarks.md, shape 9).
const COMING_BACK: Duration = Duration::from_millis(4);
/// Such a worker is waited for no longer than so many leases.
const LEASES_MAX: u32 = 2;

#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Instant,
    endpoints: u64,
    /// Heard by a session of this manager, to be told to the leader.
    own: bool,
    /// Not yet told.
    fresh: bool,
    /// The manager that told of it, if that is not this one.
    through: Option<NodeId>,
    /// Until when its silence says nothing: it has lost its manager, together with others.
    awaited_until: Option<Instant>,
}

impl Heard {
    fn at(at: Instant, endpoints: u64) -> Self {
        Self { at, endpoints, own: false, fresh: false, through: None, awaited_until: None }
    }
}

pub struct Hearing {
    nodes: Mutex<HashMap<NodeId, Heard>>,
    /// Counts changes of acknowledged versions, for those who wait for them.
    acknowledged: watch::Sender<u64>,
}

impl Default for Hearing {
    fn default() -> Self {
        Self { nodes: Mutex::default(), acknowledged: watch::Sender::new(0) }
    }
}

impl Hearing {
    /// A session of this manager heard its node.
    pub fn heard(&self, node: NodeId) {
        self.update(node, |heard| heard.at = Instant::now());
    }

    /// A worker's balancers follow endpoints of a version.
    pub fn acknowledged(&self, node: NodeId, endpoints: u64) {
        self.update(node, |heard| {
            heard.at = Instant::now();
            heard.endpoints = endpoints;
        });
        self.acknowledged.send_modify(|count| *count += 1);
    }

    fn update(&self, node: NodeId, edit: impl FnOnce(&mut Heard)) {
        let mut nodes = lock(&self.nodes);
        let heard = nodes.entry(node).or_insert_with(|| Heard::at(Instant::now(), 0));
        edit(heard);
        heard.own = true;
        heard.fresh = true;
        heard.through = None;
        heard.awaited_until = None;
    }

    /// Another manager heard these nodes.
    pub fn told(&self, manager: NodeId, told: &[HeardNode]) {
        let now = Instant::now();
        let mut nodes = lock(&self.nodes);
        for entry in told {
            let Ok(node) = entry.node_id.parse::<NodeId>() else { continue };
            let at = now.checked_sub(Duration::from_millis(entry.age_ms)).unwrap_or(now);
            let known = nodes.get(&node);
            // A node that moved here since is better known here.
            if known.is_some_and(|known| known.at > at) {
                continue;
            }
            let through = Some(manager);
            nodes.insert(node, Heard { through, ..Heard::at(at, entry.endpoints_version) });
        }
        drop(nodes);
        self.acknowledged.send_modify(|count| *count += 1);
    }

    /// What the leader has not been told yet; all of this manager's own with `all`.
    pub fn digest(&self, all: bool) -> Vec<HeardNode> {
        let now = Instant::now();
        let mut nodes = lock(&self.nodes);
        let untold = nodes.iter_mut().filter(|(_, heard)| heard.own && (all || heard.fresh));
        untold
            .map(|(node, heard)| {
                heard.fresh = false;
                let age = now.saturating_duration_since(heard.at).as_millis();
                HeardNode {
                    node_id: node.to_string(),
                    age_ms: u64::try_from(age).unwrap_or(u64::MAX),
                    endpoints_version: heard.endpoints,
                }
            })
            .collect()
    }

    pub fn last_heard(&self, node: NodeId) -> Option<Instant> {
        lock(&self.nodes).get(&node).map(|heard| heard.at)
    }

    /// A manager says nothing more, so its workers have to find another. Few do within their leases;
    /// the more there are, the longer that takes, and as long they are not taken for dead.
    pub fn lost(&self, manager: NodeId, lease: Duration) {
        let mut nodes = lock(&self.nodes);
        let theirs = nodes.values_mut().filter(|heard| heard.through == Some(manager));
        await_all(theirs.collect(), Instant::now(), lease);
    }

    /// These nodes had sessions with the leader before this one, which began to lead at `since` and
    /// has not heard of them yet.
    pub fn orphaned(&self, orphans: &[NodeId], since: Instant, lease: Duration) {
        let mut nodes = lock(&self.nodes);
        for node in orphans {
            nodes.entry(*node).or_insert_with(|| Heard::at(since, 0));
        }
        let orphans = orphans.iter().copied().collect::<HashSet<_>>();
        let theirs = nodes.iter_mut().filter(|(node, _)| orphans.contains(node));
        await_all(theirs.map(|(_, heard)| heard).collect(), since, lease);
    }

    /// Until when a node's silence says nothing.
    pub fn awaited_until(&self, node: NodeId) -> Option<Instant> {
        lock(&self.nodes).get(&node)?.awaited_until
    }

    /// The lowest version that all of these nodes have acknowledged.
    pub fn acknowledged_by_all(&self, among: impl Iterator<Item = NodeId>) -> u64 {
        let nodes = lock(&self.nodes);
        let version = |node| nodes.get(&node).map_or(0, |heard| heard.endpoints);
        among.map(version).min().unwrap_or(u64::MAX)
    }

    /// Drops what is known of nodes that are no longer in the cluster.
    pub fn retain(&self, known: impl Fn(NodeId) -> bool) {
        lock(&self.nodes).retain(|node, _| known(*node));
    }

    pub fn watch_acknowledged(&self) -> watch::Receiver<u64> {
        self.acknowledged.subscribe()
    }
}

fn await_all(nodes: Vec<&mut Heard>, since: Instant, lease: Duration) {
    let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let until = since + COMING_BACK.saturating_mul(count).min(lease * LEASES_MAX);
    for heard in nodes {
        heard.awaited_until = heard.awaited_until.max(Some(until));
        // Once is enough: a manager may be lost again before its workers are heard.
        heard.through = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_told_once_and_keeps_the_newest() {
        let (follower, leader) = (Hearing::default(), Hearing::default());
        let node = NodeId(7);
        follower.acknowledged(node, 5);
        let digest = follower.digest(false);
        assert_eq!(digest.len(), 1);
        assert!(follower.digest(false).is_empty());
        assert_eq!(follower.digest(true).len(), 1);
        leader.told(NodeId(2), &digest);
        assert_eq!(leader.acknowledged_by_all([node].into_iter()), 5);
        assert_eq!(leader.acknowledged_by_all([node, NodeId(8)].into_iter()), 0);
        // Stale news does not move the last hearing back.
        let old = HeardNode { node_id: node.to_string(), age_ms: 60_000, endpoints_version: 1 };
        leader.told(NodeId(2), &[old]);
        assert_eq!(leader.acknowledged_by_all([node].into_iter()), 5);
        assert!(leader.digest(true).is_empty(), "what others heard is not ours to tell");
    }

    #[test]
    fn the_more_workers_lose_their_manager_the_longer_they_are_awaited() {
        let lease = Duration::from_secs(3);
        let leader = Hearing::default();
        let tell = |manager, nodes: std::ops::Range<u64>| {
            let entry = |id| HeardNode { node_id: NodeId(id).to_string(), ..Default::default() };
            leader.told(NodeId(manager), &nodes.map(entry).collect::<Vec<_>>());
        };
        let left = |node, since: Instant| {
            leader.awaited_until(NodeId(node)).map(|until| until.saturating_duration_since(since))
        };
        tell(1, 100..103);
        tell(2, 1_000..2_000);
        tell(3, 3_000..6_000);
        let before = Instant::now();
        leader.lost(NodeId(1), lease);
        leader.lost(NodeId(2), lease);
        leader.lost(NodeId(3), lease);
        let spent = before.elapsed();
        let within = |node, wanted: Duration| {
            left(node, before).is_some_and(|left| (wanted..=wanted + spent).contains(&left))
        };
        assert!(within(100, Duration::from_millis(12)), "no longer than its lease");
        assert!(within(1_500, Duration::from_secs(4)));
        assert!(within(5_000, Duration::from_secs(6)), "two leases at most");
        // Heard again, by whomever: its silence counts from then on, and so it does with a manager
        // that was not lost.
        leader.heard(NodeId(100));
        tell(1, 1_500..1_501);
        assert_eq!((left(100, before), left(1_500, before)), (None, None));
        leader.lost(NodeId(2), lease);
        assert_eq!(left(1_500, before), None);
        // A leader that has just begun knows nobody.
        let since = Instant::now();
        leader.orphaned(&[NodeId(7_000), NodeId(7_001)], since, lease);
        assert_eq!(left(7_000, since), Some(Duration::from_millis(8)));
    }
}
