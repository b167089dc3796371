//! A new CA under running containers.

use std::collections::BTreeSet;

use cluster_lab::Place;
use cluster_tests::cluster::SOON;
use cluster_tests::{Cluster, until};

/// Task ids and the processes they run as: a restart changes one or the other.
fn running(cluster: &Cluster) -> BTreeSet<(String, String, i32)> {
    let mut all = BTreeSet::new();
    for task in cluster.running("web") {
        let processes = cluster.lab().processes(&task.node).expect("the node's processes");
        let server = processes
            .iter()
            .find(|process| process.argv.first().is_some_and(|program| program == "/web"))
            .unwrap_or_else(|| panic!("{task:?} runs as no process"));
        all.insert((task.id, task.node, server.pid));
    }
    all
}

fn answers(cluster: &Cluster, tasks: &BTreeSet<(String, String, i32)>) {
    let ids: BTreeSet<String> = tasks.iter().map(|(id, _, _)| id.clone()).collect();
    for (_, address) in cluster.workers() {
        cluster.wait_answers(address, 80, &ids, SOON);
    }
}

#[test]
fn the_ca_is_replaced_twice_and_no_task_is_restarted() {
    let cluster = Cluster::up("newca", 3, 3);
    let create = ["service", "create", "--name", "web", "--replicas", "2", "--publish", "80:80"];
    cluster.good(&[&create[..], &["web:1"]].concat());
    cluster.wait_running("web", 2, SOON);
    let before = running(&cluster);
    let folder = tempfile::tempdir().expect("a folder");
    let old = folder.path().join("old.json");
    std::fs::copy(cluster.lab().client_context_file(), &old).expect("the context is copied");
    let token = cluster.good(&["cluster", "token", "--role", "worker", "--quiet"]);
    let digest = cluster.good(&["cluster", "ca", "info", "--quiet"]);

    let ran = cluster.ctl(&["cluster", "ca", "rotate"]);
    assert_eq!(ran.code, 0, "{ran:?}\n{}", cluster.story());
    println!("{}", ran.stderr);
    assert_ne!(ran.stdout, digest);
    assert_eq!(running(&cluster), before);
    answers(&cluster, &before);
    assert_ne!(cluster.good(&["cluster", "token", "--role", "worker", "--quiet"]), token);
    let refused = cluster.ctl_with(Place::Client, &old, &["--timeout", "3s", "service", "ls"]);
    assert_ne!(refused.code, 0, "a context of the old CA");
    assert!(refused.stderr.contains("its CA was replaced"), "{refused:?}");

    // Again, with a worker that is off and a leader that goes in the middle.
    let busy: BTreeSet<&String> = before.iter().map(|(_, node, _)| node).collect();
    let workers = cluster.workers();
    let (idle, _) = workers.iter().find(|(name, _)| !busy.contains(name)).expect("an idle worker");
    cluster.lab().kill(idle).expect("power-off");
    until("the worker to be down", SOON, || {
        let nodes = cluster.good(&["node", "ls"]);
        if nodes.contains("down") { Ok(()) } else { Err(nodes) }
    });
    let ran = cluster.ctl(&["cluster", "ca", "rotate", "--wait-timeout", "6s"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let says = format!("waits for {idle} (down)");
    assert!(ran.stderr.contains(&says) && ran.stderr.contains("--force"), "{ran:?}");
    let leader = cluster.leader();
    cluster.lab().kill(&leader).expect("power-off");
    until("another leader", SOON, || {
        let now = cluster.leader();
        if now == leader { Err(now) } else { Ok(()) }
    });
    let info = cluster.json(&["cluster", "ca", "info"]);
    assert_eq!(info["rotation"]["missing"][0]["name"], idle.as_str(), "{info}");
    let ran = cluster.ctl(&["cluster", "ca", "rotate", "--force"]);
    assert_eq!(ran.code, 0, "{ran:?}\n{}", cluster.story());
    cluster.lab().start(&leader).expect("power on");
    assert_eq!(running(&cluster), before);
    answers(&cluster, &before);
    until("the manager that was away answers", SOON, || {
        let nodes = cluster.json(&["node", "ls"]);
        let up = |node: &&serde_json::Value| {
            node["name"] == leader.as_str() && node["manager_status"] == "follower"
        };
        let all = nodes.as_array().cloned().unwrap_or_default();
        if all.iter().any(|node| up(&node)) { Ok(()) } else { Err(nodes.to_string()) }
    });
}
