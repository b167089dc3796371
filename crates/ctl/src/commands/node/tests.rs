//! Whole command lines against a manager that says what it is told to.

use cluster_pb::control::v1 as control;
use cluster_pb::control::v1::forecast_request::Change;
use cluster_pb::types::v1 as pb;

use crate::testing::fake::{FakeManager, Script};
use crate::testing::{Ran, ca, clusterctl, context};

fn run(script: Script, words: &[&str]) -> (Ran, FakeManager) {
    let ca = ca("c1");
    let manager = FakeManager::start(&ca, script);
    let context = context(&ca, "test", vec![manager.address.to_string()]);
    (clusterctl(&context, words), manager)
}

fn node(availability: &str, tasks: u32, waits: &[&str]) -> pb::Node {
    pb::Node {
        id: "n1".into(),
        name: "worker-1".into(),
        role: "worker".into(),
        version: 3,
        availability: availability.into(),
        tasks,
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        drain_waits: waits.iter().map(|wait| (*wait).to_owned()).collect(),
        ..Default::default()
    }
}

#[test]
fn a_drain_says_what_it_waits_for_until_the_node_is_empty() {
    let node_story = vec![
        node("active", 2, &[]),
        node("drain", 2, &["web.1: its successor on worker-2 is starting"]),
        node("drain", 1, &["web.1: its successor on worker-2 is starting"]),
        node("drain", 0, &[]),
    ];
    let line = ["node", "drain", "--deadline", "10m", "worker-1"];
    let (ran, manager) = run(Script { node_story, ..Default::default() }, &line);
    assert_eq!((ran.code, ran.out.as_str()), (0, "n1\n"), "{}", ran.err);
    assert_eq!(
        ran.err.lines().collect::<Vec<_>>(),
        [
            "2 tasks left on worker-1",
            "waiting: web.1: its successor on worker-2 is starting",
            "1 task left on worker-1",
            "0 tasks left on worker-1",
            "node worker-1 is empty",
        ]
    );
    let sent = manager.script.lock().unwrap().nodes_updated[0].clone();
    assert_eq!((sent.availability.as_str(), sent.version), ("drain", 3));
    assert_eq!((sent.drain_deadline_ms, sent.drain_force), (Some(600_000), Some(false)));
    assert_eq!(sent.labels["zone"], "a", "labels stay");
}

#[test]
fn a_drain_that_somebody_ended_is_told() {
    let node_story = vec![node("active", 2, &[]), node("active", 2, &[])];
    let (ran, _manager) =
        run(Script { node_story, ..Default::default() }, &["node", "drain", "worker-1"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("worker-1 is no longer drained: it is active"), "{}", ran.err);
}

#[test]
fn a_drain_may_be_left_alone_or_only_foretold() {
    let script = || Script { node_story: vec![node("active", 2, &[])], ..Default::default() };
    let (ran, manager) =
        run(script(), &["node", "drain", "--detach", "--force", "--deadline", "10m", "worker-1"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let sent = manager.script.lock().unwrap().nodes_updated[0].clone();
    assert_eq!((sent.drain_deadline_ms, sent.drain_force), (None, Some(true)), "force wins");

    let forecast = control::ForecastResponse { moved: 2, ..Default::default() };
    let (ran, manager) =
        run(Script { forecast, ..script() }, &["node", "drain", "--dry-run", "worker-1"]);
    assert!(ran.out.contains("2 to move"), "{}", ran.out);
    let script = manager.script.lock().unwrap();
    assert!(script.nodes_updated.is_empty());
    assert!(matches!(&script.forecasts[0].change, Some(Change::Node(node)) if node.id == "n1"));
}

#[test]
fn managers_are_not_drained() {
    let manager = pb::Node { role: "manager".into(), name: "m1".into(), ..Default::default() };
    let (ran, _manager) =
        run(Script { nodes: vec![manager], ..Default::default() }, &["node", "drain", "m1"]);
    assert!(ran.code == 1 && ran.err.contains("m1 is a manager"), "{}", ran.err);
}

#[test]
fn the_clusters_strategy_is_changed_and_storms_are_shown() {
    let cluster = control::GetClusterResponse {
        object_version: 9,
        strategy: "spread".into(),
        storm: "3 of 4 nodes went silent at once: their tasks are not replaced".into(),
        ..Default::default()
    };
    let script = || Script { cluster: cluster.clone(), ..Default::default() };
    let (ran, manager) = run(script(), &["cluster", "update", "--strategy", "bin-pack"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "c1\n"), "{}", ran.err);
    let sent = manager.script.lock().unwrap().clusters_updated[0].clone();
    assert_eq!((sent.version, sent.strategy.as_str()), (9, "bin-pack"));
    let (ran, _manager) = run(script(), &["cluster", "info"]);
    assert!(ran.out.contains("storm:       3 of 4 nodes went silent"), "{}", ran.out);
    assert!(ran.out.contains("placement:   spread"), "{}", ran.out);
}
