//! Whole command lines against a manager that says what it is told to.

mod jobs;
mod verbs;

use cluster_identity::Ca;
use cluster_pb::control::v1 as control;
use cluster_pb::types::v1 as pb;
use serde_json::Value;

use crate::testing::fake::{FakeManager, Script};
use crate::testing::{Ran, ca, clusterctl, context};

fn service(version: u64, desired: u32) -> pb::Service {
    let container = pb::ContainerSpec { image: "web:1".into(), ..Default::default() };
    let task = pb::TaskSpec { container: Some(container), ..Default::default() };
    pb::Service {
        id: "s1".into(),
        version,
        revision: 1,
        desired,
        running: 1,
        spec: Some(pb::ServiceSpec {
            name: "web".into(),
            replicas: desired,
            task: Some(task),
            ..Default::default()
        }),
        ports: vec![pb::PortSpec { published: 80, target: 8080, host: false }],
        ..Default::default()
    }
}

fn task(id: &str, slot: u32, desired: &str, observed: &str) -> pb::Task {
    pb::Task {
        id: id.into(),
        service_id: "s1".into(),
        service_name: "web".into(),
        slot,
        revision: 1,
        node_name: "worker-1".into(),
        desired_state: desired.into(),
        observed_state: observed.into(),
        ready: observed == "running",
        ..Default::default()
    }
}

fn seen(tasks: Vec<pb::Task>) -> control::WatchServiceResponse {
    control::WatchServiceResponse { service: Some(service(5, 2)), tasks, index: 1 }
}

fn run(script: Script, words: &[&str]) -> (Ran, FakeManager) {
    let ca: Ca = ca("c1");
    let manager = FakeManager::start(&ca, script);
    let context = context(&ca, "test", vec![manager.address.to_string()]);
    (clusterctl(&context, words), manager)
}

const CREATE: [&str; 7] = ["service", "create", "--name", "web", "--replicas", "2", "web:1"];

#[test]
fn create_prints_the_id_and_tells_how_it_goes() {
    let running = |slot| task(&format!("t{slot}"), slot, "running", "running");
    let watch = vec![
        seen(vec![running(1), task("t2", 2, "running", "preparing")]),
        seen(vec![running(1), running(2)]),
    ];
    let (ran, manager) = run(Script { watch, ..Default::default() }, &CREATE);
    assert_eq!((ran.code, ran.out.as_str()), (0, "s1\n"));
    assert_eq!(
        ran.err.lines().collect::<Vec<_>>(),
        [
            "1/2: running   on worker-1",
            "2/2: preparing on worker-1",
            "overall progress: 1 out of 2 tasks",
            "2/2: running   on worker-1",
            "overall progress: 2 out of 2 tasks",
            "service web converged",
        ]
    );
    let created = manager.script.lock().unwrap().created[0].spec.clone().unwrap();
    assert_eq!((created.name.as_str(), created.replicas), ("web", 2));
}

#[test]
fn create_leaves_with_the_reason_when_tasks_keep_failing() {
    let failed = |id: &str| pb::Task {
        error: "no such program".into(),
        ..task(id, 1, "shutdown", "rejected")
    };
    let watch = vec![seen(vec![failed("a"), failed("b"), failed("c")])];
    let (ran, _manager) = run(Script { watch, ..Default::default() }, &CREATE);
    assert_eq!((ran.code, ran.out.as_str()), (1, "s1\n"));
    assert!(ran.err.contains("failed 3 times, last: no such program (on worker-1)"), "{}", ran.err);
    assert!(ran.err.contains("service ps web"), "{}", ran.err);
}

#[test]
fn create_leaves_with_code_4_and_the_reason_when_nothing_moves() {
    let pending = pb::Task { message: "no room".into(), ..task("a", 1, "running", "pending") };
    let watch = vec![seen(vec![pending])];
    let line = [&CREATE[..6], &["--wait-timeout", "200ms", "web:1"]].concat();
    let (ran, _manager) = run(Script { watch, ..Default::default() }, &line);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("slot 1: pending, on worker-1, no room"), "{}", ran.err);
}

#[test]
fn a_service_that_goes_away_ends_the_wait() {
    let script = Script { watch: vec![seen(Vec::new())], watch_ends: true, ..Default::default() };
    let (ran, _manager) = run(script, &CREATE);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("removed meanwhile"), "{}", ran.err);
}

