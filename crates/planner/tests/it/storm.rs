//! The storm guard.

use cluster_model::{Availability, Change, Command, NodeId};
use cluster_planner::{Held, liveness, storm};

use crate::world::{LEASE_MS, World, spec};

fn silence(world: &mut World, nodes: impl IntoIterator<Item = u64>) {
    for node in nodes {
        world.cut_off(NodeId(node));
    }
    world.advance(LEASE_MS + 1);
    world.settle();
}

#[test]
fn when_most_nodes_fall_silent_nothing_is_moved_and_it_ends_by_itself() {
    let mut world = World::with_nodes(10);
    let id = world.create(1, spec("web", 20));
    world.settle();
    let before: Vec<_> = world.tasks(id).iter().map(|task| task.id).collect();
    silence(&mut world, 1..=6);
    let storm = storm::assess(&world.state, world.now_ms).expect("a storm");
    assert_eq!((storm.down, storm.total), (6, 10));
    assert!(storm.text.contains("6 of 10 nodes"), "{}", storm.text);
    let held = world.holders(id).into_iter().find(|t| t.node == Some(NodeId(1))).expect("held");
    assert_eq!(
        Held::of(&world.state, world.now_ms).why(held).expect("says why"),
        "node node-1 is down with 6 of the 10 nodes of the cluster; nothing is replaced until at most \
         half are (storm guard)"
    );
    world.advance(3_600_000);
    world.settle();
    world.cut.clear();
    world.settle();
    assert_eq!(storm::assess(&world.state, world.now_ms), None);
    let after: Vec<_> = world.tasks(id).iter().map(|task| task.id).collect();
    assert_eq!(before, after, "nothing was needlessly moved");
}

#[test]
fn it_resumes_when_at_most_half_are_down() {
    let mut world = World::with_nodes(6);
    let id = world.create(1, spec("web", 6));
    world.settle();
    silence(&mut world, 1..=4);
    assert!(storm::assess(&world.state, world.now_ms).is_some());
    world.cut.retain(|node| *node != NodeId(1));
    world.settle();
    assert!(storm::assess(&world.state, world.now_ms).is_some(), "the others may follow");
    assert!(world.wake_at_ms.is_some_and(|at_ms| at_ms <= world.now_ms + storm::RETURN_MS));
    world.advance(storm::RETURN_MS + 1);
    world.settle();
    assert_eq!(storm::assess(&world.state, world.now_ms), None);
    let on_silent = |node: NodeId| world.holders(id).iter().any(|t| t.node == Some(node));
    assert!(![2, 3, 4].into_iter().any(|node| on_silent(NodeId(node))));
    assert_eq!(world.running(id).len(), 6);
}

#[test]
fn an_operator_can_end_it() {
    let mut world = World::with_nodes(5);
    let id = world.create(1, spec("web", 5));
    world.settle();
    silence(&mut world, 1..=3);
    let at_ms = world.now_ms;
    world.apply(Command::RemoveNode { id: NodeId(1), force: false, at_ms }).expect("removed");
    world.settle();
    assert!(storm::assess(&world.state, world.now_ms).is_none(), "2 of 4 are no storm");
    assert_eq!(world.running(id).len(), 5);

    let mut world = World::with_nodes(5);
    let id = world.create(1, spec("web", 5));
    world.settle();
    silence(&mut world, 1..=3);
    world.availability(NodeId(1), Availability::Drain);
    world.settle();
    assert_eq!(world.running(id).len(), 5);
}

#[test]
fn two_of_three_are_no_storm_and_slow_losses_are_none_either() {
    let mut world = World::with_nodes(3);
    let id = world.create(1, spec("web", 3));
    world.settle();
    silence(&mut world, 1..=2);
    assert_eq!(storm::assess(&world.state, world.now_ms), None);
    assert_eq!(world.running(id).len(), 3);

    let mut world = World::with_nodes(5);
    for node in 1..=4 {
        silence(&mut world, [node]);
        world.advance(20_000);
    }
    assert_eq!(storm::assess(&world.state, world.now_ms), None);
}

#[test]
fn zones_weather_their_own_storms() {
    let mut world = World::with_nodes(9);
    for node in 1..=9 {
        world.label(NodeId(node), "zone", if node <= 4 { "a" } else { "b" });
    }
    let id = world.create(1, spec("web", 9));
    world.settle();
    silence(&mut world, [1, 2, 3, 9]);
    let storm = storm::assess(&world.state, world.now_ms).expect("a storm");
    assert_eq!((storm.zones, storm.down, storm.total), (vec!["a".to_owned()], 3, 4));
    let held = |node: u64| world.holders(id).iter().any(|t| t.node == Some(NodeId(node)));
    assert!(held(1) && held(2) && held(3) && !held(9), "the other zone is replaced");
}

#[test]
fn nodes_that_fall_silent_together_are_declared_down_together() {
    let world = World::with_nodes(5);
    // Four were last heard within a second; node 5 is well.
    let leases = |now_ms: u64| {
        move |id: NodeId| Some(if id == NodeId(5) { now_ms } else { 10_000 + 250 * id.0 })
    };
    let plan = |now_ms: u64| liveness::plan(&world.state, &leases(now_ms), 3_000, now_ms);
    let first = plan(13_251);
    assert_eq!(first.changes, []);
    assert!(first.wake_at_ms.is_some_and(|at_ms| at_ms <= 14_001));
    let downs = plan(14_001).changes.len();
    assert_eq!(downs, 4);

    // One that is late for ever does not hold up the others.
    let stuck = |id: NodeId| Some(if id == NodeId(1) { 10_000 } else { 12_500 });
    let plan = liveness::plan(&world.state, &stuck, 3_000, 14_501);
    assert!(matches!(plan.changes[..], [Change::NodeDown { node: NodeId(1), .. }]), "{plan:?}");
}
