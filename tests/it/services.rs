//! The life of a service: create, reach, scale, update, read logs, remove.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::cluster::SOON;
use cluster_tests::{Cluster, eventually, until};

#[test]
fn a_service_is_created_reached_scaled_updated_and_removed() {
    let cluster = Cluster::up("svc", 3, 3);
    let id = cluster.good(&[
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "2",
        "--publish",
        "80:80",
        "--env",
        "GREETING=hello",
        "--label",
        "team=one",
        "web:1",
    ]);
    assert_eq!(id.trim().len(), 13, "create prints the id and nothing else: {id:?}");

    // Both replicas answer on every worker's address.
    let tasks = cluster.wait_running("web", 2, SOON);
    let nodes: BTreeSet<&str> = tasks.iter().map(|task| task.node.as_str()).collect();
    assert_eq!(nodes.len(), 2, "spread over nodes: {tasks:?}");
    let ids: BTreeSet<String> = tasks.iter().map(|task| task.id.clone()).collect();
    let workers = cluster.workers();
    assert_eq!(workers.len(), 3);
    for (_, address) in &workers {
        cluster.wait_answers(*address, 80, &ids, SOON);
    }

    // Scaling keeps what runs.
    cluster.good(&["service", "scale", "web=5"]);
    let five = cluster.wait_running("web", 5, SOON);
    assert!(ids.iter().all(|id| five.iter().any(|task| task.id == *id)), "{five:?}");
    cluster.good(&["service", "scale", "web=2"]);
    cluster.wait_running("web", 2, SOON);

    // An update replaces every task; the port stays.
    let (_, before) = cluster.get(workers[0].1, 80, "/version").expect("answers");
    cluster.good(&["service", "update", "--image", "web:2", "web"]);
    let after = cluster.wait_running("web", 2, SOON);
    assert!(after.iter().all(|task| !ids.contains(&task.id)));
    let (_, version) = cluster.get(workers[0].1, 80, "/version").expect("answers");
    assert_ne!(before, version);

    // Logs of all replicas, through any manager.
    let ids: BTreeSet<String> = after.iter().map(|task| task.id.clone()).collect();
    cluster.wait_answers(workers[0].1, 80, &ids, SOON);
    until("log lines of both replicas", SOON, || {
        let logs = cluster.good(&["service", "logs", "web"]);
        let seen = [1, 2].iter().filter(|slot| logs.contains(&format!("web.{slot}"))).count();
        if seen == 2 { Ok(()) } else { Err(logs) }
    });

    // Inspect and ls tell the same.
    let services = cluster.json(&["service", "ls"]);
    assert_eq!(services[0]["name"], "web");
    let removed = cluster.good(&["service", "rm", "web"]);
    assert!(!removed.is_empty());
    eventually("the port no longer answers", SOON, || cluster.get(workers[0].1, 80, "/").is_err());
    eventually("no container is left", SOON, || {
        cluster.workers().iter().all(|(name, _)| {
            let processes = cluster.lab().processes(name).unwrap_or_default();
            !processes.iter().any(|process| process.argv.iter().any(|arg| arg.contains("/web")))
        })
    });
    cluster.bad(1, &["E0102"], &["service", "inspect", "web"]);
}

#[test]
fn a_task_that_cannot_be_placed_says_why_and_goes_when_it_can() {
    let cluster = Cluster::up("place", 1, 2);
    cluster.good(&[
        "service",
        "create",
        "--detach",
        "--name",
        "picky",
        "--constraint",
        "node.labels.rack==a",
        "web:1",
    ]);
    until("the reason in service ps", SOON, || {
        let tasks = cluster.tasks("picky");
        match tasks.first() {
            Some(task) if task.message.contains("node.labels.rack==a") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    cluster.good(&["node", "update", "--label-add", "rack=a", "worker-2"]);
    let tasks = cluster.wait_running("picky", 1, SOON);
    assert_eq!(tasks[0].node, "worker-2");

    // Drain moves it, which the constraint forbids: pending again, with the reason.
    cluster.good(&["service", "update", "--constraint-rm", "node.labels.rack==a", "picky"]);
    let tasks = cluster.wait_running("picky", 1, SOON);
    let (from, to) = match tasks[0].node.as_str() {
        "worker-1" => ("worker-1", "worker-2"),
        _ => ("worker-2", "worker-1"),
    };
    cluster.good(&["node", "update", "--availability", "drain", from]);
    until("the task moved", SOON, || {
        let running = cluster.running("picky");
        if running.len() == 1 && running[0].node == to {
            Ok(())
        } else {
            Err(format!("{running:?}"))
        }
    });
    // Back to active moves nothing back.
    cluster.good(&["node", "update", "--availability", "active", from]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(cluster.running("picky")[0].node, to);
}

#[test]
fn ports_belong_to_one_service() {
    let cluster = Cluster::up("ports", 1, 1);
    cluster.good(&["service", "create", "--name", "first", "--publish", "8080:80", "web:1"]);
    cluster.bad(
        1,
        &["E0104", "first", "8080"],
        &["service", "create", "--name", "second", "--publish", "8080:80", "web:1"],
    );
    // Choosing is the managers' business when only the target is named.
    cluster.good(&["service", "create", "--name", "third", "--publish", "80", "web:1"]);
    let port = cluster.json(&["service", "inspect", "third"]);
    let text = port.to_string();
    assert!(text.contains("30000"), "{text}");
    let address = cluster.address("worker-1");
    eventually("the chosen port answers", SOON, || cluster.get(address, 30000, "/").is_ok());
    cluster.good(&["service", "rm", "first", "third"]);
    cluster.good(&["service", "create", "--name", "second", "--publish", "8080:80", "web:1"]);
}
