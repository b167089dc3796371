//! Runs to completion.

use cluster_model::spec::{JobPolicy, Mode, RestartPolicy};
use cluster_model::{
    Availability, Command, Desired, JobOutcome, NodeId, Observed, Reason, ServiceId, ServiceSpec,
};

use crate::world::{BAD, LEASE_MS, LONG, MIB, World, spec};

pub fn job(completions: u32, max_concurrent: u32) -> ServiceSpec {
    let mut spec = spec("job", 0);
    spec.mode = Mode::ReplicatedJob { completions, max_concurrent };
    spec
}

fn active(world: &World, service: ServiceId) -> usize {
    let mut slots: Vec<u32> = world
        .tasks(service)
        .iter()
        .filter(|task| task.fills_slot() || task.holds_resources())
        .map(|task| task.slot)
        .collect();
    slots.dedup();
    slots.len()
}

fn completed(world: &World, service: ServiceId) -> usize {
    world.tasks(service).iter().filter(|t| t.status.state == Observed::Complete).count()
}

fn outcome(world: &World, service: ServiceId) -> JobOutcome {
    world.state.service(service).expect("known").run.outcome
}

/// Steps through a whole run; never more than `most` at once.
fn run(world: &mut World, service: ServiceId, most: usize) {
    for _ in 0..200 {
        let planned = !world.plan().is_empty();
        assert!(active(world, service) <= most, "{:#?}", world.tasks(service));
        if !world.agents() && !planned {
            match world.wake_at_ms {
                Some(at_ms) => world.advance(at_ms.saturating_sub(world.now_ms)),
                None => return,
            }
        }
    }
    panic!("the job does not end: {:#?}", world.tasks(service));
}

#[test]
fn seven_completions_two_at_once_exactly() {
    let mut world = World::with_nodes(3);
    let service = world.create(1, job(7, 2));
    run(&mut world, service, 2);
    assert_eq!(completed(&world, service), 7);
    assert_eq!(outcome(&world, service), JobOutcome::Succeeded);
    assert_eq!(world.tasks(service).len(), 7, "what says that a slot is done is kept");
    assert!(world.tasks(service).iter().all(|t| t.reason == Reason::Completed));
    // Nothing more happens, however long it stays.
    world.advance(1_000_000);
    world.settle();
    assert_eq!(world.tasks(service).len(), 7);
}

#[test]
fn an_update_runs_all_again() {
    let mut world = World::with_nodes(3);
    let service = world.create(1, job(7, 2));
    run(&mut world, service, 2);
    world.update(service, |spec| spec.task.force_update += 1);
    assert_eq!(outcome(&world, service), JobOutcome::Unfinished);
    run(&mut world, service, 2);
    assert_eq!(completed(&world, service), 7);
    assert!(world.tasks(service).iter().all(|task| task.revision == 2));
    assert_eq!(outcome(&world, service), JobOutcome::Succeeded);
}

#[test]
fn a_new_run_in_the_middle_keeps_the_bound_and_starts_from_nothing() {
    let mut world = World::with_nodes(3);
    let mut spec = job(4, 2);
    spec.task.container.image = LONG.into();
    let service = world.create(1, spec);
    world.settle();
    let done = world.holder(service, 1).id;
    world.ends(done, Observed::Complete);
    world.settle();
    world.set_image(service, "web:2");
    run(&mut world, service, 2);
    assert_eq!(completed(&world, service), 4);
    assert!(world.tasks(service).iter().all(|task| task.revision == 2));
}

fn roll_back(world: &mut World, id: ServiceId, to: u32) {
    let version = world.state.service(id).expect("known").version;
    let at_ms = world.now_ms;
    let back = Command::RollBackService { id, version, to: Some(to), at_ms };
    world.apply(back).expect("rolled back");
}

#[test]
fn a_rollback_to_a_revision_that_ran_runs_it_again() {
    let mut world = World::with_nodes(1);
    let service = world.create(1, job(2, 0));
    run(&mut world, service, 2);
    world.set_image(service, "web:2");
    roll_back(&mut world, service, 1);
    assert_eq!(completed(&world, service), 0, "the earlier run does not count");
    run(&mut world, service, 2);
    assert_eq!(completed(&world, service), 2);
    // There and back before any planner looks.
    roll_back(&mut world, service, 2);
    roll_back(&mut world, service, 1);
    assert_eq!(completed(&world, service), 0);
    run(&mut world, service, 2);
    assert_eq!(completed(&world, service), 2);
}

