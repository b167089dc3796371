//! Schedules: their moments, and what is launched when.

use cluster_model::spec::{Mode, Overlap, Schedule};
use cluster_model::{Change, Command, JobOutcome, NodeId, Service, ServiceId};
use cluster_planner::{Ids, Scope, cron};

use crate::world::{BAD, LONG, World, spec};

const MINUTE: u64 = 60_000;

fn schedule(cron: &str, time_zone: &str) -> Schedule {
    Schedule {
        cron: cron.into(),
        time_zone: time_zone.into(),
        overlap: Overlap::Forbid,
        starting_deadline_ms: None,
        keep_succeeded: 3,
        keep_failed: 1,
    }
}

fn at(text: &str) -> u64 {
    let time: jiff::Timestamp = text.parse().expect("a time");
    u64::try_from(time.as_millisecond()).expect("after 1970")
}

fn moments(cron: &str, time_zone: &str, from: &str, count: usize) -> Vec<String> {
    let schedule = schedule(cron, time_zone);
    let mut after_ms = at(from);
    let mut found = Vec::new();
    for _ in 0..count {
        after_ms = cron::next_after(&schedule, after_ms).expect("comes");
        let at_ms = i64::try_from(after_ms).expect("fits");
        found.push(jiff::Timestamp::from_millisecond(at_ms).expect("a time").to_string());
    }
    found
}

#[test]
fn errors_name_the_field_the_rule_and_an_example() {
    let error = |cron: &str| cron::validate(cron, "").expect_err(cron);
    for (text, field) in [
        ("61 * * * *", "minute `61`"),
        ("* 24 * * *", "hour `24`"),
        ("* * 0 * *", "day of month `0`"),
        ("* * * 13 *", "month `13`"),
        ("* * * * 8", "day of week `8`"),
        ("*/0 * * * *", "minute `*/0`"),
        ("5-1 * * * *", "minute `5-1`"),
        ("x * * * *", "minute `x`"),
    ] {
        let error = error(text);
        assert!(error.contains(field) && error.contains("`*/5 * * * *`"), "{error}");
    }
    for text in ["", "* * * *", "0 * * * * *", "@daily", "* * * * * * *"] {
        assert!(error(text).contains("not 5"), "{}", error(text));
    }
    assert!(error("0 0 31 2 *").contains("never"));
    assert!(error(&"1,".repeat(200)).contains("bytes"));
    assert!(cron::validate("0 0 * * *", "Mars/Olympus").expect_err("no").contains("Europe/Berlin"));
    for (good, zone) in [
        ("*/5 * * * *", ""),
        ("0 2 29 2 *", "UTC"),
        ("0,30 9-17 * JAN-MAR MON-FRI", "Europe/Berlin"),
    ] {
        assert_eq!(cron::validate(good, zone), Ok(()));
    }
}

#[test]
fn moments_follow_the_time_zone() {
    let found = moments("30 9 * * *", "America/New_York", "2026-01-10T00:00:00Z", 2);
    assert_eq!(found, ["2026-01-10T14:30:00Z", "2026-01-11T14:30:00Z"]);
    let found = moments("*/20 * * * *", "", "2026-01-10T00:00:00Z", 3);
    assert_eq!(found, ["2026-01-10T00:20:00Z", "2026-01-10T00:40:00Z", "2026-01-10T01:00:00Z"]);
}

