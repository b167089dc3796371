//! Canaries.

use cluster_model::{Reason, RolloutState, ServiceId, Steer, Task};

use crate::world::{CRASH, UNREADY, World, spec};

fn world(canary: u32) -> (World, ServiceId) {
    let mut world = World::with_nodes(3);
    let mut spec = spec("web", 3);
    spec.update.canary = canary;
    let web = world.create(1, spec);
    world.settle();
    world.advance(10);
    (world, web)
}

fn counts(world: &World, web: ServiceId) -> (usize, usize) {
    (world.serving(web, 1), world.serving(web, 2))
}

#[test]
fn canaries_run_beside_the_old_tasks_until_they_are_promoted() {
    let (mut world, web) = world(1);
    let old: Vec<Task> = world.running(web).into_iter().cloned().collect();
    world.set_image(web, "web:2");
    world.settle_through_waits();
    assert_eq!(counts(&world, web), (3, 1));
    let rollout = world.rollout(web);
    assert_eq!((rollout.state, rollout.promoted), (RolloutState::AwaitingPromotion, false));
    assert_eq!(&*rollout.message, "1 canary healthy");
    for task in &old {
        assert_eq!(world.state.task(task.id), Some(task), "no old task is touched");
    }
    // For as long as it takes.
    world.advance(10_000_000);
    assert!(world.plan().is_empty());
    world.steer(web, Steer::Promote).expect("promoted");
    world.settle_through_waits();
    assert_eq!(counts(&world, web), (0, 3));
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
    assert_eq!(world.holders(web).len(), 3);
    assert!(world.steer(web, Steer::Promote).is_err(), "there is nothing left to promote");
}

#[test]
fn new_slots_get_the_old_revision_while_the_new_one_is_tried() {
    let (mut world, web) = world(1);
    world.set_image(web, "web:2");
    world.settle_through_waits();
    world.scale(web, 5);
    world.settle();
    assert_eq!(counts(&world, web), (5, 1));
    world.steer(web, Steer::Promote).expect("promoted");
    world.settle_through_waits();
    assert_eq!(counts(&world, web), (0, 5));
}

#[test]
fn only_healthy_canaries_promote_themselves() {
    let (mut world, web) = world(2);
    world.update(web, |spec| {
        spec.task.container.image = UNREADY.into();
        spec.update.auto_promote = true;
        spec.update.progress_deadline_ms = None;
    });
    world.live(60_000);
    assert_eq!(counts(&world, web), (3, 0));
    assert_eq!(world.holders(web).len(), 5);
    assert!(!world.rollout(web).promoted);
    world.healed = true;
    world.settle_through_waits();
    assert!(world.rollout(web).promoted);
    assert_eq!(counts(&world, web), (0, 3));
}

#[test]
fn a_newer_update_withdraws_the_canaries_and_makes_new_ones() {
    let (mut world, web) = world(2);
    world.set_image(web, "web:2");
    world.settle_through_waits();
    world.set_image(web, "web:3");
    assert_eq!(world.rollout(web).from, 1, "that is still where it came from");
    world.settle_through_waits();
    assert_eq!(counts(&world, web), (3, 0));
    assert_eq!(world.serving(web, 3), 2);
    let withdrawn = world.tasks(web).into_iter().filter(|task| task.reason == Reason::Withdrawn);
    assert!(withdrawn.map(|task| task.revision).eq([2, 2]));
    assert_eq!(world.rollout(web).state, RolloutState::AwaitingPromotion);
}

#[test]
fn a_rollback_withdraws_the_canaries_and_touches_nothing_else() {
    let (mut world, web) = world(2);
    let old: Vec<Task> = world.running(web).into_iter().cloned().collect();
    world.set_image(web, "web:2");
    world.settle_through_waits();
    world.roll_back(web).expect("rolled back");
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
    world.settle_through_waits();
    assert_eq!(world.holders(web).into_iter().cloned().collect::<Vec<_>>(), old);
}

#[test]
fn a_failed_canary_counts_and_is_tried_again() {
    let (mut world, web) = world(1);
    world.update(web, |spec| {
        spec.task.container.image = CRASH.into();
        spec.update.max_failure_ratio_ppm = 500_000;
    });
    world.live(4_000);
    let rollout = world.rollout(web);
    assert_eq!((rollout.state, rollout.failures), (RolloutState::Running, 1));
    assert_eq!(world.serving(web, 1), 3);
    world.healed = true;
    world.settle_through_waits();
    assert_eq!(counts(&world, web), (3, 1));
    assert_eq!(world.rollout(web).state, RolloutState::AwaitingPromotion);
}

#[test]
fn a_canary_above_the_ratio_pauses_or_rolls_back() {
    for (rollback, kept) in [(false, 2), (true, 1)] {
        let (mut world, web) = world(1);
        world.update(web, |spec| {
            spec.task.container.image = CRASH.into();
            if rollback {
                spec.update.failure_action = cluster_model::spec::FailureAction::Rollback;
            }
        });
        world.live(10_000);
        assert_eq!(world.serving(web, 1), 3);
        assert_eq!(world.holders(web).len(), 3, "the canary is withdrawn");
        let service = world.state.service(web).expect("known");
        assert_eq!(service.revision, kept);
    }
}

#[test]
fn canaries_are_kept_when_a_user_pauses() {
    let (mut world, web) = world(1);
    world.set_image(web, "web:2");
    world.settle_through_waits();
    world.steer(web, Steer::Pause).expect("paused");
    world.live(10_000);
    assert_eq!(counts(&world, web), (3, 1));
    world.steer(web, Steer::Resume).expect("resumed");
    world.settle_through_waits();
    assert_eq!(world.rollout(web).state, RolloutState::AwaitingPromotion);
}

#[test]
fn no_canaries_are_waited_for_when_there_are_no_slots() {
    let (mut world, web) = world(3);
    world.set_image(web, "web:2");
    world.scale(web, 0);
    world.settle_through_waits();
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
}
