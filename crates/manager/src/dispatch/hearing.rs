//! Which nodes are heard, when last, and how far their balancers are.
//!
//! Each manager knows this of its own sessions and tells the leader; the leader knows it of all.
//! Never through Raft: only the up and down that follow from it are.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cluster_model::NodeId;
use cluster_pb::peer::v1::HeardNode;
use tokio::sync::watch;

use super::table::lock;

#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Instant,
    endpoints: u64,
    /// Heard by a session of this manager, to be told to the leader.
    own: bool,
    /// Not yet told.
    fresh: bool,
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
        let blank = Heard { at: Instant::now(), endpoints: 0, own: true, fresh: true };
        let heard = nodes.entry(node).or_insert(blank);
        edit(heard);
        heard.own = true;
        heard.fresh = true;
    }

    /// Another manager heard these nodes.
    pub fn told(&self, told: &[HeardNode]) {
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
            let endpoints = entry.endpoints_version;
            nodes.insert(node, Heard { at, endpoints, own: false, fresh: false });
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
        leader.told(&digest);
        assert_eq!(leader.acknowledged_by_all([node].into_iter()), 5);
        assert_eq!(leader.acknowledged_by_all([node, NodeId(8)].into_iter()), 0);
        // Stale news does not move the last hearing back.
        let old = HeardNode { node_id: node.to_string(), age_ms: 60_000, endpoints_version: 1 };
        leader.told(&[old]);
        assert_eq!(leader.acknowledged_by_all([node].into_iter()), 5);
        assert!(leader.digest(true).is_empty(), "what others heard is not ours to tell");
    }
}
