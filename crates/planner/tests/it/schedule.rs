//! Placement and its explanations.

use cluster_model::{Availability, Change, NodeId, Observed};

use crate::world::{LEASE_MS, MIB, World, spec};

#[test]
fn tasks_spread_over_nodes() {
    let mut world = World::with_nodes(3);
    let web = world.create(1, spec("web", 9));
    world.settle();
    assert_eq!(world.spread(web), [3, 3, 3]);
    let one = world.create(2, spec("one", 1));
    world.join(NodeId(4), 1 << 30);
    world.plan();
    assert_eq!(world.spread(one), [0, 0, 0, 1], "the emptiest node");
}

#[test]
fn a_service_spreads_before_load_is_levelled() {
    let mut world = World::with_nodes(2);
    let other = world.create(1, spec("other", 6));
    world.availability(NodeId(2), Availability::Pause);
    world.settle();
    assert_eq!(world.spread(other), [6, 0]);
    world.availability(NodeId(2), Availability::Active);
    let web = world.create(2, spec("web", 2));
    world.settle();
    assert_eq!(world.spread(web), [1, 1]);
}

#[test]
fn reservations_are_never_exceeded_and_room_is_used_when_it_appears() {
    let mut world = World::with_nodes(2);
    let mut large = spec("web", 8);
    large.task.reservations.memory_bytes = 300 * MIB;
    let web = world.create(1, large);
    world.settle();
    assert_eq!(world.spread(web), [3, 3]);
    let waiting: Vec<_> = world.holders(web).into_iter().filter(|t| t.node.is_none()).collect();
    assert_eq!(waiting.len(), 2);
    assert_eq!(
        waiting[0].status.details.message.as_deref(),
        Some(
            "no suitable node: 2 nodes have insufficient memory (wants 300 MiB, at most 124 MiB free)"
        )
    );
    world.join(NodeId(3), 1024 * MIB);
    world.settle();
    assert_eq!(world.spread(web), [3, 3, 2]);
}

#[test]
fn explanations_count_every_obstacle() {
    let mut world = World::with_nodes(7);
    for (node, rack) in [(1, "a"), (2, "a"), (3, "x"), (4, "x"), (5, "x"), (6, "x"), (7, "x")] {
        world.label(NodeId(node), "rack", rack);
    }
    world.join(NodeId(3), 12 * MIB);
    world.availability(NodeId(4), Availability::Drain);
    world.availability(NodeId(5), Availability::Pause);
    world.cut_off(NodeId(6));
    world.advance(LEASE_MS + 1);
    let mut spec = spec("web", 1);
    spec.task.placement.constraints = vec!["node.labels.rack==x".parse().expect("parses")];
    spec.task.reservations.memory_bytes = 64 * MIB;
    spec.task.reservations.cpu_nanos = 4_500_000_000;
    let web = world.create(1, spec);
    world.plan();
    assert_eq!(
        world.holder(web, 1).status.details.message.as_deref(),
        Some(
            "no suitable node: 2 nodes do not meet constraint node.labels.rack==x; \
             2 nodes have insufficient CPU (wants 4.5, at most 4 free); 1 node down; \
             1 node drained; 1 node paused"
        )
    );
    world.update(web, |spec| spec.task.reservations.cpu_nanos = 0);
    world.availability(NodeId(7), Availability::Drain);
    world.plan();
    assert_eq!(
        world.holder(web, 1).status.details.message.as_deref(),
        Some(
            "no suitable node: 2 nodes do not meet constraint node.labels.rack==x; \
             1 node has insufficient memory (wants 64 MiB, 12 MiB free); 1 node down; \
             2 nodes drained; 1 node paused"
        )
    );
}

#[test]
fn a_cluster_without_workers_says_so_and_a_worker_that_joins_gets_the_tasks() {
    let mut world = World::new();
    let web = world.create(1, spec("web", 2));
    world.plan();
    let message = world.holder(web, 1).status.details.message.clone();
    assert_eq!(message.as_deref(), Some("no suitable node: the cluster has no workers"));
    world.join(NodeId(1), 1 << 30);
    // A scoped pass looks at waiting tasks too.
    let none = std::collections::BTreeSet::new();
    let plan = world.make_plan(cluster_planner::Scope::Services(&none));
    assert!(matches!(plan.changes[..], [Change::Assign { .. }, Change::Assign { .. }]));
}

#[test]
fn a_restart_stays_unless_another_node_is_as_good() {
    let mut world = World::with_nodes(2);
    let busy = world.create(1, spec("busy", 2));
    let web = world.create(2, spec("web", 1));
    world.settle();
    assert_eq!(world.spread(busy), [1, 1]);
    let first = world.holder(web, 1).node;
    let task = world.holder(web, 1).id;
    world.ends(task, Observed::Failed);
    world.plan();
    assert_ne!(world.holder(web, 1).node, first, "equal otherwise");
    let second = world.holder(web, 1).node;
    let loaded = if second == Some(NodeId(1)) { NodeId(2) } else { NodeId(1) };
    // Now the other node is worse: the task comes back to the one it failed on.
    world.settle_through_waits();
    world.availability(second.expect("placed"), Availability::Pause);
    world.create(3, spec("more", 3));
    world.settle();
    world.availability(second.expect("placed"), Availability::Active);
    assert!(world.state.usage(loaded).tasks > 2);
    let task = world.holder(web, 1).id;
    world.ends(task, Observed::Failed);
    world.plan();
    assert_eq!(world.holder(web, 1).node, second);
}
