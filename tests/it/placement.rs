//! Where tasks go, why, and what would help; drains and preemption.

use std::collections::BTreeMap;

use cluster_tests::cluster::SOON;
use cluster_tests::{Cluster, until};

fn per_node(cluster: &Cluster, service: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for task in cluster.running(service) {
        *counts.entry(task.node).or_default() += 1;
    }
    counts
}

/// The limit is named; one more node helps without a word.
#[test]
fn a_limit_per_node_is_kept_and_explained() {
    let cluster = Cluster::up("maxper", 1, 3);
    cluster.good(&["node", "update", "--availability", "pause", "worker-3"]);
    cluster.good(&[
        "service",
        "create",
        "--detach",
        "--name",
        "web",
        "--replicas",
        "3",
        "--replicas-max-per-node",
        "1",
        "web:1",
    ]);
    cluster.wait_running("web", 2, SOON);
    until("the third says why", SOON, || {
        let tasks = cluster.tasks("web");
        let says =
            tasks.iter().any(|task| task.node.is_empty() && task.message.contains("per node"));
        if says { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    let explained = cluster.good(&["explain", "web"]);
    assert!(explained.contains("worker-3") && explained.contains("paused"), "{explained}");
    cluster.good(&["node", "update", "--availability", "active", "worker-3"]);
    cluster.wait_running("web", 3, SOON);
    // Start-first has no room beside the old ones: it proceeds another way and ends.
    cluster.good(&[
        "service",
        "update",
        "--update-order",
        "start-first",
        "--update-monitor",
        "0s",
        "--image",
        "web:2",
        "web",
    ]);
    cluster.wait_running("web", 3, SOON);
    assert_eq!(per_node(&cluster, "web").len(), 3);
}

/// Two racks of different size; and scale-down from the fullest node.
#[test]
fn preferences_spread_by_capacity_and_scale_down_levels() {
    let cluster = Cluster::up("spread", 1, 3);
    cluster.good(&["node", "update", "--label-add", "rack=a", "worker-1"]);
    cluster.good(&["node", "update", "--label-add", "rack=b", "worker-2"]);
    cluster.good(&["node", "update", "--label-add", "rack=b", "worker-3"]);
    cluster.good(&[
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "6",
        "--placement-pref",
        "spread=node.labels.rack",
        "web:1",
    ]);
    let counts = per_node(&cluster, "web");
    assert!(counts.values().all(|count| *count == 2), "{counts:?}");
    cluster.good(&["service", "scale", "web=3"]);
    let counts = per_node(&cluster, "web");
    assert_eq!(counts.len(), 3, "{counts:?}");
    // More operators, and a node that stops matching loses its task with the reason.
    cluster.good(&["node", "update", "--label-add", "cores=16", "worker-1"]);
    cluster.good(&["node", "update", "--label-add", "cores=4", "worker-2"]);
    cluster.good(&[
        "service",
        "create",
        "--name",
        "big",
        "--constraint",
        "node.labels.cores >= 8",
        "--constraint",
        "node.labels.rack in (a, c)",
        "web:1",
    ]);
    assert_eq!(per_node(&cluster, "big").keys().next().map(String::as_str), Some("worker-1"));
    cluster.good(&["node", "update", "--label-add", "cores=2", "worker-1"]);
    until("it left and says why", SOON, || {
        let explained = cluster.good(&["explain", "big"]);
        let says = cluster.running("big").is_empty() && explained.contains("cores");
        if says { Ok(()) } else { Err(explained) }
    });
}

/// A service of higher priority takes the room of a lower one, never of one within ten.
#[test]
fn priority_preempts_and_budgets_hold() {
    let cluster = Cluster::bare("preempt", 1, 1, |options| {
        options.worker_args = vec!["--generic-resource".into(), "seat=2".into()];
    });
    cluster.lab().load_image(&cluster_tests::install::web_archive()).expect("the image loads");
    let create = |name: &str, priority: &str| {
        cluster.good(&[
            "service",
            "create",
            "--detach",
            "--name",
            name,
            "--priority",
            priority,
            "--generic-resource",
            "seat=1",
            "web:1",
        ]);
    };
    create("low", "10");
    create("mid", "50");
    cluster.wait_running("low", 1, SOON);
    cluster.wait_running("mid", 1, SOON);
    create("close", "55");
    until("close waits and says why", SOON, || {
        let tasks = cluster.tasks("close");
        match tasks.first() {
            Some(task) if task.observed == "running" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(cluster.running("low").is_empty(), "the lowest went");
    assert_eq!(cluster.running("mid").len(), 1, "within ten nobody goes");
    let explained = cluster.good(&["explain", "low"]);
    assert!(explained.contains("preempt"), "{explained}");
    cluster.good(&["service", "rm", "close"]);
    cluster.wait_running("low", 1, SOON);
}

/// One at a time within the budget, at once at the deadline.
#[test]
fn a_drain_keeps_its_budget_and_ends_at_its_deadline() {
    let cluster = Cluster::up("drain2", 1, 3);
    cluster.good(&["service", "create", "--name", "web", "--replicas", "4", "web:1"]);
    cluster.wait_running("web", 4, SOON);
    let before = per_node(&cluster, "web").get("worker-1").copied().unwrap_or(0);
    let plan = cluster.json(&["node", "drain", "--dry-run", "worker-1"]);
    let steps = plan["steps"].as_array().cloned().unwrap_or_default();
    let moves = steps.iter().filter(|step| step["action"] == "move" && step["from"] == "worker-1");
    assert_eq!(moves.count(), before, "{plan}");
    assert_eq!(cluster.running("web").len(), 4, "a dry run changes nothing");
    cluster.good(&["node", "drain", "--deadline", "1m", "worker-1"]);
    assert!(cluster.running("web").iter().all(|task| task.node != "worker-1"));
    cluster.wait_running("web", 4, SOON);
    // A replacement that never becomes healthy holds the drain up until the deadline.
    cluster.good(&["node", "update", "--availability", "active", "worker-1"]);
    cluster.good(&[
        "service",
        "create",
        "--name",
        "tied",
        "--replicas",
        "2",
        "--constraint",
        "node.hostname==worker-1",
        "web:1",
    ]);
    cluster.good(&["node", "drain", "--detach", "--deadline", "2s", "worker-1"]);
    until("the node is empty", SOON, || {
        let left = cluster.running("tied").len();
        if left == 0 { Ok(()) } else { Err(format!("{left} left")) }
    });
    until("the waiting tasks say why", SOON, || {
        let explained = cluster.good(&["explain", "tied"]);
        if explained.contains("drained") { Ok(()) } else { Err(explained) }
    });
}
