//! Updates that fail: ratio, actions, circuit breaker, deadline.

use cluster_model::spec::{FailureAction, UpdatePolicy};
use cluster_model::{
    Change, Command, Observed, RolloutKind, RolloutState, ServiceId, Task, TaskId,
};

use cluster_planner::{Ids, Now, Scope};

use crate::world::{BAD, CRASH, UNREADY, World, spec};

fn world(replicas: u32, update: UpdatePolicy) -> (World, ServiceId) {
    let mut world = World::with_nodes(3);
    let mut spec = spec("web", replicas);
    spec.update = update;
    let web = world.create(1, spec);
    world.settle();
    world.advance(10_000);
    (world, web)
}

fn ratio(ppm: u32, failure_action: FailureAction) -> UpdatePolicy {
    UpdatePolicy { max_failure_ratio_ppm: ppm, failure_action, ..UpdatePolicy::default() }
}

#[test]
fn five_slots_with_a_ratio_of_a_quarter_pause_after_two_failures() {
    let (mut world, web) = world(5, ratio(250_000, FailureAction::Pause));
    world.set_image(web, BAD);
    world.live(60_000);
    let rollout = world.rollout(web).clone();
    assert_eq!((rollout.state, rollout.failures), (RolloutState::Paused, 2));
    let failed = world.tasks(web).into_iter().find(|t| rollout.message.contains(&t.id.to_string()));
    assert_eq!(failed.expect("names a task").revision, 2);
    assert!(rollout.message.contains("2 of 5 slots failed"), "{}", rollout.message);
    assert_eq!(world.serving(web, 1), 3);
    // The same spec again changes nothing.
    world.update(web, |_| {});
    world.live(10_000);
    assert_eq!(world.rollout(web), &rollout);
    world.roll_back(web).expect("rolled back");
    world.settle_through_waits();
    assert_eq!(world.serving(web, 1), 5);
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
}

#[test]
fn the_error_is_named() {
    let (mut world, web) = world(2, UpdatePolicy::default());
    world.set_image(web, CRASH);
    world.live(2_000);
    let message = &world.rollout(web).message;
    assert!(message.ends_with("of slot 1: exit code 1"), "{message}");
}

#[test]
fn a_rollback_by_the_policy_restores_the_old_revision_by_itself() {
    let (mut world, web) = world(5, ratio(0, FailureAction::Rollback));
    world.set_image(web, CRASH);
    world.settle_through_waits();
    assert_eq!(world.serving(web, 1), 5);
    let service = world.state.service(web).expect("known");
    assert_eq!((service.revision, &*service.spec.task.container.image), (1, "web:1"));
    let rollout = world.rollout(web);
    assert_eq!((rollout.kind, rollout.state), (RolloutKind::Rollback, RolloutState::Completed));
    let told = |event: &cluster_model::service::Event| event.text.contains("rolled back");
    assert!(service.events.iter().any(told));
}

#[test]
fn a_rollback_that_fails_pauses_and_never_loops() {
    let (mut world, web) = world(3, ratio(0, FailureAction::Rollback));
    world.update(web, |spec| {
        spec.task.container.image = BAD.into();
    });
    let begun_ms = world.now_ms;
    for _ in 0..200 {
        world.live(50);
        // What the old revision runs anew fails as well.
        let anew = |task: &&Task| task.created_at_ms >= begun_ms && task.revision == 1;
        let running: Vec<TaskId> =
            world.running(web).into_iter().filter(anew).map(|task| task.id).collect();
        for task in running {
            world.ends(task, Observed::Failed);
        }
    }
    let rollout = world.rollout(web);
    assert_eq!((rollout.kind, rollout.state), (RolloutKind::Rollback, RolloutState::Paused));
    let plans = world.log.iter().filter_map(|command| match command {
        Command::Plan { changes, .. } => Some(changes),
        _ => None,
    });
    let backs = |change: &&Change| matches!(change, Change::RollBack { .. });
    assert_eq!(plans.flatten().filter(backs).count(), 1);
    assert_eq!(world.serving(web, 1), 2);
}

#[test]
fn continue_visits_all_slots() {
    let (mut world, web) = world(5, ratio(0, FailureAction::Continue));
    world.set_image(web, CRASH);
    world.live(5_000);
    let rollout = world.rollout(web);
    assert_eq!(rollout.failures, 5);
    assert!(world.holders(web).iter().all(|task| task.revision == 2));
}

