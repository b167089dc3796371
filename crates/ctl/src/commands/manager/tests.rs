//! Whole command lines against a manager that says what it is told to.

use cluster_pb::control::v1 as pb;

use crate::testing::fake::{FakeManager, Script};
use crate::testing::{Ran, ca, clusterctl, context};

fn run(script: Script, words: &[&str]) -> (Ran, FakeManager) {
    let ca = ca("c1");
    let manager = FakeManager::start(&ca, script);
    let context = context(&ca, "test", vec![manager.address.to_string()]);
    (clusterctl(&context, words), manager)
}

fn managers() -> pb::ListManagersResponse {
    let manager = |name: &str, role: &str, silent_ms| pb::ManagerStatus {
        id: format!("id-{name}"),
        name: name.into(),
        address: "10.0.0.1:7100".into(),
        role: role.into(),
        leader: role == "leader",
        answering: role == "leader",
        heard: silent_ms == 0,
        silent_ms,
        lag: Some(silent_ms / 1000),
        version: "0.1.0".into(),
        ..Default::default()
    };
    pb::ListManagersResponse {
        managers: vec![
            manager("m1", "leader", 0),
            manager("m2", "voter", 65_432),
            manager("m3", "spare", 0),
        ],
        from_leader: true,
        warnings: vec!["manager m2 is not heard".into()],
        may_fail: 0,
    }
}

#[test]
fn managers_are_listed_with_what_is_wrong() {
    let script = || Script { managers: managers(), ..Default::default() };
    let (ran, _manager) = run(script(), &["manager", "ls"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines: Vec<Vec<&str>> = ran
        .out
        .lines()
        .map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(
        lines[1],
        ["m1", "id-m1", "10.0.0.1:7100", "leader (answering)", "yes", "0", "0.1.0"]
    );
    assert_eq!(lines[2], ["m2", "id-m2", "10.0.0.1:7100", "voter", "not for 1m5s", "65", "0.1.0"]);
    assert_eq!(ran.err, "warning: manager m2 is not heard\n");
    let (ran, _manager) = run(script(), &["manager", "ls", "--output", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&rows[1]["role"], &rows[1]["heard"]), (&"voter".into(), &false.into()));
}

#[test]
fn changes_say_what_was_done() {
    for (words, change, force) in [
        (&["manager", "promote", "m3"][..], "promote", false),
        (&["manager", "demote", "m3"], "demote", false),
        (&["manager", "rm", "--force", "m3"], "remove", true),
    ] {
        let (ran, manager) = run(Script::default(), words);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "id-m3\n", "done\n"));
        let sent = manager.script.lock().unwrap().managers_changed[0].clone();
        assert_eq!(
            (sent.manager.as_str(), sent.change.as_str(), sent.force),
            ("m3", change, force)
        );
    }
}

#[test]
fn upkeep_is_set_and_shown() {
    let script = || Script {
        cluster: pb::GetClusterResponse {
            snapshot_every_ms: 21_600_000,
            snapshot_keep: 10,
            replace_dead_managers_after_ms: 300_000,
            state_hash: "abcd".into(),
            index: 7,
            warnings: vec!["manager m2 is not heard".into()],
            ..Default::default()
        },
        ..Default::default()
    };
    let line =
        ["cluster", "update", "--replace-dead-managers-after", "5m", "--snapshot-every", "off"];
    let (ran, manager) = run(script(), &line);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let sent = manager.script.lock().unwrap().clusters_updated[0].clone();
    assert_eq!(sent.replace_dead_managers_after_ms, Some(300_000));
    assert_eq!((sent.snapshot_every_ms, sent.snapshot_keep), (Some(0), None));
    assert_eq!(sent.strategy, "");
    let (ran, _manager) = run(script(), &["cluster", "update"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    let (ran, _manager) = run(script(), &["cluster", "info"]);
    for text in ["abcd at index 7", "every 6h, 10 kept", "after 5m"] {
        assert!(ran.out.contains(text), "{text}: {}", ran.out);
    }
    assert!(ran.err.contains("warning: manager m2"), "{}", ran.err);
}
