//! What fails, and how it is put right.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster_lab::Place;
use cluster_tests::cluster::SOON;
use cluster_tests::{Cluster, Task, eventually, until};

/// A lost worker's tasks run elsewhere within this, by promise; tests allow for a busy machine.
const REPLACED: Duration = Duration::from_secs(8);

fn ids(tasks: &[Task]) -> BTreeSet<String> {
    tasks.iter().map(|task| task.id.clone()).collect()
}

/// The pids of a node's container processes that run the example server.
fn servers(cluster: &Cluster, node: &str) -> Vec<i32> {
    let processes = cluster.lab().processes(node).expect("the node's processes");
    processes
        .iter()
        .filter(|process| process.argv.first().is_some_and(|program| program == "/web"))
        .map(|process| process.pid)
        .collect()
}

fn kill9(pid: i32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
}

#[test]
fn a_killed_container_is_replaced_and_the_others_answer() {
    let cluster = Cluster::up("ctr", 1, 2);
    let before = cluster.serve_web(2);
    let victim = &before[0];
    let pids = servers(&cluster, &victim.node);
    assert_eq!(pids.len(), 1, "one server a node: {before:?}");
    kill9(pids[0]);
    let (after, took) = until("a replacement", SOON, || {
        let running = cluster.running("web");
        let replaced = running.len() == 2 && !ids(&running).contains(&victim.id);
        if replaced { Ok(running) } else { Err(format!("{running:?}")) }
    });
    println!("replaced after {took:?}");
    assert!(ids(&after).contains(&before[1].id), "the other task was not touched");
    let history = cluster.tasks("web");
    let dead = history.iter().find(|task| task.id == victim.id).expect("history is kept");
    assert_eq!(dead.observed, "failed");
    assert!(dead.error.contains('9') || dead.error.contains("SIGKILL"), "{dead:?}");
    for (_, address) in cluster.workers() {
        cluster.wait_answers(address, 80, &ids(&after), SOON);
    }

    // Crashing over and over backs off and never leaves two in a slot.
    cluster.good(&[
        "service",
        "create",
        "--detach",
        "--name",
        "crash",
        "--env",
        "EXIT_AFTER_MS=50",
        "--env",
        "EXIT_CODE=3",
        "web:1",
    ]);
    until("three failures with the code", SOON, || {
        let failed: Vec<Task> =
            cluster.tasks("crash").into_iter().filter(|task| task.exit_code == Some(3)).collect();
        if failed.len() >= 3 { Ok(()) } else { Err(format!("{failed:?}")) }
    });
}

#[test]
fn a_killed_agent_adopts_its_containers_and_tells_what_it_missed() {
    let cluster = Cluster::up("agent", 1, 1);
    let before = cluster.serve_web(2);
    let lab = cluster.lab();
    let pids = servers(&cluster, "worker-1");
    assert_eq!(pids.len(), 2);
    lab.kill_agent("worker-1").expect("the agent dies");
    assert_eq!(servers(&cluster, "worker-1").len(), 2, "containers outlive the agent");
    // One of them ends while nobody looks, with a code of its own.
    let address = cluster.address("worker-1");
    assert!(cluster.get(address, 80, "/").is_err(), "the mesh is the agent's");
    kill9(pids[0]);
    lab.start_agent("worker-1").expect("the agent starts");
    let (after, _) = until("one adopted, one replaced", SOON, || {
        let running = cluster.running("web");
        let kept = ids(&running).intersection(&ids(&before)).count();
        if running.len() == 2 && kept == 1 { Ok(running) } else { Err(format!("{running:?}")) }
    });
    assert!(servers(&cluster, "worker-1").contains(&pids[1]), "the same process was adopted");
    let gone: Vec<Task> = cluster
        .tasks("web")
        .into_iter()
        .filter(|task| ids(&before).contains(&task.id) && !ids(&after).contains(&task.id))
        .collect();
    assert_eq!(gone.len(), 1);
    assert_eq!((gone[0].observed.as_str(), gone[0].exit_code), ("failed", Some(137)), "{gone:?}");
    cluster.wait_answers(address, 80, &ids(&after), SOON);
}

