//! Updates: lanes, settling, completion; stop first.

use cluster_model::spec::Amount;
use cluster_model::{Command, Desired, NodeId, Observed, Reason, RolloutState, ServiceId};

use crate::world::{BAD, CRASH, UNREADY, World, spec};

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

#[test]
fn lanes_and_delay_bound_what_moves_at_once_and_a_rollback_has_its_own() {
    let (mut world, web) = world(5);
    world.update(web, |spec| {
        spec.task.container.image = "web:2".into();
        spec.update.parallelism = Amount::Count(2);
        spec.update.delay_ms = 4_000;
        spec.rollback.parallelism = Amount::Count(3);
        spec.rollback.delay_ms = 1_000;
    });
    let mut seen = Vec::new();
    let mut watch = |world: &mut World, ms| {
        for _ in 0..ms / 50 {
            world.live(50);
            assert!(world.running(web).len() >= 2, "more than the bounds allow are down");
            let counts = (world.serving(web, 1), world.serving(web, 2));
            if counts.0 + counts.1 == 5 && seen.last() != Some(&counts) {
                seen.push(counts);
            }
        }
        std::mem::take(&mut seen)
    };
    let begun_ms = world.now_ms;
    assert_eq!(watch(&mut world, 20_000), [(3, 2), (1, 4), (0, 5)]);
    let rollout = world.rollout(web);
    assert_eq!((rollout.state, rollout.total, rollout.done), (RolloutState::Completed, 5, 5));
    assert!(rollout.since_ms > begun_ms + 8_000 + 5_000, "delays and the last monitor time");
    world.roll_back(web).expect("rolled back");
    assert_eq!(watch(&mut world, 12_000), [(3, 2), (5, 0)]);
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
}

/// A revision is proven once, after that a slot makes way as soon as it serves.
#[test]
fn ten_slots_in_two_lanes_take_a_second_and_five_starts() {
    let (mut world, web) = world(10);
    world.update(web, |spec| {
        spec.task.container.image = "web:2".into();
        spec.update.parallelism = Amount::Count(2);
    });
    let begun_ms = world.now_ms;
    while world.serving(web, 2) < 10 {
        assert!(world.running(web).len() >= 8);
        world.live(50);
    }
    // Four steps of 50 ms a start, one of the planner between two.
    let took_ms = world.now_ms - begun_ms;
    assert!((1_000..=2_500).contains(&took_ms), "{took_ms} ms");
    assert_eq!(world.rollout(web).state, RolloutState::Running);
    world.live(5_500);
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
}

#[test]
fn all_slots_move_at_once_when_the_count_is_zero_and_half_of_them_at_fifty_percent() {
    for (parallelism, at_once) in [(Amount::Count(0), 5), (Amount::Percent(50), 3)] {
        let (mut world, web) = world(5);
        world.update(web, |spec| {
            spec.task.container.image = "web:2".into();
            spec.update.parallelism = parallelism;
        });
        world.plan();
        assert_eq!(revisions(&world, web).iter().filter(|one| **one == 2).count(), at_once);
    }
}

#[test]
fn a_slot_that_runs_but_is_not_ready_holds_its_lane() {
    let (mut world, web) = world(3);
    world.set_image(web, UNREADY);
    world.live(30_000);
    assert_eq!(revisions(&world, web), [2, 1, 1]);
    assert_eq!(world.rollout(web).state, RolloutState::Running);
    world.healed = true;
    world.settle_through_waits();
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
}

/// A grace period of any length: the old task is gone before the new one runs.
#[test]
fn the_successor_runs_when_the_exit_of_the_old_one_is_reported() {
    let (mut world, web) = world(1);
    let old = world.holder(web, 1).clone();
    let others: Vec<NodeId> = [1, 2, 3].map(NodeId).to_vec();
    world.set_image(web, "web:2");
    for _ in 0..20 {
        world.plan();
        for node in others.iter().filter(|node| Some(**node) != old.node) {
            world.agent(*node);
        }
        world.advance(10_000);
    }
    assert_eq!(world.holder(web, 1).desired, Desired::Ready);
    assert_eq!(world.running(web).len(), 0);
    world.ends(old.id, Observed::Shutdown);
    world.settle();
    assert_eq!(world.serving(web, 2), 1);
}

