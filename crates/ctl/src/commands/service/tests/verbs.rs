//! Verbs that steer, go back, compare and foretell.

use cluster_pb::control::v1 as control;
use cluster_pb::types::v1 as pb;
use serde_json::Value;

use super::{run, seen, service, task};
use crate::testing::fake::Script;

fn answer(service: pb::Service) -> control::GetServiceResponse {
    control::GetServiceResponse { service: Some(service), index: 1 }
}

fn rollout(kind: &str, state: &str, message: &str) -> pb::Rollout {
    pb::Rollout {
        kind: kind.into(),
        state: state.into(),
        from: 1,
        to: 2,
        message: message.into(),
        ..Default::default()
    }
}

/// The service with two running tasks and a rollout, at log index 7.
fn rolling(rollout: pb::Rollout) -> control::WatchServiceResponse {
    let running = |slot| task(&format!("t{slot}"), slot, "running", "running");
    let mut response = seen(vec![running(1), running(2)]);
    let service = response.service.as_mut().unwrap();
    service.version = 6;
    service.rollout = Some(rollout);
    response.index = 7;
    response
}

fn script(watch: Vec<control::WatchServiceResponse>) -> Script {
    Script { service: answer(service(4, 2)), watch, ..Default::default() }
}

const UPDATE: [&str; 5] = ["service", "update", "--image", "web:2", "web"];

#[test]
fn an_update_ends_when_its_rollout_is_completed() {
    let watch = vec![
        rolling(rollout("update", "running", "")),
        rolling(rollout("update", "completed", "")),
    ];
    let (ran, manager) = run(script(watch), &UPDATE);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.ends_with("service web converged\n"), "{}", ran.err);
    let sent = manager.script.lock().unwrap().updated[0].clone();
    assert_eq!((sent.id.as_str(), sent.version), ("s1", 4));
}

#[test]
fn an_update_that_pauses_or_goes_back_ends_with_the_reason() {
    let paused = rollout("update", "paused", "task t9 of slot 1 failed: exited with code 7");
    let (ran, _manager) = run(script(vec![rolling(paused)]), &UPDATE);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.contains(
            "service web does not converge: the update to revision 2 is paused: task t9 of slot 1 \
             failed: exited with code 7"
        ),
        "{}",
        ran.err
    );

    let back =
        |state, message| rolling(pb::Rollout { to: 1, ..rollout("rollback", state, message) });
    let watch = vec![
        rolling(rollout("update", "running", "")),
        back("running", "task t9 failed"),
        back("completed", "all slots moved"),
    ];
    let (ran, _manager) = run(script(watch), &UPDATE);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("rolling back to revision 1: task t9 failed"), "{}", ran.err);
    assert!(
        ran.err.contains("the update failed and was rolled back to revision 1: task t9 failed"),
        "{}",
        ran.err
    );
}

#[test]
fn an_update_that_was_paused_before_is_told_but_no_failure() {
    let paused = rollout("update", "paused", "task t9 failed");
    let mut before = service(4, 2);
    before.rollout = Some(paused.clone());
    let script =
        Script { service: answer(before), watch: vec![rolling(paused)], ..Default::default() };
    let (ran, _manager) = run(script, &["service", "update", "--update-delay", "5s", "web"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("web is changed; the update to revision 2 is paused"), "{}", ran.err);
}

#[test]
fn canaries_end_the_wait_and_are_promoted() {
    let waiting = rolling(rollout("update", "awaiting-promotion", ""));
    let (ran, _manager) = run(script(vec![waiting.clone()]), &UPDATE);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("clusterctl service promote web"), "{}", ran.err);

    // What was true before the word is not taken for its outcome.
    let before = control::WatchServiceResponse { index: 6, ..waiting };
    let watch = vec![before, rolling(rollout("update", "completed", ""))];
    let (ran, manager) = run(script(watch), &["service", "promote", "web"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "s1\n"), "{}", ran.err);
    assert!(ran.err.contains("converged"), "{}", ran.err);
    assert_eq!(manager.script.lock().unwrap().steered[0].steer, "promote");
}