#[test]
fn the_circuit_breaker_stops_what_never_starts_even_under_continue() {
    for action in [FailureAction::Continue, FailureAction::Pause, FailureAction::Rollback] {
        let (mut world, web) = world(10, ratio(1_000_000, action));
        world.set_image(web, BAD);
        world.live(30_000);
        let rollout = world.rollout(web);
        if action == FailureAction::Rollback {
            assert_eq!(rollout.kind, RolloutKind::Rollback);
            assert_eq!(world.serving(web, 1), 10);
            continue;
        }
        assert_eq!(rollout.state, RolloutState::Paused);
        let told = "no task of revision 2 ran in 5 attempts";
        assert!(rollout.message.contains(told), "{}", rollout.message);
        assert!(world.serving(web, 1) >= 5);
    }
}

#[test]
fn a_crashing_update_ends_at_the_deadline_and_not_later() {
    let policy = UpdatePolicy {
        progress_deadline_ms: Some(60_000),
        monitor_ms: 500,
        ..ratio(1_000_000, FailureAction::Pause)
    };
    let (mut world, web) = world(2, policy);
    world.set_image(web, UNREADY);
    world.live(59_000);
    assert_eq!(world.rollout(web).state, RolloutState::Running);
    world.live(1_500);
    let rollout = world.rollout(web);
    assert_eq!(rollout.state, RolloutState::Paused);
    assert!(rollout.message.starts_with("no slot came up for 60 s; "), "{}", rollout.message);
    assert!(rollout.message.ends_with("of slot 1 is running, not ready"), "{}", rollout.message);
    assert_eq!(world.serving(web, 1), 1);
}

#[test]
fn a_leader_does_not_hold_anothers_clock_against_a_rollout() {
    let policy = UpdatePolicy {
        progress_deadline_ms: Some(60_000),
        ..ratio(1_000_000, FailureAction::Pause)
    };
    let (mut world, web) = world(2, policy);
    world.set_image(web, UNREADY);
    world.live(5_000);
    // Twenty-five minutes ahead of the leader before.
    let since = world.now_ms + 1_500_000;
    let paused_at = |ms| {
        let now = Now { ms, leads_since_ms: since };
        let plan = cluster_planner::plan(&world.state, Scope::All, now, &mut Ids::new(7));
        plan.changes.iter().any(|change| {
            matches!(change, Change::SetRollout { rollout, .. }
                if rollout.state == RolloutState::Paused)
        })
    };
    assert!(!paused_at(since + 1_000));
    assert!(paused_at(since + 90_000), "its own clock counts");
}

#[test]
fn the_deadline_begins_anew_with_each_slot_that_comes_up() {
    let policy = UpdatePolicy {
        progress_deadline_ms: Some(10_000),
        delay_ms: 8_000,
        ..UpdatePolicy::default()
    };
    let (mut world, web) = world(4, policy);
    world.set_image(web, "web:2");
    world.settle_through_waits();
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
    assert_eq!(world.serving(web, 2), 4);
}

#[test]
fn after_a_failure_the_others_wait_until_the_revision_has_settled() {
    let (mut world, web) = world(3, ratio(500_000, FailureAction::Pause));
    world.set_image(web, CRASH);
    while world.rollout(web).failures == 0 {
        world.live(50);
    }
    world.healed = true;
    let healed_ms = world.now_ms;
    while world.serving(web, 2) < 3 {
        assert!(!world.running(web).is_empty());
        world.live(50);
    }
    assert!(world.now_ms - healed_ms >= 5_000, "the monitor time of 5 s between two slots");
}

#[test]
fn one_failure_counts_once_and_is_remembered_over_a_long_history() {
    let (mut world, web) = world(2, ratio(500_000, FailureAction::Pause));
    world.update(web, |spec| {
        spec.task.container.image = CRASH.into();
        spec.task.restart.delay_ms = Some(0);
        spec.update.delay_ms = 3_600_000;
    });
    world.live(5_000);
    assert!(world.holder(web, 1).restarts > 5);
    assert_eq!(world.rollout(web).failures, 1);
    assert_eq!(world.serving(web, 1), 1);
}
