use super::*;

const LIMITS: Limits =
    Limits { patience: Duration::from_secs(60), settle: Duration::from_millis(100) };

struct Scene {
    tracker: Tracker,
    begin: Instant,
    service: pb::Service,
}

impl Scene {
    fn new(desired: u32, revision_before: Option<u32>) -> Self {
        let begin = Instant::now();
        Self {
            tracker: Tracker::new(
                LIMITS,
                Before { revision: revision_before, ..Before::default() },
                begin,
            ),
            begin,
            service: pb::Service { desired, revision: 1, ..Default::default() },
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.begin + Duration::from_millis(ms)
    }

    fn see(&mut self, ms: u64, tasks: &[pb::Task]) -> Verdict {
        let now = self.at(ms);
        let old = |task: &&pb::Task| fills(task) && task.revision != self.service.revision;
        self.service.outdated = count(tasks.iter().filter(old));
        self.tracker.observe(&self.service, tasks, now);
        self.tracker.verdict(now)
    }
}

fn task(id: &str, slot: u32, desired: &str, observed: &str) -> pb::Task {
    pb::Task {
        id: id.into(),
        slot,
        revision: 1,
        desired_state: desired.into(),
        observed_state: observed.into(),
        created_at_ms: id.bytes().map(u64::from).sum(),
        ready: observed == "running",
        ..Default::default()
    }
}

fn failed(id: &str, code: i32) -> pb::Task {
    pb::Task { exit_code: Some(code), node_name: "w1".into(), ..task(id, 1, "shutdown", "failed") }
}

fn is_waiting(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Waiting { .. })
}

#[test]
fn two_replicas_run() {
    let mut scene = Scene::new(2, None);
    assert!(is_waiting(&scene.tracker.verdict(scene.at(0))));
    assert!(is_waiting(&scene.see(0, &[])));
    let starting = [task("a", 1, "running", "running"), task("b", 2, "running", "preparing")];
    assert!(is_waiting(&scene.see(10, &starting)));
    assert_eq!(scene.tracker.picture().running, 1);
    let running = [task("a", 1, "running", "running"), task("b", 2, "running", "running")];
    assert_eq!(scene.see(20, &running), Verdict::Waiting { until: Some(scene.at(120)) });
    assert_eq!(scene.tracker.verdict(scene.at(120)), Verdict::Converged);
}

#[test]
fn a_prepared_task_does_not_count_as_running() {
    let mut scene = Scene::new(1, None);
    scene.see(0, &[task("a", 1, "ready", "running")]);
    assert!(is_waiting(&scene.tracker.verdict(scene.at(1_000))));
}

#[test]
fn a_failure_makes_it_look_longer() {
    let mut scene = Scene::new(1, None);
    scene.see(0, &[failed("a", 1), task("b", 1, "running", "running")]);
    assert!(is_waiting(&scene.tracker.verdict(scene.at(900))));
    assert_eq!(scene.tracker.verdict(scene.at(1_000)), Verdict::Converged);
}

#[test]
fn what_keeps_failing_ends_with_the_last_error() {
    let mut scene = Scene::new(1, None);
    assert!(is_waiting(&scene.see(0, &[failed("a", 7), task("b", 1, "running", "running")])));
    assert!(is_waiting(&scene.see(100, &[failed("a", 7), failed("b", 7)])));
    // History forgets the oldest; we do not.
    let third = [failed("b", 7), failed("c", 9), task("d", 1, "ready", "ready")];
    let Verdict::Failing { reason } = scene.see(1_000, &third) else { panic!() };
    assert_eq!(reason, "slot 1 failed 3 times, last: exited with code 9 (on w1)");
}

#[test]
fn an_exhausted_policy_ends_at_once() {
    let mut scene = Scene::new(1, None);
    let mut last = failed("a", 3);
    last.reason = EXHAUSTED.into();
    let Verdict::Failing { reason } = scene.see(0, &[last]) else { panic!() };
    assert!(reason.contains("exited with code 3") && reason.contains("policy"), "{reason}");
}

#[test]
fn a_lost_node_is_nobodys_failure() {
    let mut scene = Scene::new(1, None);
    for id in ["a", "b", "c", "d"] {
        assert!(is_waiting(&scene.see(0, &[task(id, 1, "shutdown", "lost")])));
    }
}

#[test]
fn pending_for_too_long_ends_with_the_reason() {
    let mut scene = Scene::new(1, None);
    let mut pending = task("a", 1, "running", "pending");
    pending.message = "constraints refused 3 nodes".into();
    assert_eq!(
        scene.see(0, &[pending.clone()]),
        Verdict::Waiting { until: Some(scene.at(60_000)) }
    );
    pending.message = "constraints refused 2 nodes".into();
    scene.see(30_000, &[pending]);
    let Verdict::Stuck { reason } = scene.tracker.verdict(scene.at(60_000)) else { panic!() };
    assert_eq!(reason, "slot 1: pending, constraints refused 2 nodes");
}

