//! Jobs, schedules, and services with a slot for each node.

use cluster_pb::control::v1 as control;
use cluster_pb::types::v1 as pb;
use cluster_pb::types::v1::service_spec::Mode;

use super::{run, service, task};
use crate::testing::fake::Script;

fn in_mode(mode: Mode, desired: u32) -> pb::Service {
    let mut service = service(5, desired);
    service.spec.as_mut().unwrap().mode = mode.into();
    service
}

fn job(completed: u32, outcome: &str) -> pb::Service {
    pb::Service {
        completed,
        run: Some(pb::JobRun { outcome: outcome.into(), ..Default::default() }),
        ..in_mode(Mode::ReplicatedJob, 3)
    }
}

fn told(service: pb::Service, tasks: Vec<pb::Task>) -> control::WatchServiceResponse {
    control::WatchServiceResponse { service: Some(service), tasks, index: 1 }
}

const CREATE: [&str; 9] =
    ["service", "create", "--name", "web", "--mode", "replicated-job", "--replicas", "3", "web:1"];

fn complete(slot: u32) -> pb::Task {
    pb::Task {
        reason: "completed".into(),
        ..task(&format!("t{slot}"), slot, "shutdown", "complete")
    }
}

#[test]
fn a_job_is_waited_for_until_it_succeeded() {
    let watch = vec![
        told(job(0, "unfinished"), vec![task("t1", 1, "running", "running")]),
        told(job(2, "unfinished"), vec![complete(1), complete(2)]),
        told(job(3, "succeeded"), vec![complete(1), complete(2), complete(3)]),
    ];
    let (ran, _manager) = run(Script { watch, ..Default::default() }, &CREATE);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        ran.err.lines().collect::<Vec<_>>(),
        [
            "1/3: running   on worker-1",
            "job progress: 0 out of 3 completed",
            "job progress: 2 out of 3 completed",
            "job progress: 3 out of 3 completed",
            "service web completed",
        ]
    );
}

#[test]
fn a_job_that_failed_ends_with_code_1() {
    let failed = pb::Task { exit_code: Some(7), ..task("t1", 1, "shutdown", "failed") };
    let watch = vec![told(job(1, "failed"), vec![failed, complete(2)])];
    let (ran, _manager) = run(Script { watch, ..Default::default() }, &CREATE);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("the job failed: exited with code 7"), "{}", ran.err);
    let watch = vec![told(job(1, "timed-out"), Vec::new())];
    let (ran, _manager) = run(Script { watch, ..Default::default() }, &CREATE);
    assert!(ran.code == 1 && ran.err.contains("--max-run-duration"), "{}", ran.err);
}

#[test]
fn a_scheduled_service_is_not_waited_for() {
    let mut scheduled = in_mode(Mode::ReplicatedJob, 0);
    scheduled.next_launch_ms = 4_102_444_800_000;
    let script = Script {
        service: control::GetServiceResponse { service: Some(scheduled), index: 1 },
        ..Default::default()
    };
    let line = ["service", "create", "--name", "n", "--schedule", "0 0 * * *", "web:1"];
    let (ran, _manager) = run(script, &line);
    assert_eq!((ran.code, ran.out.as_str()), (0, "s1\n"), "{}", ran.err);
    assert!(ran.err.starts_with("service n is launched next in "), "{}", ran.err);
    assert!(ran.err.ends_with("at 2100-01-01T00:00:00.000Z\n"), "{}", ran.err);
}

#[test]
fn a_global_service_is_waited_for_on_every_node() {
    let on = |id: &str, slot, node: &str, state: &str| pb::Task {
        target_node_name: node.into(),
        node_name: node.into(),
        ..task(id, slot, "running", state)
    };
    let one = vec![on("a", 17, "w1", "running"), on("b", 9, "w2", "starting")];
    let both = vec![on("a", 17, "w1", "running"), on("b", 9, "w2", "running")];
    let watch = vec![
        told(in_mode(Mode::Global, 0), Vec::new()),
        told(in_mode(Mode::Global, 2), one),
        told(in_mode(Mode::Global, 2), both),
    ];
    let line = ["service", "create", "--name", "web", "--mode", "global", "web:1"];
    let (ran, _manager) = run(Script { watch, ..Default::default() }, &line);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        ran.err.lines().collect::<Vec<_>>(),
        [
            "w2: starting  on w2",
            "w1: running   on w1",
            "overall progress: 1 out of 2 tasks",
            "w2: running   on w2",
            "overall progress: 2 out of 2 tasks",
            "service web converged",
        ]
    );
}

#[test]
fn a_global_service_without_nodes_says_so() {
    let unfinished = Some(pb::JobRun { outcome: "unfinished".into(), ..Default::default() });
    let job = pb::Service { run: unfinished, ..in_mode(Mode::GlobalJob, 0) };
    for (mode, service) in [("global", in_mode(Mode::Global, 0)), ("global-job", job)] {
        let watch = vec![told(service, Vec::new())];
        let line = ["service", "create", "--name", "web", "--mode", mode, "web:1"];
        let (ran, _manager) = run(Script { watch, ..Default::default() }, &line);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.err.contains("web runs on no node yet"), "{}", ran.err);
    }
}

#[test]
fn lists_show_what_each_mode_counts() {
    let rows = |service: pb::Service| {
        let answer = control::GetServiceResponse { service: Some(service), index: 1 };
        let script = Script { service: answer, ..Default::default() };
        let (ran, _manager) = run(script, &["service", "ls"]);
        ran.out.lines().nth(1).unwrap().to_owned()
    };
    let mut bounded = in_mode(Mode::Replicated, 3);
    bounded.spec.as_mut().unwrap().task.as_mut().unwrap().max_per_node = 2;
    assert!(rows(bounded).contains("replicated   1/3 (max 2 per node)"));
    let row = rows(job(1, "unfinished"));
    assert!(row.contains("replicated-job   1/2 (1/3 completed)"), "{row}");
    let row = rows(job(1, "failed"));
    assert!(row.contains("(1/3 completed), failed"), "{row}");
    let mut scheduled = in_mode(Mode::ReplicatedJob, 0);
    let job = pb::JobPolicy { schedule: Some(pb::Schedule::default()), ..Default::default() };
    scheduled.spec.as_mut().unwrap().job = Some(job);
    let row = rows(scheduled);
    assert!(row.contains("replicated-job (scheduled)   no launch to come"), "{row}");
}
