//! Updates.

use cluster_model::{Desired, Observed, Reason, ServiceId};

use crate::world::{BAD, CRASH, World, spec};

fn world(replicas: u32) -> (World, ServiceId) {
    let mut world = World::with_nodes(3);
    let web = world.create(1, spec("web", replicas));
    world.settle();
    (world, web)
}

fn revisions(world: &World, web: ServiceId) -> Vec<u32> {
    world.holders(web).iter().map(|task| task.revision).collect()
}

#[test]
fn slots_are_replaced_one_at_a_time_old_ones_stopped_first() {
    let (mut world, web) = world(4);
    world.set_image(web, "web:2");
    let mut seen = Vec::new();
    for _ in 0..100 {
        world.plan();
        assert!(world.running(web).len() >= 3);
        if seen.last() != Some(&revisions(&world, web)) {
            seen.push(revisions(&world, web));
        }
        world.agents();
        world.advance(100);
    }
    let expected =
        [[2, 1, 1, 1], [2, 2, 1, 1], [2, 2, 2, 1], [2, 2, 2, 2]].map(|list| list.to_vec());
    assert_eq!(seen, expected);
    assert_eq!(world.running(web).len(), 4);
    assert!(world.running(web).iter().all(|task| task.reason == Reason::Update));
}

#[test]
fn the_successor_is_prepared_while_the_old_one_stops() {
    let (mut world, web) = world(1);
    world.set_image(web, "web:2");
    world.plan();
    let new = world.holder(web, 1);
    assert_eq!((new.desired, new.node.is_some()), (Desired::Ready, true));
}

#[test]
fn a_change_of_replicas_alone_replaces_nothing() {
    let (mut world, web) = world(2);
    world.scale(web, 3);
    world.settle();
    assert_eq!(revisions(&world, web), [1, 1, 1]);
}

#[test]
fn a_revision_that_does_not_come_up_costs_one_slot() {
    for image in [BAD, CRASH] {
        let (mut world, web) = world(4);
        world.set_image(web, image);
        for _ in 0..300 {
            world.plan();
            let up = world.running(web).iter().filter(|task| task.revision == 1).count();
            assert_eq!(up, 3, "{image}");
            world.agents();
            world.advance(500);
        }
        world.set_image(web, "web:3");
        world.settle_through_waits();
        assert_eq!(revisions(&world, web), [3, 3, 3, 3]);
        assert_eq!(world.running(web).len(), 4);
    }
}

#[test]
fn a_spent_new_revision_holds_the_update_too() {
    let (mut world, web) = world(3);
    world.update(web, |spec| {
        spec.task.container.image = CRASH.into();
        spec.task.restart.max_attempts = Some(1);
    });
    world.settle_through_waits();
    assert_eq!(world.running(web).iter().filter(|task| task.revision == 1).count(), 2);
    assert_eq!(world.holders(web).len(), 2);
}

#[test]
fn an_unplaceable_revision_costs_one_slot() {
    let (mut world, web) = world(3);
    world.update(web, |spec| {
        spec.task.placement.constraints = vec!["node.labels.rack==x".parse().expect("parses")];
    });
    world.settle_through_waits();
    assert_eq!(world.running(web).len(), 2);
}

#[test]
fn slots_that_do_not_run_go_first() {
    let (mut world, web) = world(3);
    let third = world.holder(web, 3).id;
    world.ends(third, Observed::Failed);
    world.set_image(web, "web:2");
    world.plan();
    assert_eq!(revisions(&world, web), [1, 1, 2]);
    world.settle_through_waits();
    assert_eq!(revisions(&world, web), [2, 2, 2]);
}

#[test]
fn a_newer_revision_midway_converges() {
    let (mut world, web) = world(4);
    world.set_image(web, "web:2");
    for _ in 0..8 {
        world.plan();
        world.agents();
        world.advance(100);
    }
    assert!(revisions(&world, web).contains(&1) && revisions(&world, web).contains(&2));
    world.set_image(web, "web:3");
    world.settle_through_waits();
    assert_eq!(revisions(&world, web), [3, 3, 3, 3]);
    assert_eq!(world.running(web).len(), 4);
}

#[test]
fn tasks_that_never_found_a_node_do_not_hold_the_update_of_the_others() {
    let mut world = World::with_nodes(1);
    let mut spec = spec("web", 5);
    spec.task.reservations.memory_bytes = 300 << 20;
    let web = world.create(1, spec);
    world.settle();
    assert_eq!(world.running(web).len(), 3);
    world.set_image(web, "web:2");
    world.settle_through_waits();
    assert_eq!(revisions(&world, web), [2; 5]);
    assert_eq!(world.running(web).len(), 3);
}

#[test]
fn a_lost_node_midway_does_not_spread_a_bad_revision() {
    let (mut world, web) = world(6);
    world.set_image(web, BAD);
    world.plan();
    world.agents();
    world.plan();
    let node = world.running(web)[2].node.expect("placed");
    world.cut_off(node);
    world.advance(4_000);
    for _ in 0..10 {
        world.plan();
        world.agents();
    }
    let old = world.running(web).iter().filter(|task| task.revision == 1).count();
    assert_eq!(old, 5);
}
