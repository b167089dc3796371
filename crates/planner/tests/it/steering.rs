//! What users say to rollouts.

use cluster_model::{NodeId, Observed, RolloutState, ServiceId, Steer};

use crate::world::{BAD, CRASH, LEASE_MS, World, spec};

fn world(replicas: u32) -> (World, ServiceId) {
    let mut world = World::with_nodes(3);
    let web = world.create(1, spec("web", replicas));
    world.settle();
    world.advance(10_000);
    (world, web)
}

#[test]
fn nothing_moves_while_a_rollout_is_paused_but_what_is_lost_is_replaced() {
    let (mut world, web) = world(6);
    world.set_image(web, "web:2");
    world.live(600);
    world.steer(web, Steer::Pause).expect("paused");
    world.live(2_000);
    assert_eq!((world.serving(web, 1), world.serving(web, 2)), (5, 1));
    let failed = world.running(web)[3].id;
    world.ends(failed, Observed::Failed);
    world.cut_off(NodeId(1));
    world.advance(LEASE_MS + 1);
    world.live(1_000);
    assert_eq!((world.serving(web, 1), world.serving(web, 2)), (5, 1), "in their own revisions");
    // Longer than any deadline.
    world.advance(10_000_000);
    world.settle();
    assert_eq!(world.rollout(web).state, RolloutState::PausedByUser);
    assert!(world.steer(web, Steer::Pause).is_err());
    world.steer(web, Steer::Resume).expect("resumed");
    world.settle_through_waits();
    assert_eq!(world.serving(web, 2), 6);
    assert_eq!(world.rollout(web).state, RolloutState::Completed);
    assert!(world.steer(web, Steer::Resume).is_err());
}

#[test]
fn new_slots_of_a_paused_rollout_get_the_revision_before() {
    let (mut world, web) = world(3);
    world.set_image(web, BAD);
    world.live(2_000);
    assert_eq!(world.rollout(web).state, RolloutState::Paused);
    world.scale(web, 6);
    world.live(2_000);
    assert_eq!(world.serving(web, 1), 5);
}

#[test]
fn a_spent_slot_of_a_paused_rollout_stays_as_it_is() {
    let (mut world, web) = world(3);
    world.update(web, |spec| {
        spec.task.container.image = CRASH.into();
        spec.task.restart.max_attempts = Some(0);
    });
    world.settle_through_waits();
    assert_eq!(world.rollout(web).state, RolloutState::Paused);
    assert_eq!((world.serving(web, 1), world.holders(web).len()), (2, 2));
}

#[test]
fn what_failed_before_a_resume_does_not_count_again() {
    let (mut world, web) = world(4);
    world.set_image(web, CRASH);
    world.live(5_000);
    assert_eq!(world.rollout(web).state, RolloutState::Paused);
    world.healed = true;
    world.live(100_000);
    assert_eq!((world.serving(web, 1), world.serving(web, 2)), (3, 1));
    world.steer(web, Steer::Resume).expect("resumed");
    world.settle_through_waits();
    let rollout = world.rollout(web);
    assert_eq!((rollout.state, rollout.failures), (RolloutState::Completed, 0));
    assert_eq!(world.serving(web, 2), 4);
}

/// The way back from an update that began while a failed one was being left is the good revision.
#[test]
fn what_failed_is_never_gone_back_to() {
    let (mut world, web) = world(3);
    let policy = |spec: &mut cluster_model::spec::ServiceSpec, image: &str| {
        spec.task.container.image = image.into();
        spec.update.failure_action = cluster_model::spec::FailureAction::Rollback;
    };
    world.update(web, |spec| policy(spec, BAD));
    world.live(1_000);
    assert_eq!(world.rollout(web).to, 1, "rolled back");
    assert!(world.roll_back(web).is_err(), "the revision before is the one that failed");
    // Before the rollback is over, another bad one comes.
    world.update(web, |spec| policy(spec, CRASH));
    assert_eq!(world.rollout(web).from, 1);
    world.settle_through_waits();
    let service = world.state.service(web).expect("known");
    assert_eq!(service.revision, 1);
    assert!(world.running(web).iter().all(|task| service.is_current(task.revision)));
    assert_eq!(world.running(web).len(), 3);
}