#[test]
fn failures_follow_the_policy_and_spent_slots_fail_the_job_at_its_end() {
    let mut world = World::with_nodes(2);
    let mut spec = job(3, 1);
    spec.task.container.image = LONG.into();
    spec.task.restart = RestartPolicy { max_attempts: Some(1), ..RestartPolicy::default() };
    let service = world.create(1, spec);
    world.settle();
    for _ in 0..2 {
        let id = world.holders(service)[0].id;
        assert_eq!(world.holders(service)[0].slot, 1);
        world.ends(id, Observed::Failed);
        world.settle_through_waits();
    }
    assert_eq!(outcome(&world, service), JobOutcome::Unfinished, "other slots go on");
    for slot in [2, 3] {
        let id = world.holder(service, slot).id;
        world.ends(id, Observed::Complete);
        world.settle();
    }
    assert_eq!(outcome(&world, service), JobOutcome::Failed);
    assert!(world.holders(service).is_empty());
}

#[test]
fn a_waiting_attempt_keeps_its_place() {
    let mut world = World::with_nodes(2);
    let mut spec = job(3, 1);
    spec.task.container.image = BAD.into();
    let service = world.create(1, spec);
    for _ in 0..5 {
        world.settle();
        assert_eq!(world.holders(service).len(), 1);
        assert_eq!(world.holders(service)[0].slot, 1);
        let at_ms = world.wake_at_ms.expect("backs off");
        world.advance(at_ms.saturating_sub(world.now_ms));
    }
    world.healed = true;
    run(&mut world, service, 1);
    assert_eq!(outcome(&world, service), JobOutcome::Succeeded);
}

#[test]
fn a_lost_node_costs_no_attempt_and_completions_stay_exact() {
    let mut world = World::with_nodes(2);
    let mut spec = job(4, 2);
    spec.task.container.image = LONG.into();
    spec.task.restart = RestartPolicy { max_attempts: Some(0), ..RestartPolicy::default() };
    let service = world.create(1, spec);
    world.settle();
    world.cut_off(NodeId(1));
    world.advance(LEASE_MS + 1);
    world.settle();
    assert!(world.holders(service).iter().all(|task| task.node == Some(NodeId(2))));
    world.cut.clear();
    world.healed = true;
    run(&mut world, service, 2);
    assert_eq!((completed(&world, service), outcome(&world, service)), (4, JobOutcome::Succeeded));
}

#[test]
fn a_drain_that_is_taken_back_starts_no_duplicate() {
    let mut world = World::with_nodes(2);
    let mut spec = job(2, 0);
    spec.task.container.image = LONG.into();
    let service = world.create(1, spec);
    world.settle();
    world.availability(NodeId(1), Availability::Drain);
    world.plan();
    world.availability(NodeId(1), Availability::Active);
    world.settle_through_waits();
    assert_eq!(world.live.len(), 2);
    world.healed = true;
    world.settle_through_waits();
    assert_eq!((completed(&world, service), outcome(&world, service)), (2, JobOutcome::Succeeded));
}

#[test]
fn a_given_up_task_that_ends_well_is_the_completion() {
    let mut world = World::with_nodes(2);
    let mut spec = job(1, 0);
    spec.task.container.image = LONG.into();
    let service = world.create(1, spec);
    world.settle();
    let first = world.holder(service, 1).clone();
    world.availability(first.node.expect("placed"), Availability::Drain);
    world.plan();
    world.ends(first.id, Observed::Complete);
    world.settle();
    assert_eq!((completed(&world, service), outcome(&world, service)), (1, JobOutcome::Succeeded));
    assert!(world.live.is_empty());
}

#[test]
fn a_run_that_takes_too_long_is_stopped_and_not_begun_again() {
    let mut world = World::with_nodes(2);
    let mut spec = job(3, 2);
    spec.task.container.image = LONG.into();
    spec.job.max_run_duration_ms = Some(60_000);
    let service = world.create(1, spec);
    world.settle();
    assert_eq!(world.wake_at_ms, Some(1_060_000));
    world.advance(60_000);
    world.settle_through_waits();
    assert_eq!(outcome(&world, service), JobOutcome::TimedOut);
    assert!(world.live.is_empty() && world.holders(service).is_empty());
    assert!(world.tasks(service).iter().all(|t| t.reason == Reason::TimedOut));
}

