//! Start first: the old task serves until the new one does.

use cluster_model::spec::{Amount, HostPort, Order};
use cluster_model::{Availability, NodeId, Observed, Reason, RolloutState, ServiceId, Task};

use crate::world::{BAD, CRASH, LEASE_MS, MIB, UNREADY, World, spec};

fn world(nodes: u64, replicas: u32) -> (World, ServiceId) {
    let mut world = World::with_nodes(nodes);
    let mut spec = spec("web", replicas);
    spec.update.order = Order::StartFirst;
    spec.rollback.order = Order::StartFirst;
    spec.task.reservations.memory_bytes = 100 * MIB;
    let web = world.create(1, spec);
    world.settle();
    world.advance(10);
    (world, web)
}

fn beside(world: &World, web: ServiceId) -> Vec<&Task> {
    let tasks = world.holders(web);
    let holder = |task: &Task| world.holder(web, task.slot).id;
    tasks.into_iter().filter(|task| holder(task) != task.id).collect()
}

#[test]
fn old_tasks_go_only_when_new_ones_serve() {
    let (mut world, web) = world(3, 5);
    world.update(web, |spec| {
        spec.task.container.image = UNREADY.into();
        spec.update.parallelism = Amount::Count(2);
    });
    world.live(20_000);
    assert_eq!(world.serving(web, 1), 5);
    assert_eq!(beside(&world, web).len(), 2);
    world.healed = true;
    while world.rollout(web).state != RolloutState::Completed {
        world.live(50);
        assert!(world.running(web).len() >= 5, "never fewer than asked for");
    }
    assert_eq!(world.serving(web, 2), 5);
    assert_eq!(world.holders(web).len(), 5);
}

#[test]
fn a_new_task_that_ends_leaves_the_old_one_alone_and_is_withdrawn_by_the_pause() {
    for image in [BAD, CRASH] {
        let (mut world, web) = world(3, 3);
        let old: Vec<Task> = world.running(web).into_iter().cloned().collect();
        world.set_image(web, image);
        world.live(5_000);
        let rollout = world.rollout(web);
        assert_eq!((rollout.state, rollout.failures), (RolloutState::Paused, 1), "{image}");
        for task in &old {
            assert_eq!(world.state.task(task.id), Some(task), "{image}");
        }
        assert_eq!(world.holders(web).len(), 3);
        assert!(world.tasks(web).iter().any(|task| task.reason == Reason::Withdrawn));
    }
}

#[test]
fn within_the_ratio_a_failed_newcomer_is_tried_again_while_others_move() {
    let (mut world, web) = world(3, 3);
    world.update(web, |spec| {
        spec.task.container.image = CRASH.into();
        spec.update.max_failure_ratio_ppm = 400_000;
    });
    while world.rollout(web).failures == 0 {
        world.live(50);
    }
    world.live(50);
    assert!(beside(&world, web).iter().any(|task| task.restarts > 0), "tried again");
    assert_eq!(world.serving(web, 1), 3);
    world.healed = true;
    world.settle_through_waits();
    assert_eq!(world.serving(web, 2), 3);
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
}

#[test]
fn spent_newcomers_end_the_rollout_with_a_word() {
    let (mut world, web) = world(3, 1);
    world.update(web, |spec| {
        spec.task.container.image = CRASH.into();
        spec.task.restart.max_attempts = Some(1);
        spec.update.max_failure_ratio_ppm = 1_000_000;
    });
    world.settle_through_waits();
    let rollout = world.rollout(web);
    assert_eq!(rollout.state, RolloutState::Paused);
    assert!(rollout.message.contains("allows no other attempt"), "{}", rollout.message);
    assert_eq!(world.serving(web, 1), 1);
    assert_eq!(world.holders(web).len(), 1);
}

#[test]
fn without_room_for_both_a_slot_is_replaced_stop_first() {
    let (mut world, web) = world(1, 1);
    world.update(web, |spec| spec.task.reservations.memory_bytes = 900 * MIB);
    world.settle_through_waits();
    assert_eq!(world.serving(web, 2), 1, "the first move finds room");
    world.update(web, |spec| spec.task.container.image = "web:2".into());
    world.plan();
    let told = "slot 1 is replaced stop-first: no room to start it beside the old task";
    assert_eq!(&*world.rollout(web).message, told);
    world.settle_through_waits();
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
    assert_eq!(world.holder(web, 1).revision, 3);
    let events = &world.state.service(web).expect("known").events;
    assert!(events.iter().any(|event| event.text.contains(told)), "{events:?}");
}

