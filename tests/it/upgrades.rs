//! Every program of a cluster is stopped and started again, one after the other, as an upgrade
//! does it, while writes and requests go on.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster_lab::{NodeState, Role};
use cluster_tests::cluster::SOON;
use cluster_tests::traffic::Answers;
use cluster_tests::{Cluster, Ran, Traffic, until};

/// What each container runs, by process: node, pid, and when the kernel started it.
type Servers = BTreeMap<(String, i32), String>;

fn servers(cluster: &Cluster) -> Servers {
    let mut found = Servers::new();
    for (node, _) in cluster.workers() {
        for process in cluster.lab().processes(&node).expect("the node's processes") {
            if process.argv.first().is_some_and(|program| program == "/web") {
                found.insert((node.clone(), process.pid), started(process.pid));
            }
        }
    }
    found
}

/// The kernel's start time of a process: with its pid it names it for good.
fn started(pid: i32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let fields = stat.rsplit_once(')').expect("a stat line").1;
    fields.split_ascii_whitespace().nth(19).expect("a start time").to_owned()
}

fn nodes(cluster: &Cluster, role: Role) -> Vec<String> {
    let status = cluster.lab().status().expect("the lab's status");
    let of_role = status.into_iter().filter(|node| node.role == role);
    of_role.filter(|node| node.state == NodeState::Running).map(|node| node.name).collect()
}

/// Asks a node's program to stop, waits for its end, and starts it again.
fn restart(cluster: &Cluster, node: &str, program: &str) {
    let lab = cluster.lab();
    let processes = lab.processes(node).expect("the node's processes");
    let is_agent = |name: &str| name.rsplit('/').next() == Some(program);
    let agent = processes.iter().find(|process| {
        process.cgroup == "agent" && process.argv.first().is_some_and(|name| is_agent(name))
    });
    let pid = agent.unwrap_or_else(|| panic!("{node} runs no {program}: {processes:?}")).pid;
    let status = std::process::Command::new("kill").arg(pid.to_string()).status();
    assert!(status.expect("kill runs").success());
    let ((), took) = until(&format!("{program} on {node} ends"), SOON, || {
        match lab.agent_exit(node).map_err(|error| error.to_string())? {
            Some(_) => Ok(()),
            None => Err("it runs".to_owned()),
        }
    });
    println!("{node}: {program} ended after {took:?}");
    lab.start_agent(node).expect("the agent starts");
}

/// Waits until `node ls` says that all managers take part and all workers are ready.
fn settled(cluster: &Cluster, count: usize) {
    until("all nodes are well", SOON, || {
        let nodes = cluster.json(&["node", "ls"]);
        let all = nodes.as_array().cloned().unwrap_or_default();
        let well = all.iter().filter(|node| {
            matches!(node["manager_status"].as_str(), Some("leader" | "reachable"))
                || node["state"] == "ready"
        });
        if well.count() == count { Ok(()) } else { Err(format!("{nodes}")) }
    });
}

/// Creates services, one after the other, until it is told to stop.
fn write(cluster: &Cluster, prefix: &str, stop: &AtomicBool, done: &Mutex<Vec<(String, Ran)>>) {
    for number in 0.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let name = format!("{prefix}{number}");
        let ran = cluster.ctl(&[
            "service",
            "create",
            "--detach",
            "--name",
            &name,
            "--replicas",
            "0",
            "web:1",
        ]);
        done.lock().expect("the list").push((name, ran));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What went wrong, and when.
fn failures(answers: &[Answers]) -> Vec<String> {
    let all = answers.iter().flat_map(|answers| {
        answers.failed.iter().map(|(at, why)| format!("{} after {at:?}: {why}", answers.address))
    });
    all.collect()
}

#[test]
fn a_rolling_restart_fails_no_write_and_restarts_no_container() {
    let cluster = Cluster::up("roll", 3, 3);
    let tasks = cluster.serve_web(3);
    let workers = cluster.workers();
    for (_, address) in &workers {
        until("an answer", SOON, || cluster.get(*address, 80, "/"));
    }
    let before = servers(&cluster);
    assert_eq!(before.len(), 3, "{before:?}");

    let (stop, done) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        // Writers must end also when an assertion below fails.
        let _stop = Stop(&stop);
        for prefix in ["a", "b"] {
            let (cluster, stop, done) = (&cluster, &stop, &done);
            scope.spawn(move || write(cluster, prefix, stop, done));
        }
        let everywhere: Vec<_> = workers.iter().map(|(_, address)| *address).collect();
        let traffic = Traffic::start(&cluster, &everywhere, 80);
        for manager in nodes(&cluster, Role::Manager) {
            restart(&cluster, &manager, "cluster-manager");
            settled(&cluster, 6);
        }
        assert_eq!(failures(&traffic.stop()), Vec::<String>::new(), "while managers restarted");
        for (worker, address) in &workers {
            let others: Vec<_> =
                everywhere.iter().copied().filter(|other| other != address).collect();
            let traffic = Traffic::start(&cluster, &others, 80);
            restart(&cluster, worker, "cluster-worker");
            settled(&cluster, 6);
            until("the restarted worker answers", SOON, || cluster.get(*address, 80, "/"));
            let failed = failures(&traffic.stop());
            assert_eq!(failed, Vec::<String>::new(), "while {worker} restarted");
        }
    });

    let done = done.into_inner().expect("the list");
    let failed: Vec<_> = done.iter().filter(|(_, ran)| ran.code != 0).collect();
    assert!(failed.is_empty(), "{} of {} writes failed: {failed:#?}", failed.len(), done.len());
    assert!(done.len() > 50, "only {} writes were made", done.len());
    let services = cluster.json(&["service", "ls"]);
    let names: Vec<&str> =
        services.as_array().into_iter().flatten().filter_map(|s| s["name"].as_str()).collect();
    let lost: Vec<&String> =
        done.iter().map(|(name, _)| name).filter(|name| !names.contains(&name.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert_eq!(servers(&cluster), before, "a container was restarted");
    let ids = |tasks: &[cluster_tests::Task]| -> Vec<String> {
        let mut ids: Vec<_> = tasks.iter().map(|task| task.id.clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&cluster.running("web")), ids(&tasks), "a task was replaced");
    println!("{} writes, none failed; containers {before:?} untouched", done.len());
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