#[test]
fn a_finished_job_removes_itself_when_its_time_is_over() {
    let mut world = World::with_nodes(1);
    let mut spec = job(2, 0);
    spec.job = JobPolicy { ttl_after_finished_ms: Some(5_000), ..JobPolicy::default() };
    let service = world.create(1, spec);
    world.settle();
    let finished_at_ms = world.state.service(service).expect("known").run.finished_at_ms;
    assert_eq!(world.wake_at_ms, Some(finished_at_ms + 5_000));
    world.advance(4_999);
    world.settle();
    assert!(world.state.service(service).is_some());
    world.advance(1);
    world.settle();
    assert!(world.state.service(service).is_none() && world.state.task_count() == 0);
}

#[test]
fn more_completions_open_a_finished_job_again() {
    let mut world = World::with_nodes(2);
    let service = world.create(1, job(2, 1));
    run(&mut world, service, 1);
    world.scale(service, 5);
    assert_eq!(outcome(&world, service), JobOutcome::Unfinished);
    run(&mut world, service, 1);
    assert_eq!((completed(&world, service), outcome(&world, service)), (5, JobOutcome::Succeeded));
    world.scale(service, 3);
    run(&mut world, service, 1);
    assert_eq!((completed(&world, service), outcome(&world, service)), (3, JobOutcome::Succeeded));
}

#[test]
fn a_global_job_runs_once_on_each_node_also_on_one_that_joins_later() {
    let mut world = World::with_nodes(2);
    let mut spec = spec("job", 0);
    spec.mode = Mode::GlobalJob;
    let service = world.create(1, spec);
    world.settle();
    assert_eq!((completed(&world, service), outcome(&world, service)), (2, JobOutcome::Succeeded));
    world.join(NodeId(3), 1024 * MIB);
    world.plan();
    assert_eq!(outcome(&world, service), JobOutcome::Unfinished);
    world.settle();
    assert_eq!((completed(&world, service), outcome(&world, service)), (3, JobOutcome::Succeeded));
    // A node that goes and returns has done its part.
    world.cut_off(NodeId(1));
    world.advance(LEASE_MS + 1);
    world.settle();
    world.cut.clear();
    world.availability(NodeId(2), Availability::Drain);
    world.settle();
    world.availability(NodeId(2), Availability::Active);
    world.settle();
    assert_eq!((completed(&world, service), outcome(&world, service)), (3, JobOutcome::Succeeded));
    assert!(world.tasks(service).iter().all(|task| task.desired == Desired::Complete));
}

#[test]
fn a_global_job_does_not_wait_for_a_node_that_fell_silent() {
    let mut world = World::with_nodes(2);
    let mut spec = spec("job", 0);
    spec.mode = Mode::GlobalJob;
    spec.task.container.image = LONG.into();
    let service = world.create(1, spec);
    world.settle();
    world.cut_off(NodeId(2));
    world.advance(LEASE_MS + 1);
    let id = world.holder(service, 1).id;
    world.ends(id, Observed::Complete);
    world.settle();
    assert_eq!(outcome(&world, service), JobOutcome::Succeeded);
    world.cut.clear();
    world.healed = true;
    world.settle();
    assert_eq!((completed(&world, service), outcome(&world, service)), (2, JobOutcome::Succeeded));
}

#[test]
fn a_stale_plan_cannot_run_a_slot_twice() {
    let mut world = World::with_nodes(2);
    let service = world.create(1, job(3, 1));
    let mut drafts = Vec::new();
    for _ in 0..40 {
        drafts.push(world.make_plan(cluster_planner::Scope::All).changes);
        world.plan();
        world.agents();
        for draft in drafts.clone() {
            world.apply_plan(draft);
            assert!(active(&world, service) <= 1);
        }
    }
    world.settle();
    assert_eq!((completed(&world, service), outcome(&world, service)), (3, JobOutcome::Succeeded));
}
