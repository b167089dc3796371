//! Tasks that must leave their nodes.

use cluster_model::task::Moved;
use cluster_model::{Availability, NodeId, Reason, ServiceId};

use crate::world::{CRASH, World, spec};

fn on(world: &World, web: ServiceId, node: u64) -> usize {
    world.holders(web).iter().filter(|task| task.node == Some(NodeId(node))).count()
}

#[test]
fn a_drained_node_gives_its_tasks_away_one_at_a_time() {
    let mut world = World::with_nodes(2);
    let web = world.create(1, spec("web", 6));
    world.settle();
    world.availability(NodeId(1), Availability::Drain);
    for _ in 0..60 {
        world.plan();
        assert!(world.running(web).len() >= 5);
        world.agents();
    }
    assert_eq!(on(&world, web, 1), 0);
    assert_eq!(world.running(web).len(), 6);
    let moved = Reason::Reschedule(Moved::NodeDrained);
    assert_eq!(world.running(web).iter().filter(|task| task.reason == moved).count(), 3);
    // Active again moves nothing back by itself.
    world.availability(NodeId(1), Availability::Active);
    world.settle();
    assert_eq!(on(&world, web, 1), 0);
}

#[test]
fn services_move_side_by_side() {
    let mut world = World::with_nodes(1);
    let services: Vec<ServiceId> =
        (1..=3).map(|id| world.create(id, spec(&format!("s{id}"), 2))).collect();
    world.settle();
    world.join(NodeId(2), 1 << 30);
    world.availability(NodeId(1), Availability::Drain);
    world.plan();
    for service in services {
        assert_eq!(on(&world, service, 2), 1);
    }
}

#[test]
fn a_drain_empties_the_node_even_when_nothing_else_can_take_the_tasks() {
    let mut world = World::with_nodes(1);
    let web = world.create(1, spec("web", 3));
    world.settle();
    world.availability(NodeId(1), Availability::Drain);
    world.settle();
    assert!(world.running(web).is_empty());
    for task in world.holders(web) {
        assert_eq!(task.node, None);
        assert_eq!(task.status.message.as_deref(), Some("no suitable node: 1 node drained"));
    }
    world.availability(NodeId(1), Availability::Active);
    world.settle();
    assert_eq!(world.running(web).len(), 3);
}

#[test]
fn tasks_that_do_not_run_do_not_hold_a_drain() {
    let mut world = World::with_nodes(2);
    let mut bad = spec("bad", 2);
    bad.task.container.image = CRASH.into();
    let bad = world.create(1, bad);
    for _ in 0..30 {
        world.plan();
        world.agents();
    }
    world.availability(NodeId(1), Availability::Drain);
    for _ in 0..30 {
        world.plan();
        world.agents();
    }
    assert_eq!(on(&world, bad, 1), 0);
    assert!(world.state.tasks_of_node(NodeId(1)).all(|task| !task.holds_resources()));
}

#[test]
fn a_label_that_goes_evicts_and_one_that_comes_attracts() {
    let mut world = World::with_nodes(2);
    world.label(NodeId(1), "rack", "a");
    let mut spec = spec("web", 2);
    spec.task.placement.constraints = vec!["node.labels.rack==a".parse().expect("parses")];
    let web = world.create(1, spec);
    world.settle();
    assert_eq!(world.spread(web), [2, 0]);
    world.label(NodeId(2), "rack", "a");
    world.label(NodeId(1), "rack", "b");
    world.settle();
    assert_eq!(world.spread(web), [0, 2]);
    assert_eq!(world.running(web).len(), 2);
    let reason = &world.holder(web, 1).reason;
    assert_eq!(*reason, Reason::Reschedule(Moved::ConstraintsNotMet));
}

#[test]
fn a_paused_node_keeps_its_tasks_and_gets_no_new_ones() {
    let mut world = World::with_nodes(2);
    let web = world.create(1, spec("web", 2));
    world.settle();
    world.availability(NodeId(1), Availability::Pause);
    world.scale(web, 4);
    world.settle();
    assert_eq!(world.spread(web), [1, 3]);
}