#[test]
fn preparing_may_take_long_while_it_moves() {
    let mut scene = Scene::new(1, None);
    let mut pulling = task("a", 1, "running", "preparing");
    for step in 0..10u64 {
        pulling.message = format!("pulling {step}0%");
        assert!(is_waiting(&scene.see(step * 50_000, &[pulling.clone()])), "{step}");
    }
    assert!(matches!(scene.tracker.verdict(scene.at(600_000)), Verdict::Stuck { .. }));
}

#[test]
fn no_task_at_all_is_said_so() {
    let mut scene = Scene::new(1, None);
    scene.see(0, &[]);
    let Verdict::Stuck { reason } = scene.tracker.verdict(scene.at(60_000)) else { panic!() };
    assert_eq!(reason, "slot 1: has no task yet");
}

#[test]
fn an_update_is_done_when_the_old_revision_is_gone() {
    let mut scene = Scene::new(1, Some(1));
    scene.service.revision = 2;
    let old = task("a", 1, "running", "running");
    assert!(is_waiting(&scene.see(0, std::slice::from_ref(&old))));
    assert_eq!(scene.tracker.picture().leaving, 1);
    let new = pb::Task { revision: 2, ..task("b", 1, "running", "running") };
    let stopped = task("a", 1, "shutdown", "shutdown");
    scene.see(10, &[new, stopped]);
    assert_eq!(scene.tracker.verdict(scene.at(110)), Verdict::Converged);
}

#[test]
fn scaling_forgives_failures_from_before() {
    let mut scene = Scene::new(1, Some(1));
    let old = [failed("a", 1), failed("b", 1), failed("c", 1), task("d", 1, "running", "running")];
    scene.see(0, &old);
    assert_eq!(scene.tracker.verdict(scene.at(100)), Verdict::Converged);
}

#[test]
fn scaling_down_waits_for_the_surplus_and_zero_is_a_number() {
    let mut scene = Scene::new(0, Some(1));
    assert!(is_waiting(&scene.see(0, &[task("a", 1, "running", "running")])));
    assert_eq!(scene.see(10, &[task("a", 1, "remove", "running")]), Verdict::Converged);
}

#[test]
fn pictures_become_lines() {
    let mut scene = Scene::new(2, None);
    let before = scene.tracker.picture();
    let mut pulling = task("b", 2, "running", "preparing");
    pulling.message = "pulling\nweb:1".into();
    pulling.node_name = "w2".into();
    let mut running = task("a", 1, "running", "running");
    running.node_name = "w1".into();
    scene.see(0, &[running, pulling]);
    let after = scene.tracker.picture();
    let whole = draw::whole(&after);
    assert_eq!(
        whole,
        [
            "overall progress: 1 out of 2 tasks",
            "1/2: running   on w1",
            "2/2: preparing on w2, pulling web:1",
        ]
    );
    let changes = draw::changes(&before, &after);
    assert_eq!(changes, [whole[1].clone(), whole[2].clone(), whole[0].clone()]);
    assert!(draw::changes(&after, &after).is_empty());
}

#[test]
fn many_slots_are_counted() {
    let mut scene = Scene::new(30, None);
    let tasks: Vec<pb::Task> = (1..=30)
        .map(|slot| {
            let state = if slot <= 10 { "running" } else { "pending" };
            let mut task = task(&format!("t{slot}"), slot, "running", state);
            task.message = "no room".into();
            task
        })
        .collect();
    scene.see(0, &tasks);
    assert_eq!(
        draw::whole(&scene.tracker.picture()),
        ["overall progress: 10 out of 30 tasks", "20 pending no room", "10 running"]
    );
}

#[test]
fn slots_wait_their_turn_while_an_update_moves() {
    let mut scene = Scene::new(3, Some(1));
    scene.service.revision = 2;
    let old = |slot| task(&format!("o{slot}"), slot, "running", "running");
    let new =
        |slot, state| pb::Task { revision: 2, ..task(&format!("n{slot}"), slot, "running", state) };
    scene.see(0, &[old(1), old(2), old(3)]);
    assert_eq!(scene.tracker.picture().lines[2].state, "outdated");
    assert!(is_waiting(&scene.see(50_000, &[new(1, "running"), old(2), old(3)])));
    assert!(is_waiting(&scene.see(100_000, &[new(1, "running"), new(2, "running"), old(3)])));
    let Verdict::Stuck { reason } = scene.tracker.verdict(scene.at(160_000)) else { panic!() };
    assert_eq!(reason, "slot 3: still runs an older revision");
}

#[test]
fn surplus_that_nobody_stops_ends_the_wait() {
    let mut scene = Scene::new(0, Some(1));
    scene.see(0, &[task("a", 1, "running", "running")]);
    let Verdict::Stuck { reason } = scene.tracker.verdict(scene.at(60_000)) else { panic!() };
    assert!(reason.contains("1 to be stopped"), "{reason}");
}

