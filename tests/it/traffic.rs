//! What users of a published port notice while things are killed, moved and replaced: nothing, or
//! next to nothing.

use std::net::Ipv4Addr;
use std::time::Duration;

use cluster_tests::cluster::SOON;
use cluster_tests::traffic::Answers;
use cluster_tests::{Cluster, Traffic, until};

/// Longest silence of a port that is allowed on a busy machine when a container dies.
const GAP: Duration = Duration::from_secs(2);

fn web(cluster: &Cluster) -> Vec<Ipv4Addr> {
    cluster.serve_web(2);
    let addresses: Vec<Ipv4Addr> =
        cluster.workers().into_iter().map(|(_, address)| address).collect();
    for address in &addresses {
        until("an answer", SOON, || cluster.get(*address, 80, "/"));
    }
    addresses
}

fn all_good(answers: &[Answers]) {
    for answers in answers {
        assert!(answers.good > 0, "{answers:?}");
        assert!(answers.failed.is_empty(), "{answers:?}");
    }
}

#[test]
fn every_worker_answers_while_a_container_is_killed() {
    let cluster = Cluster::up("tkill", 1, 3);
    let addresses = web(&cluster);
    assert_eq!(addresses.len(), 3);
    let before = cluster.running("web");
    let traffic = Traffic::start(&cluster, &addresses, 80);
    let victim = &before[0];
    let processes = cluster.lab().processes(&victim.node).expect("processes");
    let server = processes
        .iter()
        .find(|process| process.argv.first().is_some_and(|program| program == "/web"))
        .expect("the server");
    let killed = std::process::Command::new("kill").args(["-9", &server.pid.to_string()]).status();
    assert!(killed.expect("kill runs").success());
    until("the replacement runs", SOON, || {
        let running = cluster.running("web");
        let replaced = running.len() == 2 && running.iter().all(|task| task.id != victim.id);
        if replaced { Ok(()) } else { Err(format!("{running:?}")) }
    });
    for answers in traffic.stop() {
        println!("{}: {} good, {} failed", answers.address, answers.good, answers.failed.len());
        assert!(answers.good > 0 && answers.longest_gap < GAP, "{answers:?}");
    }
}

/// A task leaves every balancer before it is asked to stop.
#[test]
fn nobody_notices_a_drain_an_update_or_a_smaller_scale() {
    let cluster = Cluster::up("tdrain", 1, 3);
    let addresses = web(&cluster);
    let node = cluster.running("web")[0].node.clone();
    let traffic = Traffic::start(&cluster, &addresses, 80);
    cluster.good(&["node", "update", "--availability", "drain", &node]);
    until("both tasks elsewhere", SOON, || {
        let tasks = cluster.tasks("web");
        let moved = tasks.iter().filter(|task| task.is_running() && task.node != node).count() == 2
            && tasks.iter().all(|task| task.node != node || task.observed == "shutdown");
        if moved { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    all_good(&traffic.stop());
    let processes = cluster.lab().processes(&node).expect("processes");
    let left = processes.iter().filter(|process| process.argv.first().is_some_and(|p| p == "/web"));
    assert_eq!(left.count(), 0, "the drained node still runs a container");

    let traffic = Traffic::start(&cluster, &addresses, 80);
    cluster.good(&["service", "update", "--image", "web:2", "web"]);
    all_good(&traffic.stop());
    let traffic = Traffic::start(&cluster, &addresses, 80);
    cluster.good(&["service", "scale", "web=4"]);
    cluster.good(&["service", "scale", "web=1"]);
    until("one task is left", SOON, || {
        let tasks = cluster.tasks("web");
        let left = tasks.iter().filter(|task| task.observed == "running").count();
        if left == 1 { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    all_good(&traffic.stop());
}