#[test]
fn what_no_node_could_take_costs_no_old_task_and_ends_at_the_deadline() {
    let impossible: [fn(&mut cluster_model::spec::TaskSpec); 2] = [
        |task| {
            task.placement.constraints = vec!["node.labels.rack==x".parse().expect("parses")];
        },
        |task| task.reservations.memory_bytes = 5_000 * MIB,
    ];
    for edit in impossible {
        let (mut world, web) = world(2, 2);
        world.update(web, |spec| {
            edit(&mut spec.task);
            spec.task.container.image = "web:2".into();
            spec.update.progress_deadline_ms = Some(30_000);
        });
        world.live(29_000);
        assert_eq!(world.rollout(web).state, RolloutState::Running);
        assert_eq!(world.serving(web, 1), 2);
        world.live(2_000);
        let rollout = world.rollout(web);
        assert_eq!(rollout.state, RolloutState::Paused);
        assert!(rollout.message.contains("no suitable node"), "{}", rollout.message);
        assert_eq!(world.serving(web, 1), 2);
        assert_eq!(world.holders(web).len(), 2, "the newcomer is withdrawn");
    }
}

#[test]
fn a_host_port_of_another_service_is_no_lack_of_room() {
    let (mut world, web) = world(1, 1);
    let mut other = spec("other", 1);
    other.task.host_ports = vec![HostPort { published: 80, target: 80 }];
    world.create(2, other);
    world.settle();
    world.update(web, |spec| {
        spec.task.host_ports = vec![HostPort { published: 80, target: 80 }];
        // Asks for too much to be placed beside the old one, whatever the scheduler knows of ports.
        spec.task.reservations.memory_bytes = 1_000 * MIB;
    });
    world.live(10_000);
    assert_eq!(world.serving(web, 1), 1);
}

#[test]
fn when_the_old_task_dies_the_newcomer_takes_over() {
    let (mut world, web) = world(3, 1);
    world.set_image(web, UNREADY);
    world.live(1_000);
    let (old, new) = (world.holder(web, 1).id, beside(&world, web)[0].id);
    world.ends(old, Observed::Failed);
    world.plan();
    assert_eq!(world.holders(web).iter().map(|task| task.id).collect::<Vec<_>>(), [new]);
    world.healed = true;
    world.settle_through_waits();
    assert_eq!(world.running(web).iter().map(|task| task.id).collect::<Vec<_>>(), [new]);
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
}

#[test]
fn a_lost_node_takes_one_of_both() {
    for lose_old in [true, false] {
        let (mut world, web) = world(3, 1);
        world.set_image(web, UNREADY);
        world.live(1_000);
        let (old, new) = (world.holder(web, 1).clone(), beside(&world, web)[0].clone());
        assert_ne!(old.node, new.node);
        let lost = if lose_old { &old } else { &new };
        world.cut_off(lost.node.expect("placed"));
        world.advance(LEASE_MS + 1);
        world.live(1_000);
        assert_eq!(world.rollout(web).failures, 0);
        if lose_old {
            assert_eq!(world.holder(web, 1).id, new.id);
            assert_eq!(world.holders(web).len(), 1);
        } else {
            assert_eq!(world.holder(web, 1).id, old.id);
            assert_eq!(beside(&world, web).len(), 1, "another starts beside it");
        }
        world.healed = true;
        world.settle_through_waits();
        assert_eq!(world.serving(web, 2), 1);
    }
}

#[test]
fn a_scale_down_removes_both_and_a_drain_is_not_held_by_either() {
    let (mut world, web) = world(3, 2);
    world.update(web, |spec| {
        spec.task.container.image = UNREADY.into();
        spec.update.parallelism = Amount::Count(2);
    });
    world.live(1_000);
    assert_eq!(world.holders(web).len(), 4);
    world.scale(web, 1);
    world.live(1_000);
    assert_eq!(world.holders(web).len(), 2);
    for node in [1, 2, 3] {
        world.availability(NodeId(node), Availability::Drain);
        world.live(2_000);
        let left = world.state.tasks_of_node(NodeId(node)).filter(|task| task.holds_resources());
        assert_eq!(left.count(), 0, "node {node} is not empty");
        assert_eq!(world.serving(web, 1), 1);
        world.availability(NodeId(node), Availability::Active);
    }
    world.healed = true;
    world.settle_through_waits();
    assert_eq!((world.serving(web, 2), world.holders(web).len()), (1, 1));
}
