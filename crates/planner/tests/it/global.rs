//! Services with a slot for each node.

use cluster_model::spec::Mode;
use cluster_model::{Availability, Desired, NodeId, ServiceId};
use cluster_planner::Scope;

use crate::world::{LEASE_MS, MIB, World, spec};

fn agents(world: &mut World) -> ServiceId {
    let mut spec = spec("agents", 0);
    spec.mode = Mode::Global;
    world.create(1, spec)
}

#[test]
fn every_node_has_one_and_nodes_that_join_get_one_in_the_same_pass() {
    let mut world = World::with_nodes(2);
    let service = agents(&mut world);
    world.settle();
    assert_eq!(world.spread(service), [1, 1]);
    world.join(NodeId(3), 1024 * MIB);
    world.join(NodeId(4), 1024 * MIB);
    world.plan();
    assert_eq!(world.spread(service), [1, 1, 1, 1]);
    let slots: Vec<u32> = world.holders(service).iter().map(|task| task.slot).collect();
    assert_eq!(slots, [1, 2, 3, 4]);
}

#[test]
fn a_drained_node_loses_its_task_and_nothing_is_placed_elsewhere() {
    let mut world = World::with_nodes(3);
    let service = agents(&mut world);
    world.settle();
    world.availability(NodeId(2), Availability::Drain);
    world.settle();
    assert_eq!(world.spread(service), [1, 0, 1]);
    assert_eq!(world.tasks(service).len(), 2, "no history of the slot stays");
    world.availability(NodeId(2), Availability::Active);
    world.settle();
    assert_eq!(world.spread(service), [1, 1, 1]);
}

#[test]
fn a_paused_node_keeps_its_task_but_updates_do_not_reach_it() {
    let mut world = World::with_nodes(3);
    let service = agents(&mut world);
    world.settle();
    world.availability(NodeId(2), Availability::Pause);
    world.set_image(service, "web:2");
    world.settle_through_waits();
    let revisions: Vec<u32> = world.running(service).iter().map(|task| task.revision).collect();
    let paused = world.running(service).into_iter().find(|t| t.node == Some(NodeId(2)));
    assert_eq!(paused.expect("still runs").revision, 1);
    assert_eq!(revisions.iter().filter(|revision| **revision == 2).count(), 2);
    world.availability(NodeId(2), Availability::Active);
    world.settle_through_waits();
    assert!(world.running(service).iter().all(|task| task.revision == 2));
}

#[test]
fn a_node_that_joins_paused_gets_nothing() {
    let mut world = World::with_nodes(1);
    let service = agents(&mut world);
    world.join(NodeId(2), 1024 * MIB);
    world.availability(NodeId(2), Availability::Pause);
    world.settle();
    assert_eq!(world.spread(service), [1, 0]);
}

#[test]
fn constraints_decide_and_a_label_that_changes_acts_at_once() {
    let mut world = World::with_nodes(3);
    world.label(NodeId(1), "disk", "ssd");
    let mut spec = spec("agents", 0);
    spec.mode = Mode::Global;
    spec.task.placement.constraints.push("node.labels.disk==ssd".parse().expect("parses"));
    let service = world.create(1, spec);
    world.settle();
    assert_eq!(world.spread(service), [1, 0, 0]);
    world.label(NodeId(3), "disk", "ssd");
    world.label(NodeId(1), "disk", "hdd");
    world.settle();
    assert_eq!(world.spread(service), [0, 0, 1]);
}

#[test]
fn a_silent_node_is_not_replaced_and_has_its_task_again_when_it_returns() {
    let mut world = World::with_nodes(2);
    let service = agents(&mut world);
    world.settle();
    world.cut_off(NodeId(2));
    world.advance(LEASE_MS + 1);
    world.settle();
    assert_eq!(world.spread(service), [1, 0]);
    assert_eq!(world.holders(service).len(), 1, "nothing waits either");
    world.cut.clear();
    world.settle();
    assert_eq!(world.spread(service), [1, 1]);
    assert_eq!(world.live.len(), 2, "the stale task stopped");
}

#[test]
fn a_removed_node_leaves_nothing() {
    let mut world = World::with_nodes(2);
    let service = agents(&mut world);
    world.settle();
    let command =
        cluster_model::Command::RemoveNode { id: NodeId(2), force: true, at_ms: world.now_ms };
    world.apply(command).expect("removed");
    world.settle();
    assert_eq!(world.tasks(service).len(), 1);
    world.join(NodeId(3), 1024 * MIB);
    world.settle();
    let slots: Vec<u32> = world.holders(service).iter().map(|task| task.slot).collect();
    assert_eq!(slots, [1, 2]);
}

#[test]
fn a_failed_task_starts_again_on_its_own_node() {
    let mut world = World::with_nodes(2);
    let service = agents(&mut world);
    world.settle();
    let id = world.holder(service, 2).id;
    world.ends(id, cluster_model::Observed::Failed);
    world.settle_through_waits();
    assert_eq!(world.spread(service), [1, 1]);
    assert_eq!(world.holder(service, 2).restarts, 1);
    assert_eq!(world.state.task(id).expect("kept").desired, Desired::Shutdown);
}

#[test]
fn two_leaders_give_a_node_one_slot() {
    let mut world = World::new();
    world.join(NodeId(2), 1024 * MIB);
    let service = agents(&mut world);
    let one = world.make_plan(Scope::All).changes;
    world.join(NodeId(1), 1024 * MIB);
    let two = world.make_plan(Scope::All).changes;
    world.apply_plan(one);
    world.apply_plan(two);
    assert_eq!(world.spread(service), [0, 1], "slot 2 of the second plan is node 2's again");
    world.settle();
    assert_eq!(world.spread(service), [1, 1]);
}

/// A typing error costs what the update's bounds allow, as for replicated services.
#[test]
fn a_constraint_that_no_node_meets_does_not_stop_every_task() {
    let mut world = World::with_nodes(4);
    let service = agents(&mut world);
    world.settle();
    world.update(service, |spec| {
        spec.task.placement.constraints = vec!["node.labels.rak==a".parse().expect("parses")];
    });
    world.live(5_000);
    assert_eq!(world.running(service).len(), 3, "one slot tried it");
    world.roll_back(service).expect("rolled back");
    world.settle_through_waits();
    assert_eq!(world.running(service).len(), 4);

    // What some nodes meet is meant: the others lose their tasks.
    world.label(NodeId(1), "rack", "a");
    world.update(service, |spec| {
        spec.task.placement.constraints = vec!["node.labels.rack==a".parse().expect("parses")];
    });
    world.settle_through_waits();
    assert_eq!(world.spread(service), [1, 0, 0, 0]);
}