#[test]
fn a_killed_shim_leaves_its_container_running_or_replaced() {
    let cluster = Cluster::up("shim", 1, 1);
    cluster.serve_web(1);
    let processes = cluster.lab().processes("worker-1").expect("processes");
    let shim =
        processes.iter().find(|process| process.name.contains("cluster-shim")).expect("a shim");
    kill9(shim.pid);
    let address = cluster.address("worker-1");
    eventually("the service still answers", SOON, || cluster.get(address, 80, "/").is_ok());
    cluster.wait_running("web", 1, SOON);
    assert_eq!(servers(&cluster, "worker-1").len(), 1, "exactly one container");
    // And it can still be stopped.
    cluster.good(&["service", "rm", "web"]);
    eventually("the container is gone", SOON, || servers(&cluster, "worker-1").is_empty());
}

#[test]
fn a_lost_worker_is_replaced_and_its_stale_tasks_stop_on_return() {
    let cluster = Cluster::up("worker", 3, 3);
    let before = cluster.serve_web(2);
    let lost = before[0].node.clone();
    let started = Instant::now();
    cluster.lab().kill(&lost).expect("power-off");
    let (after, _) = until("two replicas elsewhere", REPLACED, || {
        let running: Vec<Task> =
            cluster.running("web").into_iter().filter(|task| task.node != lost).collect();
        if running.len() == 2 { Ok(running) } else { Err(format!("{running:?}")) }
    });
    println!("worker lost to replaced: {:?}", started.elapsed());
    for (_, address) in cluster.workers() {
        cluster.wait_answers(address, 80, &ids(&after), SOON);
    }
    cluster.lab().start(&lost).expect("power on");
    until("the worker is ready again", SOON, || {
        let nodes = cluster.json(&["node", "ls"]);
        let all = nodes.as_array().cloned().unwrap_or_default();
        let node = all.iter().find(|node| node["name"] == lost.as_str()).cloned();
        match node {
            Some(node) if node["state"] == "ready" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(servers(&cluster, &lost).is_empty(), "nothing runs there");

    // Cut off instead of dead: its copy runs on, and is stopped on return.
    let cut = after[0].node.clone();
    cluster.lab().cut(&cut).expect("cut");
    until("replaced while cut off", REPLACED, || {
        let running: Vec<Task> =
            cluster.running("web").into_iter().filter(|task| task.node != cut).collect();
        if running.len() == 2 { Ok(running) } else { Err(format!("{running:?}")) }
    });
    assert_eq!(servers(&cluster, &cut).len(), 1, "the stale copy cannot know");
    cluster.lab().heal(&cut).expect("heal");
    eventually("the stale copy is stopped", SOON, || servers(&cluster, &cut).is_empty());
    assert_eq!(cluster.running("web").len(), 2);
}

#[test]
fn a_lost_leader_costs_no_write_and_no_task() {
    let cluster = Cluster::up("leader", 3, 2);
    let before = cluster.serve_web(2);
    let old = cluster.leader();
    let started = Instant::now();
    cluster.lab().kill(&old).expect("power-off");
    until("a write works again", Duration::from_secs(6), || {
        let ran = cluster.ctl(&[
            "service",
            "create",
            "--detach",
            "--name",
            "after",
            "--replicas",
            "0",
            "web:1",
        ]);
        if ran.code == 0 { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    println!("leader lost to write: {:?}", started.elapsed());
    assert_ne!(cluster.leader(), old);
    assert_eq!(ids(&cluster.running("web")), ids(&before), "no task was restarted");
    assert!(cluster.good(&["service", "ls"]).contains("after"));

    // The majority is lost: writes fail and say so, containers run on; one back is enough.
    let second = cluster.leader();
    cluster.lab().kill(&second).expect("power-off");
    let address = cluster.address("worker-1");
    let ran = cluster.ctl(&["service", "scale", "--detach", "web=3"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(cluster.get(address, 80, "/").is_ok(), "containers run on");
    cluster.lab().start(&second).expect("power on");
    until("writes work with two of three", SOON, || {
        let ran = cluster.ctl(&["service", "scale", "--detach", "web=3"]);
        if ran.code == 0 { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    cluster.wait_running("web", 3, SOON);
    cluster.lab().start(&old).expect("power on");
    // Followers answer reads and take writes.
    let context = cluster.json(&["cluster", "info"]);
    assert_eq!(context["managers"].as_array().map(Vec::len), Some(3), "{context}");
}

#[test]
fn writes_acknowledged_while_leaders_die_are_never_lost() {
    let cluster = Cluster::up("writes", 3, 0);
    let mut acknowledged = Vec::new();
    let mut create = |number: usize| {
        let name = format!("s{number}");
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
        // A failure means unknown: the write may be there or not.
        if ran.code == 0 {
            acknowledged.push(name);
        }
        ran
    };
    for round in 0..2 {
        let leader = cluster.leader();
        let lab = cluster.lab();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Somewhere in the middle of the writes.
                std::thread::sleep(Duration::from_millis(300));
                lab.kill(&leader).expect("power-off");
            });
            for number in 0..20 {
                create(round * 100 + number);
            }
        });
        cluster.lab().start(&leader).expect("power on");
        let mut number = round * 100 + 20;
        until("writes work again", SOON, || {
            number += 1;
            let ran = create(number);
            if ran.code == 0 { Ok(()) } else { Err(format!("{ran:?}")) }
        });
    }
    let services = cluster.json(&["service", "ls"]);
    let names: BTreeSet<&str> =
        services.as_array().into_iter().flatten().filter_map(|s| s["name"].as_str()).collect();
    let lost: Vec<&String> =
        acknowledged.iter().filter(|name| !names.contains(name.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(acknowledged.len() > 20, "only {} of 40 writes worked", acknowledged.len());
}

#[test]
fn a_leader_that_hangs_is_replaced_and_yields_when_it_wakes() {
    let cluster = Cluster::up("hang", 3, 1);
    let before = cluster.serve_web(2);
    let old = cluster.leader();
    cluster.lab().pause(&old).expect("paused");
    until("a write works", SOON, || {
        let ran = cluster.ctl(&["service", "scale", "--detach", "web=3"]);
        if ran.code == 0 { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    let running = cluster.wait_running("web", 3, SOON);
    assert!(ids(&before).is_subset(&ids(&running)), "no task was restarted");
    cluster.lab().resume(&old).expect("resumed");
    assert_ne!(cluster.leader(), old, "it does not take the lead back by itself");
    cluster.good(&["service", "scale", "web=2"]);
    cluster.wait_running("web", 2, SOON);
}

/// Longer than a worker waits for a silent manager, and longer than its lease.
const STANDSTILL: Duration = Duration::from_secs(4);

#[test]
fn managers_that_stood_still_blame_no_worker_for_it() {
    let cluster = Cluster::up("still", 3, 2);
    let before = ids(&cluster.serve_web(2));
    let address = cluster.address("worker-1");
    let managers = ["manager-1", "manager-2", "manager-3"];
    for manager in managers {
        cluster.lab().pause(manager).expect("paused");
    }
    let begun = Instant::now();
    while begun.elapsed() < STANDSTILL {
        cluster.get(address, 80, "/").expect("containers and mesh run on");
    }
    for manager in managers {
        cluster.lab().resume(manager).expect("resumed");
    }
    until("writes work again", SOON, || {
        let ran = cluster.ctl(&["service", "scale", "--detach", "web=3"]);
        if ran.code == 0 { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    let running = ids(&cluster.wait_running("web", 3, SOON));
    assert!(before.is_subset(&running), "a task was replaced: {before:?}, {running:?}");
}

#[test]
fn a_task_that_eats_too_much_memory_says_so_and_is_replaced() {
    let cluster = Cluster::up("oom", 1, 1);
    cluster.good(&[
        "service",
        "create",
        "--name",
        "web",
        "--publish",
        "80:80",
        "--limit-memory",
        "24M",
        "web:1",
    ]);
    let victim = cluster.wait_running("web", 1, SOON).remove(0);
    let address = cluster.address("worker-1");
    until("an answer", SOON, || cluster.get(address, 80, "/"));
    assert!(cluster.get(address, 80, "/eat?mb=200").is_err(), "it was not killed");
    until("a replacement, and the reason", SOON, || {
        let tasks = cluster.tasks("web");
        let dead = tasks.iter().find(|task| task.id == victim.id);
        let told = dead.is_some_and(|task| task.error.to_lowercase().contains("memory"));
        let running = tasks.iter().filter(|task| task.is_running()).count();
        if told && running == 1 { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
}

#[test]
fn everything_comes_back_after_a_power_cut() {
    let cluster = Cluster::up("power", 3, 2);
    cluster.serve_web(2);
    let names: Vec<String> =
        cluster.lab().status().expect("status").into_iter().map(|node| node.name).collect();
    // All managers at once: containers run on.
    for name in names.iter().filter(|name| name.starts_with("manager")) {
        cluster.lab().kill(name).expect("power-off");
    }
    let address = cluster.address("worker-1");
    assert!(cluster.get(address, 80, "/").is_ok(), "containers and mesh run on");
    for name in names.iter().filter(|name| name.starts_with("manager")) {
        cluster.lab().start(name).expect("power on");
    }
    until("the managers answer", SOON, || {
        let ran = cluster.ctl(&["service", "ls"]);
        if ran.code == 0 && ran.stdout.contains("web") { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    let before = ids(&cluster.wait_running("web", 2, SOON));
    // Everything at once.
    for name in &names {
        cluster.lab().kill(name).expect("power-off");
    }
    for name in &names {
        cluster.lab().start(name).expect("power on");
    }
    let tasks = until("two replicas after the power cut", Duration::from_secs(40), || {
        let ran = cluster.ctl(&["service", "ps", "web", "--output", "json"]);
        if ran.code != 0 {
            return Err(format!("{ran:?}"));
        }
        let running = cluster.running("web");
        // Until the workers report, the managers know only what was.
        let new = running.len() == 2 && ids(&running).is_disjoint(&before);
        if new { Ok(running) } else { Err(format!("{running:?}")) }
    })
    .0;
    for (_, address) in cluster.workers() {
        cluster.wait_answers(address, 80, &ids(&tasks), SOON);
    }
}

#[test]
fn logs_follow_all_replicas_through_any_manager() {
    let cluster = Cluster::up("logs", 3, 2);
    let tasks = cluster.serve_web(2);
    let program = cluster_tests::install::bin_dir().join("clusterctl");
    let context = cluster.lab().client_context_file();
    let argv = [
        program.display().to_string(),
        "--context-file".into(),
        context.display().to_string(),
        "service".into(),
        "logs".into(),
        "-f".into(),
        "web".into(),
    ];
    let mut command = cluster.lab().command(Place::Client, &argv).expect("a command");
    let out = tempfile::NamedTempFile::new().expect("a file");
    let handle = out.reopen().expect("the file again");
    let mut child = command.stdout(handle).spawn().expect("logs -f starts");
    let address = cluster.address("worker-2");
    until("new lines of both replicas", SOON, || {
        cluster.wait_answers(address, 80, &ids(&tasks), SOON);
        let text = std::fs::read_to_string(out.path()).unwrap_or_default();
        let both = text.contains("web.1") && text.contains("web.2");
        if both { Ok(()) } else { Err(text) }
    });
    child.kill().expect("logs -f is ended");
    child.wait().expect("it ended");
}
