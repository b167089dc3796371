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

/// What one worker takes to come back after its manager was lost, when thousands do. Two managers on two
/// cores that hold a million tasks took 2.4 to 3.6 ms for each (docs/benchmarks.md, shape 9).
const COMING_BACK: Duration = Duration::from_millis(4);
/// Its silence is excused no longer than so many leases.
const LEASES_MAX: u32 = 2;
/// Ages are told in milliseconds and some time later, so the same moment told again seems a little newer.
const SAME_MOMENT: Duration = Duration::from_millis(50);

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
    excused_until: Option<Instant>,
}

impl Heard {
    fn at(at: Instant, endpoints: u64) -> Self {
        Self { at, endpoints, own: false, fresh: false, through: None, excused_until: None }
    }
}

pub struct Hearing {
    nodes: Mutex<HashMap<NodeId, Heard>>,
    /// The newest stream of each manager that tells.
    streams: Mutex<HashMap<NodeId, u64>>,
    /// Counts changes of acknowledged versions, for those who wait for them.
    acknowledged: watch::Sender<u64>,
}

impl Default for Hearing {
    fn default() -> Self {
        let (nodes, streams) = (Mutex::default(), Mutex::default());
        Self { nodes, streams, acknowledged: watch::Sender::new(0) }
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
        heard.excused_until = None;
    }

    /// Another manager heard these nodes.
    pub fn told(&self, manager: NodeId, told: &[HeardNode]) {
        let now = Instant::now();
        let mut nodes = lock(&self.nodes);
        for entry in told {
            let Ok(node) = entry.node_id.parse::<NodeId>() else { continue };
            let at = now.checked_sub(Duration::from_millis(entry.age_ms)).unwrap_or(now);
            let heard = Heard { through: Some(manager), ..Heard::at(at, entry.endpoints_version) };
            match nodes.get_mut(&node) {
                // A node that moved here since is better known here.
                Some(known) if known.at > at => {}
                // A manager that was lost for a moment repeats itself: its workers are still to come.
                Some(known) if known.excused_until.is_some() && known.at + SAME_MOMENT > at => {
                    known.endpoints = heard.endpoints;
                }
                _ => drop(nodes.insert(node, heard)),
            }
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

    /// A manager begins to tell; what it told before on another stream is no sign of its loss.
    pub fn begins(&self, manager: NodeId) -> u64 {
        let mut streams = lock(&self.streams);
        let newest = streams.entry(manager).or_default();
        *newest += 1;
        *newest
    }

    /// A manager's newest stream says nothing more since `since`, so its workers have to find another.
    /// Few do within their leases; the more there are, the longer that takes, and as long they are not
    /// taken for dead. Answers how many.
    pub fn lost(&self, manager: NodeId, stream: u64, since: Instant, lease: Duration) -> usize {
        if lock(&self.streams).get(&manager) != Some(&stream) {
            return 0;
        }
        let mut nodes = lock(&self.nodes);
        let theirs = nodes.values_mut().filter(|heard| heard.through == Some(manager));
        excuse(theirs.collect(), since, lease)
    }

    /// These nodes had sessions with the leader before this one, which began to lead at `since` and
    /// has not heard of them yet.
    pub fn orphaned(&self, orphans: &[NodeId], since: Instant, lease: Duration) -> usize {
        let mut nodes = lock(&self.nodes);
        for node in orphans {
            nodes.entry(*node).or_insert_with(|| Heard::at(since, 0));
        }
        let orphans: HashSet<NodeId> = orphans.iter().copied().collect();
        let theirs = nodes.iter_mut().filter(|(node, _)| orphans.contains(node));
        excuse(theirs.map(|(_, heard)| heard).collect(), since, lease)
    }

    /// Until when a node's silence says nothing.
    pub fn excused_until(&self, node: NodeId) -> Option<Instant> {
        lock(&self.nodes).get(&node)?.excused_until
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

fn excuse(nodes: Vec<&mut Heard>, since: Instant, lease: Duration) -> usize {
    let count = nodes.len();
    let all = COMING_BACK.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
    let until = since + all.min(lease * LEASES_MAX);
    for heard in nodes {
        heard.excused_until = heard.excused_until.max(Some(until));
        // Once is enough: a manager may be lost again before its workers are heard.
        heard.through = None;
    }
    count
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
    fn the_more_workers_lose_their_manager_the_longer_their_silence_is_excused() {
        let lease = Duration::from_secs(3);
        let leader = Hearing::default();
        let tell = |manager, nodes: std::ops::Range<u64>, age_ms| {
            let entry =
                |id| HeardNode { node_id: NodeId(id).to_string(), age_ms, endpoints_version: 0 };
            leader.told(NodeId(manager), &nodes.map(entry).collect::<Vec<_>>());
        };
        let [first, second, third] = [1, 2, 3].map(|manager| leader.begins(NodeId(manager)));
        tell(1, 100..103, 0);
        tell(2, 1_000..2_000, 100);
        tell(3, 3_000..6_000, 0);
        let since = Instant::now();
        let excused = |node| leader.excused_until(NodeId(node)).map(|until| until - since);
        assert_eq!(leader.lost(NodeId(1), first, since, lease), 3);
        assert_eq!(leader.lost(NodeId(2), second, since, lease), 1_000);
        assert_eq!(leader.lost(NodeId(3), third, since, lease), 3_000);
        assert_eq!(excused(100), Some(Duration::from_millis(12)));
        assert_eq!(excused(1_500), Some(Duration::from_secs(4)));
        assert_eq!(excused(5_000), Some(Duration::from_secs(6)), "two leases at most");

        // Back for a moment, it repeats what it heard; that is no news, and losing it again moves nothing.
        let again = leader.begins(NodeId(2));
        tell(2, 1_000..2_000, 100 + u64::try_from(since.elapsed().as_millis()).unwrap());
        assert_eq!(excused(1_500), Some(Duration::from_secs(4)));
        assert_eq!(leader.lost(NodeId(2), again, since + lease, lease), 0);
        assert_eq!(excused(1_500), Some(Duration::from_secs(4)));

        // Heard again, by whomever: its silence counts from then on.
        leader.heard(NodeId(100));
        tell(1, 1_500..1_501, 0);
        assert_eq!((excused(100), excused(1_500)), (None, None));
        // An older stream that ends says nothing of the newer one.
        let newer = leader.begins(NodeId(1));
        assert_eq!(leader.lost(NodeId(1), first, since, lease), 0);
        assert_eq!(leader.lost(NodeId(1), newer, since, lease), 1, "whom it told of last");

        // A leader that has just begun knows nobody.
        assert_eq!(leader.orphaned(&[NodeId(7_000), NodeId(7_001)], since, lease), 2);
        assert_eq!(excused(7_000), Some(Duration::from_millis(8)));
    }
}