#[test]
fn an_hour_that_does_not_exist_is_skipped() {
    // In Berlin 02:00 becomes 03:00 on 29 March 2026.
    let found = moments("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3);
    assert_eq!(found, ["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]);
    let found = moments("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", 3);
    assert_eq!(found, ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]);
}

#[test]
fn in_an_hour_that_comes_twice_fixed_times_are_launched_once_and_steps_in_both() {
    // In Berlin 03:00 becomes 02:00 on 25 October 2026.
    let found = moments("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
    assert_eq!(found, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    let found = moments("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:15:00Z", 4);
    let golden = [
        "2026-10-25T00:30:00Z",
        "2026-10-25T01:00:00Z",
        "2026-10-25T01:30:00Z",
        "2026-10-25T02:00:00Z",
    ];
    assert_eq!(found, golden);
}

fn nightly(world: &mut World, edit: impl FnOnce(&mut Schedule)) -> ServiceId {
    let mut spec = spec("backup", 0);
    spec.mode = Mode::ReplicatedJob { completions: 1, max_concurrent: 0 };
    let mut schedule = schedule("*/5 * * * *", "");
    edit(&mut schedule);
    spec.job.schedule = Some(schedule);
    world.create(1, spec)
}

fn children(world: &World) -> Vec<&Service> {
    world.state.services().filter(|service| service.parent.is_some()).collect()
}

/// Moves to a moment that is a multiple of the period, and a bit.
fn tick(world: &mut World, periods: u64, beyond_ms: u64) {
    let period = 5 * MINUTE;
    let target = (world.now_ms / period + periods) * period + beyond_ms;
    world.advance(target - world.now_ms);
    world.settle();
}

#[test]
fn each_due_moment_launches_a_job_and_the_service_itself_runs_nothing() {
    let mut world = World::with_nodes(1);
    let parent = nightly(&mut world, |_| {});
    world.settle();
    assert!(children(&world).is_empty() && world.tasks(parent).is_empty());
    assert_eq!(world.wake_at_ms, Some(1_200_000));
    world.advance(200_000);
    world.settle();
    assert_eq!(children(&world).len(), 1);
    assert_eq!(children(&world)[0].run.outcome, JobOutcome::Succeeded);
    assert!(world.tasks(parent).is_empty());
    tick(&mut world, 1, 0);
    assert_eq!(children(&world).len(), 2);
}

#[test]
fn of_missed_moments_the_last_is_launched_once() {
    let mut world = World::with_nodes(1);
    nightly(&mut world, |_| {});
    world.settle();
    tick(&mut world, 7, 90_000);
    assert_eq!(children(&world).len(), 1);
    world.settle();
    assert_eq!(children(&world).len(), 1);
}

#[test]
fn two_leaders_launch_a_moment_once() {
    let mut world = World::with_nodes(1);
    nightly(&mut world, |schedule| schedule.overlap = Overlap::Allow);
    world.settle();
    world.advance(200_000);
    let one = cluster_planner::plan(&world.state, Scope::All, world.now_ms, &mut Ids::new(1));
    let two = cluster_planner::plan(&world.state, Scope::All, world.now_ms + 7, &mut Ids::new(2));
    assert!(matches!(one.changes[0], Change::Launch { .. }), "{one:?}");
    world.apply_plan(one.changes.clone());
    world.apply_plan(two.changes);
    world.apply_plan(one.changes);
    world.settle();
    assert_eq!(children(&world).len(), 1);
}

#[test]
fn a_launch_that_is_too_late_is_skipped() {
    let mut world = World::with_nodes(1);
    let parent = nightly(&mut world, |schedule| schedule.starting_deadline_ms = Some(30_000));
    world.settle();
    tick(&mut world, 1, 31_000);
    assert!(children(&world).is_empty());
    let events = &world.state.service(parent).expect("known").events;
    assert!(events.iter().any(|e| e.text.contains("starting deadline")), "{events:?}");
    tick(&mut world, 1, 30_000);
    assert_eq!(children(&world).len(), 1);
}

#[test]
fn overlaps_are_forbidden_replaced_or_allowed() {
    for (overlap, left) in [(Overlap::Forbid, 1), (Overlap::Replace, 1), (Overlap::Allow, 2)] {
        let mut world = World::with_nodes(1);
        let parent = nightly(&mut world, |schedule| schedule.overlap = overlap);
        world.update(parent, |spec| spec.task.container.image = LONG.into());
        world.settle();
        tick(&mut world, 1, 0);
        let first = children(&world)[0].id;
        tick(&mut world, 1, 0);
        assert_eq!(children(&world).len(), left, "{overlap:?}");
        assert_eq!(world.state.service(first).is_some(), overlap != Overlap::Replace);
        assert_eq!(world.live.len(), left);
        let events = &world.state.service(parent).expect("known").events;
        let skipped = events.iter().any(|event| event.text.contains("skipped a launch"));
        assert_eq!(skipped, overlap == Overlap::Forbid);
    }
}

#[test]
fn history_is_bounded_by_how_launches_ended() {
    let mut world = World::with_nodes(1);
    let parent = nightly(&mut world, |schedule| schedule.keep_succeeded = 2);
    world.settle();
    for _ in 0..5 {
        tick(&mut world, 1, 0);
    }
    assert_eq!(children(&world).len(), 2);
    world.update(parent, |spec| {
        spec.task.container.image = BAD.into();
        spec.task.restart.condition = cluster_model::spec::RestartCondition::None;
    });
    for _ in 0..4 {
        tick(&mut world, 1, 0);
    }
    let failed = |service: &&&Service| service.run.outcome == JobOutcome::Failed;
    assert_eq!(children(&world).iter().filter(failed).count(), 1);
    assert_eq!(children(&world).len(), 3);
}

#[test]
fn launches_go_with_the_scheduled_service() {
    let mut world = World::with_nodes(1);
    let parent = nightly(&mut world, |schedule| schedule.overlap = Overlap::Allow);
    world.update(parent, |spec| spec.task.container.image = LONG.into());
    world.settle();
    tick(&mut world, 1, 0);
    tick(&mut world, 1, 0);
    let at_ms = world.now_ms;
    world.apply(Command::RemoveService { id: parent, at_ms, version: None }).expect("removed");
    world.settle();
    assert_eq!((world.state.services().count(), world.state.task_count()), (0, 0));
    assert!(world.live.is_empty());
}

#[test]
fn a_schedule_that_changes_makes_up_for_nothing() {
    let mut world = World::with_nodes(1);
    let parent = nightly(&mut world, |schedule| schedule.cron = "0 0 1 1 *".into());
    world.settle();
    world.advance(3 * 3600 * 1000 + 90_000);
    world.update(parent, |spec| {
        spec.job.schedule = Some(schedule("0 * * * *", ""));
    });
    world.settle();
    assert!(children(&world).is_empty());
    assert_eq!(world.wake_at_ms.map(|at_ms| at_ms % 3_600_000), Some(0));
    assert!(world.state.node(NodeId(1)).is_some());
}
