//! Silent nodes: replace, wait, stop-after; and many silent nodes at once.

use std::time::{Duration, Instant};

use cluster_tests::cluster::SOON;
use cluster_tests::{Cluster, Task, until};

fn servers(cluster: &Cluster, node: &str) -> usize {
    let processes = cluster.lab().processes(node).unwrap_or_default();
    processes
        .iter()
        .filter(|process| process.argv.first().is_some_and(|program| program == "/web"))
        .count()
}

fn create(cluster: &Cluster, name: &str, more: &[&str]) -> Task {
    let mut args = vec!["service", "create", "--name", name];
    args.extend(more);
    args.push("web:1");
    cluster.good(&args);
    cluster.wait_running(name, 1, SOON)[0].clone()
}

fn wait_state(cluster: &Cluster, node: &str, state: &str) {
    until(&format!("{node} is {state}"), SOON, || {
        let nodes = cluster.json(&["node", "ls"]);
        let all = nodes.as_array().cloned().unwrap_or_default();
        let there = all.iter().any(|row| row["name"] == node && row["state"] == state);
        if there { Ok(()) } else { Err(format!("{nodes}")) }
    });
}

/// The waiting policy: never two copies.
#[test]
fn a_waiting_service_never_runs_twice() {
    let cluster = Cluster::up("wait", 1, 2);
    let task = create(&cluster, "web", &["--on-disconnect", "wait"]);
    cluster.lab().cut(&task.node).expect("cut");
    wait_state(&cluster, &task.node, "down");
    std::thread::sleep(Duration::from_secs(3));
    let other = if task.node == "worker-1" { "worker-2" } else { "worker-1" };
    assert_eq!(servers(&cluster, &task.node), 1, "it runs on");
    assert_eq!(servers(&cluster, other), 0, "and nowhere else");
    let ps = cluster.good(&["service", "ps", "--no-trunc", "web"]);
    assert!(ps.contains("wait"), "it says what it waits for: {ps}");
    cluster.lab().heal(&task.node).expect("heal");
    wait_state(&cluster, &task.node, "ready");
    until("the same task runs", SOON, || {
        let running = cluster.running("web");
        let same = running.len() == 1 && running[0].id == task.id;
        if same { Ok(()) } else { Err(format!("{running:?}")) }
    });
    // An operator's word lets it go.
    cluster.lab().kill(&task.node).expect("power-off");
    wait_state(&cluster, &task.node, "down");
    cluster.good(&["node", "rm", "--force", &task.node]);
    until("it runs elsewhere", SOON, || {
        let running = cluster.running("web");
        let moved = running.len() == 1 && running[0].node == other;
        if moved { Ok(()) } else { Err(format!("{:?}", cluster.tasks("web"))) }
    });
}

/// The isolated worker stops its task; only then a replacement runs.
#[test]
fn a_fenced_service_stops_itself_before_it_is_replaced() {
    let cluster = Cluster::up("fence", 1, 2);
    let task =
        create(&cluster, "web", &["--on-disconnect", "stop-after=4s", "--stop-grace-period", "1s"]);
    let other = if task.node == "worker-1" { "worker-2" } else { "worker-1" };
    let cut = Instant::now();
    cluster.lab().cut(&task.node).expect("cut");
    let mut stopped = None;
    let mut replaced = None;
    while replaced.is_none() && cut.elapsed() < Duration::from_secs(40) {
        let (old, new) = (servers(&cluster, &task.node), servers(&cluster, other));
        assert!(old + new <= 1, "two copies after {:?}", cut.elapsed());
        if old == 0 && stopped.is_none() {
            stopped = Some(cut.elapsed());
        }
        if new == 1 {
            replaced = Some(cut.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("stopped after {stopped:?}, replaced after {replaced:?}");
    let stopped = stopped.expect("it stopped by itself");
    assert!(stopped > Duration::from_secs(2), "{stopped:?}");
    assert!(replaced.expect("it was replaced") > stopped);
    cluster.lab().heal(&task.node).expect("heal");
    wait_state(&cluster, &task.node, "ready");
    assert_eq!(servers(&cluster, &task.node), 0);
}

/// Most nodes fall silent at once: nothing is moved, and it is said loudly.
#[test]
fn a_storm_moves_nothing_and_ends_by_itself() {
    let cluster = Cluster::up("storm", 1, 5);
    cluster.good(&["service", "create", "--name", "web", "--replicas", "5", "web:1"]);
    let before = cluster.wait_running("web", 5, SOON);
    let cut = ["worker-1", "worker-2", "worker-3"];
    for node in cut {
        cluster.lab().cut(node).expect("cut");
    }
    for node in cut {
        wait_state(&cluster, node, "down");
    }
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(servers(&cluster, "worker-4") + servers(&cluster, "worker-5"), 2, "nothing moved");
    let info = cluster.good(&["cluster", "info"]);
    assert!(info.contains("silent"), "{info}");
    for node in cut {
        cluster.lab().heal(node).expect("heal");
    }
    for node in cut {
        wait_state(&cluster, node, "ready");
    }
    let after = cluster.wait_running("web", 5, SOON);
    for task in &after {
        assert!(before.iter().any(|old| old.id == task.id), "{task:?} was moved needlessly");
    }
}
