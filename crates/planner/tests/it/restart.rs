//! Restart and reschedule.

use cluster_model::spec::{Mode, RestartCondition, RestartPolicy};
use cluster_model::task::Moved;
use cluster_model::{
    Change, Command, Desired, NewTask, NodeId, Observed, Reason, ServiceId, TaskId,
};

use crate::world::{BAD, LEASE_MS, World, spec};

fn world(policy: RestartPolicy) -> (World, ServiceId) {
    let mut world = World::with_nodes(2);
    let mut spec = spec("web", 1);
    spec.task.restart = policy;
    let web = world.create(1, spec);
    world.settle();
    (world, web)
}

/// Lets the slot's task fail and answers how long its successor waits.
fn fail(world: &mut World, web: ServiceId) -> u64 {
    let task = world.holder(web, 1).id;
    world.ends(task, Observed::Failed);
    world.plan();
    world.holder(web, 1).extras.not_before_ms.saturating_sub(world.now_ms)
}

#[test]
fn waits_double_up_to_a_minute_and_start_anew_after_a_long_run() {
    let (mut world, web) = world(RestartPolicy::default());
    let mut restarts = Vec::new();
    for expected in [0, 1, 2, 4, 8, 16, 32, 60, 60] {
        let wait_ms = fail(&mut world, web);
        let (low, high) = (expected * 900, expected * 1_100);
        assert!((low..=high).contains(&wait_ms), "{wait_ms} ms instead of {expected} s");
        let next = world.holder(web, 1);
        restarts.push(next.restarts);
        let waits = if expected == 0 { Desired::Running } else { Desired::Ready };
        assert_eq!((next.desired, &next.reason), (waits, &Reason::Restart));
        assert_eq!(world.wake_at_ms.is_some(), expected > 0);
        world.settle_through_waits();
        assert_eq!(world.running(web).len(), 1);
    }
    assert_eq!(restarts, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    world.advance(60_001);
    assert_eq!(fail(&mut world, web), 0);
    assert_eq!(world.holder(web, 1).restarts, 1);
}

#[test]
fn the_successor_is_prepared_while_it_waits_and_runs_not_before_its_time() {
    let (mut world, web) =
        world(RestartPolicy { delay_ms: Some(5_000), ..RestartPolicy::default() });
    assert_eq!(fail(&mut world, web), 5_000);
    world.settle();
    assert_eq!(world.holder(web, 1).status.state, Observed::Ready);
    world.advance(4_999);
    world.settle();
    assert!(world.running(web).is_empty());
    world.advance(1);
    world.settle();
    assert_eq!(world.running(web).len(), 1);
}

#[test]
fn a_clock_set_back_does_not_keep_a_successor_waiting() {
    let (mut world, web) =
        world(RestartPolicy { delay_ms: Some(5_000), ..RestartPolicy::default() });
    fail(&mut world, web);
    world.now_ms -= 900_000;
    world.settle();
    assert_eq!(world.running(web).len(), 1);
}

#[test]
fn conditions_decide_by_how_the_task_ended() {
    use Observed::{Complete, Failed, Rejected};
    use RestartCondition::{Any, None, OnFailure};
    for (condition, state, again) in [
        (None, Failed, false),
        (None, Complete, false),
        (OnFailure, Complete, false),
        (OnFailure, Failed, true),
        (OnFailure, Rejected, true),
        (Any, Complete, true),
    ] {
        let (mut world, web) = world(RestartPolicy { condition, ..RestartPolicy::default() });
        if state == Rejected {
            let first = world.holder(web, 1).id;
            world.apply_plan(vec![Change::SetDesired {
                task: first,
                desired: Desired::Remove,
                reason: Reason::ScaleDown,
            }]);
            world.settle_until_assigned(web);
        }
        let task = world.holder(web, 1).id;
        world.ends(task, state);
        world.plan();
        assert_eq!(world.holders(web).len(), usize::from(again), "{condition:?} {state:?}");
        let ended = world.state.task(task).expect("kept");
        assert_eq!(ended.status.state, state);
        assert_eq!(ended.reason == Reason::Exhausted, !again);
    }
}

#[test]
fn attempts_run_out_and_a_new_revision_brings_new_ones() {
    let (mut world, web) =
        world(RestartPolicy { max_attempts: Some(2), delay_ms: Some(0), ..Default::default() });
    for _ in 0..2 {
        fail(&mut world, web);
        world.advance(120_000);
        world.settle();
    }
    assert_eq!(world.holder(web, 1).restarts, 2, "a long run does not give attempts back");
    let last = world.holder(web, 1).id;
    world.ends(last, Observed::Failed);
    world.settle();
    assert!(world.holders(web).is_empty());
    assert_eq!(world.state.task(last).expect("kept").reason, Reason::Exhausted);
    world.set_image(web, "web:2");
    world.settle();
    let task = world.holder(web, 1);
    assert_eq!((task.revision, task.restarts, &task.reason), (2, 0, &Reason::Update));
}

#[test]
fn a_task_that_cannot_start_backs_off_too_and_tries_another_node() {
    let mut world = World::with_nodes(2);
    let mut spec = spec("web", 1);
    spec.task.container.image = BAD.into();
    let web = world.create(1, spec);
    world.plan();
    let first = world.holder(web, 1).node;
    world.agents();
    world.plan();
    assert_ne!(world.holder(web, 1).node, first);
    world.agents();
    world.plan();
    let next = world.holder(web, 1);
    let wait_ms = next.extras.not_before_ms - world.now_ms;
    assert!((900..=1_100).contains(&wait_ms), "{wait_ms}");
    // Preparing is what fails, so no node prepares it before its time.
    assert_eq!(next.node, None);
    assert_eq!(next.status.details.message.as_deref(), Some("waits before the next attempt"));
    assert!(!world.agents());
    world.advance(wait_ms);
    world.plan();
    assert!(world.holder(web, 1).node.is_some());
    world.agents();
    world.plan();
    let wait_ms = world.holder(web, 1).extras.not_before_ms - world.now_ms;
    assert!((1_800..=2_200).contains(&wait_ms), "{wait_ms}");
}

#[test]
fn a_lost_node_costs_no_attempt_and_no_wait() {
    let policy = RestartPolicy {
        condition: RestartCondition::None,
        max_attempts: Some(0),
        delay_ms: Some(50_000),
        ..RestartPolicy::default()
    };
    let (mut world, web) = world(policy);
    let (old, node) = (world.holder(web, 1).id, world.holder(web, 1).node.expect("placed"));
    world.cut_off(node);
    world.advance(LEASE_MS + 1);
    world.settle();
    let task = world.holder(web, 1);
    assert_eq!(task.reason, Reason::Reschedule(Moved::NodeDown));
    assert_eq!((task.restarts, task.extras.not_before_ms), (0, 0));
    assert_ne!(task.node, Some(node));
    assert_eq!(world.running(web).len(), 1);
    // The node comes back: what it still runs is stopped, and nothing follows from that.
    world.join(node, 1 << 30);
    world.settle();
    let old = world.state.task(old).expect("kept");
    assert_eq!((old.desired, old.status.state), (Desired::Shutdown, Observed::Shutdown));
    assert_eq!(world.running(web).len(), 1);
}

#[test]
fn a_removed_node_is_named_as_the_reason() {
    let (mut world, web) = world(RestartPolicy::default());
    let node = world.holder(web, 1).node.expect("placed");
    world
        .apply(Command::RemoveNode { id: node, force: true, at_ms: world.now_ms })
        .expect("removed");
    world.settle();
    assert_eq!(world.holder(web, 1).reason, Reason::Reschedule(Moved::NodeRemoved));
    assert_eq!(world.running(web).len(), 1);
}

#[test]
fn history_is_kept_to_five_tasks_a_slot() {
    let (mut world, web) = world(RestartPolicy { delay_ms: Some(0), ..RestartPolicy::default() });
    for _ in 0..20 {
        fail(&mut world, web);
        world.settle_through_waits();
    }
    assert_eq!(world.tasks(web).len(), 5);
    assert_eq!(world.holder(web, 1).restarts, 20);
    world
        .apply(Command::RemoveService { id: web, at_ms: world.now_ms, version: None })
        .expect("removed");
    world.settle();
    assert!(world.state.service(web).is_none());
    assert_eq!(world.state.task_count(), 0);
    assert_eq!(world.state.usage(NodeId(1)).tasks, 0);
}

/// Only what falls into the window counts.
#[test]
fn attempts_are_counted_within_the_window() {
    let policy = RestartPolicy {
        max_attempts: Some(2),
        window_ms: Some(10_000),
        delay_ms: Some(0),
        ..RestartPolicy::default()
    };
    let (mut world, web) = world(policy);
    for _ in 0..5 {
        fail(&mut world, web);
        world.settle();
        assert_eq!(world.running(web).len(), 1, "two in ten seconds are allowed");
        world.advance(5_000);
    }
    fail(&mut world, web);
    world.settle();
    world.advance(1_000);
    let last = world.holder(web, 1).id;
    world.ends(last, Observed::Failed);
    world.settle();
    assert!(world.holders(web).is_empty(), "three are not");
    assert_eq!(world.state.task(last).expect("kept").reason, Reason::Exhausted);
}

#[test]
fn history_reaches_as_far_as_the_window_is_counted() {
    for (max, kept) in [(2, 5), (9, 10), (50, 51)] {
        let policy = RestartPolicy {
            max_attempts: Some(max),
            window_ms: Some(600_000),
            delay_ms: Some(0),
            ..RestartPolicy::default()
        };
        let (mut world, web) = world(policy);
        for _ in 0..max {
            fail(&mut world, web);
            world.settle();
            world.advance(100);
        }
        assert_eq!(world.running(web).len(), 1);
        assert_eq!(world.tasks(web).len(), kept.min(max as usize + 1));
        let last = world.holder(web, 1).id;
        world.ends(last, Observed::Failed);
        world.settle();
        assert!(world.holders(web).is_empty(), "{max} attempts and no more");
    }
}

#[test]
fn the_longest_wait_can_be_chosen() {
    let (mut world, web) =
        world(RestartPolicy { max_delay_ms: Some(3_000), ..RestartPolicy::default() });
    for expected in [0, 1_000, 2_000, 3_000, 3_000] {
        let wait_ms = fail(&mut world, web);
        assert!(wait_ms.abs_diff(expected) <= expected / 10, "{wait_ms} ms, not {expected}");
        world.settle_through_waits();
    }
    // A run that lasts longer ends the series.
    world.advance(3_001);
    assert_eq!(fail(&mut world, web), 0);
}

#[test]
fn a_job_task_that_completed_is_left_to_others() {
    let mut world = World::with_nodes(1);
    let mut spec = spec("job", 1);
    spec.mode = Mode::ReplicatedJob { completions: 1, max_concurrent: 0 };
    let job = world.create(1, spec);
    let tasks = vec![NewTask::new(1, Reason::ScaleUp)];
    let create = Change::CreateTasks { service: job, revision: 1, base: TaskId(77), tasks };
    world.apply_plan(vec![create]);
    world.settle();
    world.ends(TaskId(77), Observed::Complete);
    world.plan();
    let created = |change: &Change| matches!(change, Change::CreateTasks { .. });
    assert!(!world.plan().iter().any(created));
    assert_eq!(world.tasks(job).len(), 1);
}

impl World {
    /// The old task is gone and a new one has a node but has not run.
    fn settle_until_assigned(&mut self, web: ServiceId) {
        for _ in 0..10 {
            self.plan();
            let fresh = self.holders(web).iter().any(|task| {
                task.status.state < Observed::Starting
                    && task.desired == Desired::Running
                    && task.node.is_some()
            });
            if fresh {
                return;
            }
            self.agents();
        }
        panic!("no fresh task");
    }
}
