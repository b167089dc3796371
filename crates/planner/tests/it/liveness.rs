//! Leases.

use cluster_model::{Change, NodeId};
use cluster_planner::liveness::{self, Lease};

use crate::world::World;

#[test]
fn a_node_is_down_once_its_lease_has_ended_and_not_before() {
    let world = World::with_nodes(2);
    let leases = |id: NodeId| Some(if id == NodeId(1) { 10_000 } else { 11_000 });
    let plan = liveness::plan(&world.state, &leases, 3_000, 13_000);
    assert_eq!((plan.changes, plan.wake_at_ms), (vec![], Some(13_001)));
    let plan = liveness::plan(&world.state, &leases, 3_000, 13_001);
    assert_eq!(plan.wake_at_ms, Some(14_001));
    let version = world.state.node(NodeId(1)).expect("known").version;
    let message = "not heard for 3001 ms, its lease is 3000 ms".into();
    assert_eq!(plan.changes, [Change::NodeDown { node: NodeId(1), version, message }]);
}

#[test]
fn a_node_nobody_knows_of_is_left_alone() {
    let world = World::with_nodes(2);
    let plan = liveness::plan(&world.state, &|_| None::<u64>, 3_000, 1 << 40);
    assert_eq!((plan.changes, plan.wake_at_ms), (vec![], None));
}

#[test]
fn silence_that_may_not_be_the_nodes_own_counts_later_and_is_told_whole() {
    let world = World::with_nodes(1);
    let leases = |_| Some(Lease { heard_ms: 10_000, counts_from_ms: 13_000 });
    let plan = |now_ms| liveness::plan(&world.state, &leases, 3_000, now_ms);
    assert_eq!((plan(16_000).changes, plan(16_000).wake_at_ms), (vec![], Some(16_001)));
    let changes = plan(16_001).changes;
    let [Change::NodeDown { message, .. }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(&**message, "not heard for 6001 ms, its lease is 3000 ms");
}