#[test]
fn an_older_picture_of_the_service_is_not_taken_for_the_change() {
    let old = control::WatchServiceResponse { service: Some(service(4, 0)), ..Default::default() };
    let script = Script {
        service: control::GetServiceResponse { service: Some(service(4, 0)), index: 1 },
        watch: vec![old],
        ..Default::default()
    };
    // The old picture says "0 of 0": were it believed, the command would end with success.
    let (ran, manager) = run(script, &["service", "scale", "--wait-timeout", "200ms", "web=2"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert_eq!(manager.script.lock().unwrap().updated[0].version, 4);
}

#[test]
fn quiet_and_detached() {
    let (ran, _manager) = run(Script::default(), &["service", "create", "-d", "web:1"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "s1\n", ""));
    let watch =
        vec![control::WatchServiceResponse { service: Some(service(5, 0)), ..Default::default() }];
    let script = Script { watch, ..Default::default() };
    let (ran, _manager) = run(script, &["service", "create", "-q", "web:1"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "s1\n", ""));
}

#[test]
fn lists_follow_their_pages() {
    let answer = control::GetServiceResponse { service: Some(service(4, 2)), index: 1 };
    let script = || Script { service: answer.clone(), ..Default::default() };
    let (ran, _manager) = run(script(), &["service", "ls"]);
    assert_eq!(
        ran.out,
        "ID   NAME   MODE         REPLICAS   IMAGE   PORTS\n\
         s1   web    replicated   1/2        web:1   *:80->8080/tcp\n\
         s1   web    replicated   1/2        web:1   *:80->8080/tcp\n"
    );
    let (ran, _manager) = run(script(), &["service", "ls", "--quiet"]);
    assert_eq!(ran.out, "s1\ns1\n");
    let (ran, _manager) = run(script(), &["service", "inspect", "web", "--output", "json"]);
    let shown: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(shown["spec"]["container"]["image"], "web:1");
    assert_eq!(shown["ports"][0]["published"], 80);
}

#[test]
fn a_task_in_json_has_what_scripts_need() {
    let mut failed = task("t1", 1, "shutdown", "failed");
    failed.exit_code = Some(7);
    failed.error = "exited".into();
    failed.reason = "restart".into();
    let tasks = control::ListTasksResponse { tasks: vec![failed], ..Default::default() };
    let script = Script { tasks, ..Default::default() };
    let (ran, _manager) = run(script, &["service", "ps", "web", "-o", "json"]);
    let shown: Value = serde_json::from_str(&ran.out).unwrap();
    let expected = serde_json::json!({
        "id": "t1", "service": "web", "slot": 1, "node": "worker-1", "desired_state": "shutdown",
        "observed_state": "failed", "error": "exited", "reason": "restart", "exit_code": 7,
        "message": "", "oom": false, "name": "web.1", "started_at_ms": null,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&shown[0][key], value, "{key}");
    }
}

#[test]
fn each_of_several_is_told() {
    let (ran, _manager) = run(Script::default(), &["service", "rm", "a", "nope", "b"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, "id-of-a\nid-of-b\n"));
    assert!(ran.err.contains("E0102") && ran.err.contains("nope"), "{}", ran.err);
}

#[test]
fn logs_say_whose_line_it_is_and_notices_are_talk() {
    use control::logs_response::Item;
    let line = |stream: &str, text: &str| control::LogsResponse {
        item: Some(Item::Line(control::LogLine {
            task_id: "t1".into(),
            service_name: "web".into(),
            slot: 1,
            node_name: "worker-1".into(),
            stream: stream.into(),
            unix_nanos: 1,
            text: text.into(),
        })),
    };
    let notice = control::LogsResponse { item: Some(Item::Notice("worker-2 is down".into())) };
    let logs = vec![line("stdout", "one\n"), notice, line("stderr", "two")];
    let (ran, _manager) = run(Script { logs, ..Default::default() }, &["service", "logs", "web"]);
    assert_eq!(ran.code, 0);
    assert_eq!(ran.out, "web.1.t1@worker-1 | one\n");
    assert_eq!(ran.err, "notice: worker-2 is down\nweb.1.t1@worker-1 | two\n");
}

#[test]
fn managers_are_not_changed_as_nodes() {
    let node = pb::Node { name: "m1".into(), role: "manager".into(), ..Default::default() };
    let script = || Script { nodes: vec![node.clone()], ..Default::default() };
    let (ran, manager) = run(script(), &["node", "update", "--label-add", "a=b", "m1"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("m1 is a manager"), "{}", ran.err);
    assert_eq!(manager.script.lock().unwrap().asked, 1, "only read");
    // Whether a manager may go is for the managers to say.
    let (ran, manager) = run(script(), &["node", "rm", "m1"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(manager.script.lock().unwrap().asked, 2, "read, then removed");
}

#[test]
fn a_token_comes_with_the_command_that_uses_it() {
    let (ran, _manager) = run(Script::default(), &["cluster", "token", "--role", "worker"]);
    assert_eq!(ran.out, "cluster-worker join --token CLUSTER-1-worker-x-y 10.0.0.1:7100\n");
    let (ran, _manager) = run(Script::default(), &["cluster", "token", "--role", "manager", "-q"]);
    assert_eq!(ran.out, "CLUSTER-1-manager-x-y\n");
}
