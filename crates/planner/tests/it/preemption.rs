//! Tasks of high priority take the room of those of low priority, no more than they need.

use cluster_model::spec::{Amount, HostPort, ServiceSpec};
use cluster_model::task::Moved;
use cluster_model::{Change, Desired, NodeId, Reason, ServiceId, TaskId};

use crate::world::{MIB, World, spec};

fn with(name: &str, replicas: u32, priority: u8, memory_mib: u64) -> ServiceSpec {
    let mut spec = spec(name, replicas);
    spec.priority = priority;
    spec.task.reservations.memory_bytes = memory_mib * MIB;
    spec
}

fn victims(changes: &[Change]) -> Vec<TaskId> {
    let preempted = Reason::Reschedule(Moved::Preempted);
    changes
        .iter()
        .filter_map(|change| match change {
            Change::SetDesired { task, desired: Desired::Shutdown, reason }
                if *reason == preempted =>
            {
                Some(*task)
            }
            _ => None,
        })
        .collect()
}

fn message(world: &World, service: ServiceId, slot: u32) -> String {
    world.holder(service, slot).status.details.message.as_deref().expect("says why").to_owned()
}

#[test]
fn a_task_of_high_priority_takes_room_and_the_victim_goes_elsewhere() {
    let mut world = World::with_nodes(1);
    let low = world.create(1, with("low", 2, 50, 500));
    world.settle();
    let high = world.create(2, with("high", 1, 60, 500));
    world.join(NodeId(2), 100 * MIB);
    let taken = victims(&world.plan());
    assert_eq!(taken.len(), 1);
    let victim = world.state.task(taken[0]).expect("stops").slot;
    assert_eq!(
        message(&world, high, 1),
        format!("waits for room: preempts low.{victim} on node-1")
    );
    assert_eq!(world.holder(low, victim).desired, Desired::Ready);
    // Nothing more is taken while it stops.
    assert_eq!(world.plan(), []);
    world.settle();
    assert_eq!(world.running(high).len(), 1);
    assert_eq!(world.running(low).len(), 1);
    assert!(message(&world, low, victim).contains("insufficient memory"));
    world.join(NodeId(3), 1024 * MIB);
    world.settle();
    assert_eq!(world.running(low).len(), 2);
}

#[test]
fn near_priorities_and_the_service_itself_are_never_taken() {
    let mut world = World::with_nodes(1);
    let low = world.create(1, with("low", 2, 50, 500));
    world.settle();
    world.create(2, with("near", 1, 59, 500));
    world.settle();
    assert_eq!(world.running(low).len(), 2);
    world.scale(low, 3);
    world.settle();
    assert_eq!(world.running(low).len(), 2);
}

#[test]
fn the_lowest_and_then_the_fewest_go() {
    let mut world = World::with_nodes(2);
    // Node 1: three tasks of priority 20; node 2: one of 20 and one of 10.
    world.availability(NodeId(2), cluster_model::Availability::Pause);
    let many = world.create(1, with("many", 3, 20, 300));
    world.settle();
    world.availability(NodeId(2), cluster_model::Availability::Active);
    let one = world.create(2, with("one", 1, 10, 400));
    let mid = world.create(3, with("mid", 1, 30, 500));
    world.settle();
    let high = world.create(4, with("high", 1, 90, 350));
    let taken = victims(&world.plan());
    assert_eq!(taken.len(), 1, "one large task of low priority is enough");
    assert_eq!(world.state.task(taken[0]).expect("stops").service, one);
    world.settle();
    assert_eq!(world.running(high).len(), 1);
    assert_eq!((world.running(many).len(), world.running(mid).len()), (3, 1));
}

#[test]
fn a_port_is_taken_from_its_holder_only() {
    let mut world = World::with_nodes(1);
    let bystander = world.create(1, with("bystander", 1, 0, 10));
    let mut low = with("low", 1, 10, 10);
    low.task.host_ports = vec![HostPort { published: 80, target: 80 }];
    let low = world.create(2, low);
    world.settle();
    let mut high = with("high", 1, 50, 10);
    high.task.host_ports = vec![HostPort { published: 80, target: 80 }];
    let high = world.create(3, high);
    world.settle();
    assert_eq!(world.running(high).len(), 1);
    assert_eq!(world.running(bystander).len(), 1);
    assert!(world.running(low).is_empty());
}

#[test]
fn budgets_are_kept_when_there_is_an_alternative() {
    let mut world = World::with_nodes(2);
    world.availability(NodeId(2), cluster_model::Availability::Pause);
    // Cheaper by priority, but it may lose none.
    let mut kept = with("kept", 1, 15, 600);
    kept.max_unavailable = Amount::Count(0);
    let kept = world.create(1, kept);
    world.settle();
    world.availability(NodeId(2), cluster_model::Availability::Active);
    let spare = world.create(2, with("spare", 1, 20, 600));
    world.settle();
    let high = world.create(3, with("high", 1, 90, 600));
    world.settle();
    assert_eq!(world.running(kept).len(), 1);
    assert_eq!(world.running(spare).len(), 0);
    // Without one it goes all the same.
    world.scale(high, 2);
    world.settle();
    assert_eq!(world.running(high).len(), 2);
    assert!(world.running(kept).is_empty());
}

#[test]
fn nodes_that_fail_for_other_reasons_lose_nothing() {
    let mut world = World::with_nodes(1);
    let low = world.create(1, with("low", 1, 10, 1000));
    world.settle();
    let mut high = with("high", 1, 90, 1000);
    high.task.placement.constraints = vec!["node.labels.rack==a".parse().expect("parses")];
    world.create(2, high);
    world.create(3, with("huge", 1, 90, 2000));
    world.settle();
    assert_eq!(world.running(low).len(), 1);
}

#[test]
fn freed_room_is_not_given_to_those_behind() {
    let mut world = World::with_nodes(1);
    let low = world.create(1, with("low", 4, 50, 250));
    world.settle();
    let high = world.create(2, with("high", 1, 80, 500));
    let taken = victims(&world.plan());
    assert_eq!(taken.len(), 2);
    // One of the victims has ended: its room alone is enough for others, but promised.
    world.ends(taken[0], cluster_model::Observed::Shutdown);
    world.create(3, with("small", 1, 55, 200));
    world.plan();
    assert_eq!(world.state.usage(NodeId(1)).tasks, 3);
    world.ends(taken[1], cluster_model::Observed::Shutdown);
    world.plan();
    assert!(world.holder(high, 1).node.is_some());
    world.settle();
    assert_eq!(world.running(high).len(), 1);
    assert_eq!(world.running(low).len(), 2);
}

#[test]
fn pending_tasks_are_placed_by_priority() {
    let mut world = World::with_nodes(1);
    let low = world.create(1, with("low", 2, 45, 600));
    world.now_ms += 1_000;
    let high = world.create(2, with("high", 1, 50, 600));
    world.settle();
    assert_eq!(world.running(high).len(), 1);
    assert!(world.running(low).is_empty());
}

#[test]
fn many_victims_go_over_several_rounds() {
    let mut world = World::with_nodes(3);
    let low = world.create(1, with("low", 300, 0, 10));
    world.settle();
    let high = world.create(2, with("high", 300, 100, 10));
    world.settle();
    assert_eq!(world.running(high).len(), 300);
    assert_eq!(world.running(low).len(), 6);
}