#[test]
fn of_very_large_services_the_counts_decide() {
    let mut scene = Scene::new(SLOTS_MAX + 500, None);
    let tasks: Vec<pb::Task> = (1..=SLOTS_MAX + 100)
        .map(|slot| task(&format!("t{slot}"), slot, "running", "running"))
        .collect();
    scene.service.running = SLOTS_MAX + 100;
    assert!(is_waiting(&scene.see(0, &tasks)));
    assert!(is_waiting(&scene.tracker.verdict(scene.at(1_000))));
    scene.service.running = SLOTS_MAX + 500;
    scene.see(2_000, &tasks);
    assert_eq!(scene.tracker.verdict(scene.at(2_100)), Verdict::Converged);
}

fn rollout(kind: &str, state: &str) -> Option<pb::Rollout> {
    Some(pb::Rollout { kind: kind.into(), state: state.into(), to: 2, ..Default::default() })
}

#[test]
fn while_an_update_moves_its_policy_decides_about_failures() {
    let mut scene = Scene::new(1, Some(1));
    scene.service.revision = 2;
    scene.service.rollout = rollout("update", "running");
    let failed = |id: &str| pb::Task { revision: 2, ..failed(id, 7) };
    let four = [failed("a"), failed("b"), failed("c"), failed("d")];
    assert!(is_waiting(&scene.see(0, &four)));
    scene.service.rollout = rollout("update", "completed");
    assert!(matches!(scene.see(100, &four), Verdict::Failing { .. }));
}

#[test]
fn an_updates_delay_is_no_standstill() {
    let mut scene = Scene::new(2, Some(1));
    scene.service.revision = 2;
    scene.service.rollout = rollout("update", "running");
    let new = pb::Task { revision: 2, ..task("n1", 1, "running", "running") };
    let old = task("o2", 2, "running", "running");
    scene.see(0, &[new.clone(), old]);
    assert!(is_waiting(&scene.tracker.verdict(scene.at(600_000))));
    // But a task that cannot be placed is one.
    let pending = pb::Task { revision: 2, ..task("n2", 2, "running", "pending") };
    scene.see(600_000, &[new, pending]);
    assert!(matches!(scene.tracker.verdict(scene.at(660_000)), Verdict::Stuck { .. }));
}

#[test]
fn all_running_is_not_the_end_of_a_watched_update() {
    let mut scene = Scene::new(1, Some(1));
    scene.service.revision = 2;
    scene.service.rollout = rollout("update", "running");
    let new = [pb::Task { revision: 2, ..task("n1", 1, "running", "running") }];
    scene.see(0, &new);
    assert_eq!(scene.tracker.verdict(scene.at(1_000_000)), Verdict::Waiting { until: None });
    scene.service.rollout = rollout("update", "completed");
    assert_eq!(scene.see(1_000_001, &new), Verdict::Converged);
}

#[test]
fn a_task_that_gets_no_connections_is_not_there_yet() {
    let mut scene = Scene::new(1, None);
    let mut warming = task("a", 1, "running", "running");
    warming.ready = false;
    assert!(is_waiting(&scene.see(0, &[warming.clone()])));
    assert_eq!(scene.tracker.picture().lines[0].state, "not ready");
    assert!(matches!(scene.tracker.verdict(scene.at(60_000)), Verdict::Stuck { .. }));
    warming.ready = true;
    scene.see(60_000, &[warming]);
    assert_eq!(scene.tracker.verdict(scene.at(60_100)), Verdict::Converged);
}

#[test]
fn older_revisions_that_run_the_same_may_stay() {
    let mut scene = Scene::new(1, Some(1));
    scene.service.revision = 2;
    let now = scene.at(0);
    // The service counts none as outdated: only the placement changed.
    scene.tracker.observe(&scene.service, &[task("a", 1, "running", "running")], now);
    assert_eq!(scene.tracker.verdict(scene.at(100)), Verdict::Converged);
}

#[test]
fn gaps_in_the_numbers_are_no_surplus() {
    let mut scene = Scene::new(2, Some(1));
    scene.see(0, &[task("a", 1, "running", "running"), task("c", 3, "running", "running")]);
    assert_eq!(scene.tracker.picture().leaving, 0);
    assert_eq!(scene.tracker.verdict(scene.at(100)), Verdict::Converged);
}

#[test]
fn a_job_may_take_its_time_but_not_wait_for_a_node_for_ever() {
    use pb::service_spec::Mode;
    let mut scene = Scene::new(3, None);
    scene.service.spec =
        Some(pb::ServiceSpec { mode: Mode::ReplicatedJob.into(), ..Default::default() });
    let running = task("a", 1, "running", "running");
    scene.see(0, std::slice::from_ref(&running));
    assert_eq!(scene.tracker.verdict(scene.at(10_000_000)), Verdict::Waiting { until: None });
    let backs_off = task("b", 2, "ready", "ready");
    scene.see(0, &[running.clone(), backs_off]);
    assert!(is_waiting(&scene.tracker.verdict(scene.at(10_000_000))));
    scene.see(0, &[running, task("c", 3, "running", "pending")]);
    assert!(matches!(scene.tracker.verdict(scene.at(60_000)), Verdict::Stuck { .. }));
}
