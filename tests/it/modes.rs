//! Global services, jobs and schedules on real containers.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::cluster::SOON;
use cluster_tests::{Cluster, Task, until};

fn nodes(tasks: &[Task]) -> BTreeSet<String> {
    tasks.iter().map(|task| task.node.clone()).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn wait_on(cluster: &Cluster, service: &str, wanted: &[&str]) -> Vec<Task> {
    until(&format!("{service} on {wanted:?}"), SOON, || {
        let running = cluster.running(service);
        let there = running.len() == wanted.len() && nodes(&running) == names(wanted);
        if there { Ok(running) } else { Err(format!("{running:?}")) }
    })
    .0
}

/// One a node, also on nodes that come; a drained node loses its own, nobody gets it.
#[test]
fn a_global_service_follows_the_nodes() {
    let cluster = Cluster::up("global", 1, 3);
    cluster.lab().kill("worker-3").expect("power-off");
    until("worker-3 is down", SOON, || {
        let ran = cluster.good(&["node", "inspect", "worker-3", "--output", "json"]);
        if ran.contains("down") { Ok(()) } else { Err(ran) }
    });
    cluster.good(&["service", "create", "--mode", "global", "--name", "agent", "web:1"]);
    let first = wait_on(&cluster, "agent", &["worker-1", "worker-2"]);
    cluster.lab().start("worker-3").expect("power-on");
    wait_on(&cluster, "agent", &["worker-1", "worker-2", "worker-3"]);

    cluster.good(&["node", "update", "--availability", "drain", "worker-2"]);
    wait_on(&cluster, "agent", &["worker-1", "worker-3"]);
    // Paused: it keeps its task, an update does not reach it.
    cluster.good(&["node", "update", "--availability", "pause", "worker-1"]);
    cluster.good(&["service", "update", "--detach", "--image", "web:2", "agent"]);
    until("worker-3 has the update", SOON, || {
        let tasks = cluster.json(&["service", "ps", "agent"]);
        let all = tasks.as_array().cloned().unwrap_or_default();
        let updated = all.iter().any(|task| {
            task["node"] == "worker-3"
                && task["image"] == "web:2"
                && task["observed_state"] == "running"
        });
        if updated { Ok(()) } else { Err(format!("{tasks}")) }
    });
    let kept = cluster.running("agent").into_iter().find(|task| task.node == "worker-1");
    let kept = kept.expect("the paused node keeps its task");
    assert!(first.iter().any(|task| task.id == kept.id), "{kept:?}");
    cluster.good(&["node", "update", "--availability", "active", "worker-2"]);
    wait_on(&cluster, "agent", &["worker-1", "worker-2", "worker-3"]);
    cluster.bad(
        2,
        &["--replicas"],
        &["service", "create", "--mode", "global", "--replicas", "2", "--name", "no", "web:1"],
    );
}

/// Never more than two at once, exactly seven completions, also across a leader's end.
#[test]
fn a_job_completes_exactly_as_often_as_asked() {
    let cluster = Cluster::up("job", 3, 2);
    cluster.good(&[
        "service",
        "create",
        "--detach",
        "--mode",
        "replicated-job",
        "--replicas",
        "7",
        "--max-concurrent",
        "2",
        "--name",
        "seven",
        "--env",
        "EXIT_AFTER_MS=700",
        "web:1",
    ]);
    let mut killed = false;
    until("seven completions", Duration::from_secs(60), || {
        let ran = cluster.ctl(&["service", "ps", "seven", "--output", "json"]);
        let Ok(tasks) = serde_json::from_str::<serde_json::Value>(&ran.stdout) else {
            return Err(format!("{ran:?}"));
        };
        let all = tasks.as_array().cloned().unwrap_or_default();
        let count = |state: &str| all.iter().filter(|t| t["observed_state"] == state).count();
        assert!(count("running") <= 2, "more than two at once: {tasks}");
        let complete = count("complete");
        assert!(complete <= 7, "overshot: {tasks}");
        if complete >= 2 && !killed {
            killed = true;
            let leader = cluster.leader();
            cluster.lab().kill(&leader).expect("power-off");
        }
        if complete == 7 { Ok(()) } else { Err(format!("{tasks}")) }
    });
    assert!(killed, "the leader was killed in the middle");
    let complete = |wanted: usize| {
        let tasks = cluster.tasks("seven");
        let slots: BTreeSet<u64> =
            tasks.iter().filter(|task| task.observed == "complete").map(|task| task.slot).collect();
        assert_eq!(slots.len(), wanted, "{tasks:#?}");
    };
    complete(7);
    // Again: an update raises the run.
    cluster.good(&["service", "update", "--force", "seven"]);
    complete(7);
    // Failures are tried again by policy, and a job that cannot succeed says so.
    let ran = cluster.ctl(&[
        "service",
        "create",
        "--mode",
        "replicated-job",
        "--name",
        "never",
        "--env",
        "EXIT_AFTER_MS=50",
        "--env",
        "EXIT_CODE=3",
        "--restart-max-attempts",
        "1",
        "web:1",
    ]);
    assert_eq!(ran.code, 1, "{ran:?}");
    // What takes too long is ended; what has ended removes itself.
    cluster.good(&[
        "service",
        "create",
        "--detach",
        "--mode",
        "replicated-job",
        "--name",
        "long",
        "--max-run-duration",
        "1s",
        "--ttl-after-finished",
        "1s",
        "web:1",
    ]);
    until("the long job is gone", SOON, || {
        let services = cluster.good(&["service", "ls"]);
        if services.contains("long") { Err(services) } else { Ok(()) }
    });
}

/// A minute's launch happens once although the leader dies around it.
#[test]
fn a_schedule_launches_once_a_minute_whoever_leads() {
    let cluster = Cluster::up("cron", 3, 1);
    cluster.bad(
        1,
        &["--schedule", "minute"],
        &["service", "create", "--schedule", "61 * * * *", "--name", "bad", "web:1"],
    );
    cluster.good(&[
        "service",
        "create",
        "--schedule",
        "* * * * *",
        "--name",
        "tick",
        "--env",
        "EXIT_AFTER_MS=100",
        "web:1",
    ]);
    let launched = |cluster: &Cluster| -> Vec<String> {
        let ran = cluster.ctl(&["service", "ls", "--output", "json"]);
        let services: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let all = services.as_array().cloned().unwrap_or_default();
        all.iter()
            .filter_map(|service| service["name"].as_str().map(str::to_owned))
            .filter(|name| name.starts_with("tick-"))
            .collect()
    };
    // Five seconds before the full minute the leader goes.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a date");
    let into = now.as_secs() % 60;
    let wait = if into < 57 { 57 - into } else { 117 - into };
    std::thread::sleep(Duration::from_secs(wait));
    let before = launched(&cluster).len();
    let leader = cluster.leader();
    cluster.lab().kill(&leader).expect("power-off");
    until("the launch", SOON, || {
        let names = launched(&cluster);
        if names.len() == before + 1 { Ok(()) } else { Err(format!("{names:?}")) }
    });
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(launched(&cluster).len(), before + 1, "launched once");
    cluster.good(&["service", "rm", "tick"]);
    until("the launches go with it", SOON, || {
        let names = launched(&cluster);
        if names.is_empty() { Ok(()) } else { Err(format!("{names:?}")) }
    });
}