#[test]
fn updates_are_paused_and_resumed() {
    let (ran, manager) = run(script(Vec::new()), &["service", "update", "--pause", "web"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "s1\n"), "{}", ran.err);
    assert_eq!(manager.script.lock().unwrap().steered[0].steer, "pause");
    let (ran, manager) = run(script(Vec::new()), &["service", "update", "--resume", "-d", "web"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let script = manager.script.lock().unwrap();
    assert_eq!(script.steered[0].steer, "resume");
    assert!(script.updated.is_empty());
}

#[test]
fn rollbacks_name_what_they_go_back_to() {
    let back = pb::Rollout { to: 1, ..rollout("rollback", "completed", "") };
    let line = ["service", "rollback", "--to", "1", "web"];
    let (ran, manager) = run(script(vec![rolling(back)]), &line);
    assert_eq!((ran.code, ran.out.as_str()), (0, "s1\n"), "{}", ran.err);
    assert!(ran.err.starts_with("going back to revision 1\n"), "{}", ran.err);
    let sent = manager.script.lock().unwrap().rolled_back[0].clone();
    assert_eq!((sent.id.as_str(), sent.version, sent.to), ("s1", 4, 1));
}

#[test]
fn a_restart_raises_the_counter_and_waits() {
    let done = rolling(rollout("update", "completed", ""));
    let (ran, manager) = run(script(vec![done]), &["service", "restart", "web"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let sent = manager.script.lock().unwrap().updated[0].clone();
    assert_eq!(sent.spec.unwrap().task.unwrap().force_update, 1);
}

#[test]
fn another_version_than_expected_changes_nothing() {
    for line in [
        ["service", "update", "--expect-version", "3", "--force", "web"].as_slice(),
        &["service", "scale", "--expect-version", "3", "web=3"],
        &["service", "rollback", "--expect-version", "3", "web"],
    ] {
        let (ran, manager) = run(script(Vec::new()), line);
        assert_eq!(ran.code, 1, "{line:?}");
        assert!(ran.err.contains("error[E0105]: ") && ran.err.contains("version 3, now 4"));
        assert_eq!(manager.script.lock().unwrap().asked, 1, "only read");
    }
    let (ran, manager) =
        run(script(Vec::new()), &["service", "rm", "--expect-version", "4", "web"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(manager.script.lock().unwrap().removed[0].version, Some(4));
    let (ran, _manager) =
        run(script(Vec::new()), &["service", "rm", "--expect-version", "4", "a", "b"]);
    assert_eq!(ran.code, 2);
}

#[test]
fn scaling_down_takes_the_tasks_that_are_named() {
    let tasks = vec![task("t1", 1, "running", "running"), task("t2", 2, "running", "running")];
    let script = |desired| Script {
        service: answer(service(4, desired)),
        tasks: control::ListTasksResponse { tasks: tasks.clone(), ..Default::default() },
        ..Default::default()
    };
    let line = ["service", "scale", "-d", "web=1", "--remove", "web.2"];
    let (ran, manager) = run(script(2), &line);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let sent = manager.script.lock().unwrap().updated[0].clone();
    assert_eq!((sent.remove_tasks, sent.spec.unwrap().replicas), (vec!["t2".to_owned()], 1));
    let (ran, _manager) = run(script(1), &line);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("--remove: names 1 tasks, but the service shrinks by 0"),
        "{}",
        ran.err
    );
    let (ran, _manager) = run(script(2), &["service", "scale", "a=1", "b=1", "--remove", "x"]);
    assert!(ran.code == 2 && ran.err.contains("one service at a time"), "{}", ran.err);
}

#[test]
fn a_global_service_is_not_scaled() {
    let mut global = service(4, 0);
    global.spec.as_mut().unwrap().mode = pb::service_spec::Mode::Global.into();
    let script = || Script { service: answer(global.clone()), ..Default::default() };
    let (ran, _manager) = run(script(), &["service", "scale", "web=3"]);
    assert!(ran.code == 1 && ran.err.contains("cannot be scaled"), "{}", ran.err);
    let (ran, _manager) = run(script(), &["service", "update", "--replicas", "3", "web"]);
    assert!(ran.code == 2 && ran.err.contains("--replicas: a global"), "{}", ran.err);
}

fn revisions() -> Vec<pb::Revision> {
    let revision = |number, image: &str, tasks| pb::Revision {
        number,
        tasks,
        task: Some(pb::TaskSpec {
            container: Some(pb::ContainerSpec { image: image.into(), ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    };
    vec![
        pb::Revision { current: true, ..revision(3, "web:3", 1) },
        pb::Revision { previous: true, ..revision(2, "web:2", 1) },
        revision(1, "web:1", 0),
    ]
}

#[test]
fn history_and_differences() {
    let script = || Script { revisions: revisions(), ..Default::default() };
    let (ran, _manager) = run(script(), &["service", "history", "web"]);
    assert_eq!(
        ran.out,
        "REVISION   CREATED   IMAGE   TASKS\n\
         3          never     web:3   1       current\n\
         2          never     web:2   1       previous\n\
         1          never     web:1   0\n"
    );
    let (ran, _manager) = run(script(), &["service", "diff", "web"]);
    assert_eq!(ran.out, "FIELD             FROM    TO\ncontainer.image   web:2   web:3\n");
    assert_eq!(ran.err, "from revision 2 to revision 3\n");
    let (ran, _manager) = run(script(), &["service", "diff", "web", "--from", "1", "-o", "json"]);
    let shown: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        shown["differences"],
        serde_json::json!([{"field": "container.image", "from": "web:1", "to": "web:3"}])
    );
    let (ran, _manager) = run(script(), &["service", "diff", "web", "--to", "9"]);
    assert!(ran.code == 1 && ran.err.contains("there are 3, 2, 1"), "{}", ran.err);
}

fn forecast() -> control::ForecastResponse {
    let step = |action: &str, slot, node: &str, reason: &str| control::Step {
        action: action.into(),
        service_name: "web".into(),
        slot,
        node_name: node.into(),
        reason: reason.into(),
        ..Default::default()
    };
    control::ForecastResponse {
        steps: vec![step("start", 1, "worker-1", "scale up")],
        pending: vec![step("pending", 2, "", "too little memory on 3 nodes")],
        started: 1,
        ..Default::default()
    }
}

#[test]
fn dry_runs_foretell_and_change_nothing() {
    let script = || Script { forecast: forecast(), ..script(Vec::new()) };
    let line = ["service", "create", "--dry-run", "--name", "web", "web:1"];
    let (ran, manager) = run(script(), &line);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        ran.out,
        "ACTION    TASK    NODE       FROM   REASON\n\
         start     web.1   worker-1          scale up\n\
         pending   web.2                     too little memory on 3 nodes\n\
         \n\
         1 to start, 0 to stop, 0 to replace, 0 to move, 0 to preempt, 1 without a node\n"
    );
    assert_eq!(ran.err, "this is a forecast: nothing was changed\n");
    assert!(manager.script.lock().unwrap().created.is_empty());

    let line = ["service", "update", "--dry-run", "-o", "json", "--replicas", "3", "web"];
    let (ran, manager) = run(script(), &line);
    let shown: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&shown["started"], &shown["pending"]), (&1.into(), &1.into()));
    assert_eq!(shown["steps"][1]["reason"], "too little memory on 3 nodes");
    assert!(manager.script.lock().unwrap().updated.is_empty());
}

#[test]
fn explanations_are_also_for_programs() {
    let explanation = control::ExplainResponse {
        service_name: "web".into(),
        slots: vec![control::SlotExplanation { slot: 1, ..Default::default() }],
        ..Default::default()
    };
    let script = || Script { explanation: explanation.clone(), ..Default::default() };
    let (ran, _manager) = run(script(), &["explain", "web"]);
    assert!(ran.out.contains("web.1 has no task"), "{}", ran.out);
    let (ran, _manager) = run(script(), &["explain", "web", "--output", "json"]);
    let shown: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(shown["slots"][0]["slot"], 1);
}

#[test]
fn a_refusal_of_the_managers_names_the_flag() {
    use cluster_wire::{Code, Failure};
    let told = "field `job.schedule.cron`: `61 * * * *`: minute 61 is not 0-59; write 0-59";
    let script =
        Script { fail: Some(Failure::new(Code::InvalidField, told)), ..Default::default() };
    let (ran, _manager) = run(script, &["service", "create", "--schedule", "61 * * * *", "web:1"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.starts_with("error[E0101]: --schedule: `61 * * * *`: minute 61 is not 0-59"),
        "{}",
        ran.err
    );
}