/// What does not change the task moves nothing.
#[test]
fn labels_counts_and_a_lost_node_neither_finish_nor_restart_a_rollout() {
    let (mut world, web) = world(6);
    world.update(web, |spec| {
        spec.task.container.image = "web:2".into();
        spec.update.delay_ms = 3_000;
    });
    world.live(4_000);
    let begun_ms = world.rollout(web).started_at_ms;
    let moved = world.serving(web, 2);
    assert!(moved > 0);
    world.update(web, |spec| {
        spec.labels.insert("team".into(), "a".into());
    });
    world.scale(web, 7);
    world.cut_off(NodeId(2));
    world.advance(4_000);
    world.live(2_000);
    let rollout = world.rollout(web);
    assert_eq!((rollout.state, rollout.started_at_ms), (RolloutState::Running, begun_ms));
    assert_eq!(rollout.failures, 0, "a lost node is no failure");
    world.settle_through_waits();
    assert_eq!(revisions(&world, web), [2; 7]);
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
    world.update(web, |spec| {
        spec.labels.insert("team".into(), "b".into());
    });
    assert!(world.plan().is_empty());
}

#[test]
fn a_service_without_slots_completes_its_rollout() {
    let (mut world, web) = world(2);
    world.set_image(web, BAD);
    world.plan();
    world.scale(web, 0);
    world.settle();
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
    assert_eq!(world.tasks(web).len(), 0);
}

#[test]
fn a_change_of_constraints_moves_only_what_has_to_move() {
    let (mut world, web) = world(3);
    for node in [1, 2] {
        world.label(NodeId(node), "rack", "a");
    }
    let before = world.running(web).into_iter().cloned().collect::<Vec<_>>();
    world.update(web, |spec| {
        spec.task.placement.constraints = vec!["node.labels.rack==a".parse().expect("parses")];
    });
    assert_eq!(world.rollout(web).total, 1);
    world.settle_through_waits();
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
    for task in before.iter().filter(|task| task.node != Some(NodeId(3))) {
        assert_eq!(world.state.task(task.id), Some(task), "it could stay");
    }
    assert_eq!(world.running(web).len(), 3);
    assert_eq!(world.spread(web)[2], 0);
    // The rollout is long over when a node stops to meet what the old task never asked for.
    world.label(NodeId(1), "rack", "b");
    world.settle_through_waits();
    assert_eq!(world.spread(web), [0, 3, 0]);
}

#[test]
fn a_rollback_touches_no_slot_that_runs_the_old_revision() {
    let (mut world, web) = world(4);
    world.update(web, |spec| {
        spec.task.container.image = "web:2".into();
        spec.update.delay_ms = 60_000;
    });
    world.live(5_000);
    let old: Vec<_> =
        world.running(web).into_iter().filter(|task| task.revision == 1).cloned().collect();
    assert_eq!(old.len(), 3);
    world.roll_back(web).expect("rolled back");
    assert_eq!(world.rollout(web).total, 1);
    world.settle_through_waits();
    for task in old {
        assert_eq!(world.state.task(task.id), Some(&task));
    }
    assert_eq!(world.serving(web, 1), 4);
    let rollout = world.rollout(web);
    assert_eq!((rollout.state, rollout.done), (RolloutState::Completed, 1));
}

#[test]
fn a_plan_that_writes_a_rollout_twice_is_taken_whole() {
    let (mut world, web) = world(1);
    world.update(web, |spec| {
        spec.task.container.image = "web:2".into();
        spec.update.canary = 1;
        spec.update.auto_promote = true;
        spec.update.monitor_ms = 0;
    });
    world.settle();
    // Promoted, moved and completed in one plan: `World::plan` asserts that nothing was refused.
    let plans = world.log.iter().filter_map(|command| match command {
        Command::Plan { changes, .. } => Some(changes),
        _ => None,
    });
    let writes = |change: &&cluster_model::Change| {
        matches!(change, cluster_model::Change::SetRollout { .. })
    };
    assert!(plans.map(|changes| changes.iter().filter(writes).count()).max() >= Some(2));
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
}
