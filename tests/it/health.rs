//! Probes, host ports, draining connections, self-fencing: what workers do by themselves.

use std::time::{Duration, Instant};

use cluster_lab::Place;
use cluster_tests::cluster::SOON;
use cluster_tests::{Cluster, http, until};

/// Readiness turns traffic, liveness restarts, the image's HEALTHCHECK counts.
#[test]
fn readiness_turns_traffic_and_liveness_restarts() {
    let cluster = Cluster::up("health", 1, 2);
    cluster.good(&[
        "service",
        "create",
        "--name",
        "web",
        "--publish",
        "80:80",
        "--health-http",
        "80/health",
        "--health-interval",
        "200ms",
        "--health-retries",
        "3",
        "--readiness-http",
        "80/ready",
        "--readiness-interval",
        "200ms",
        "--readiness-retries",
        "1",
        "web:1",
    ]);
    let before = cluster.wait_running("web", 1, SOON);
    let address = cluster.address(&before[0].node);
    until("an answer", SOON, || cluster.get(address, 80, "/"));
    cluster.get(address, 80, "/unready").expect("told");
    until("no more traffic", SOON, || match cluster.get(address, 80, "/") {
        Ok(_) => Err("still answers".to_owned()),
        Err(_) => Ok(()),
    });
    let still = cluster.running("web");
    assert_eq!(still[0].id, before[0].id, "readiness restarts nothing");
    let ps = cluster.good(&["service", "ps", "web"]);
    assert!(ps.contains("not ready"), "{ps}");
    // From inside it is told to be ready again.
    ready_again(&cluster, &before[0].node);
    until("traffic again", SOON, || cluster.get(address, 80, "/"));
    cluster.get(address, 80, "/unhealthy").expect("told");
    let (after, _) = until("a new task", SOON, || {
        let running = cluster.running("web");
        let new = running.len() == 1 && running[0].id != before[0].id;
        if new { Ok(running) } else { Err(format!("{running:?}")) }
    });
    let dead = cluster.tasks("web").into_iter().find(|task| task.id == before[0].id);
    let dead = dead.expect("history");
    assert_eq!(dead.observed, "failed");
    assert!(dead.error.contains("unhealthy"), "{dead:?} {after:?}");

    // The image's own check.
    cluster.good(&["service", "create", "--name", "own", "--publish", "81:80", "web:checked"]);
    let before = cluster.wait_running("own", 1, SOON);
    let address = cluster.address(&before[0].node);
    until("told", SOON, || cluster.get(address, 81, "/unhealthy"));
    until("replaced", SOON, || {
        let running = cluster.running("own");
        let new = running.len() == 1 && running[0].id != before[0].id;
        if new { Ok(()) } else { Err(format!("{:?}", cluster.tasks("own"))) }
    });
}

/// Tells the server on a node, in its container's own network, to be ready.
fn ready_again(cluster: &Cluster, node: &str) {
    let processes = cluster.lab().processes(node).expect("processes");
    let server = processes
        .iter()
        .find(|process| process.argv.first().is_some_and(|program| program == "/web"))
        .expect("the server");
    let net = format!("--net=/proc/{}/ns/net", server.pid);
    let told = std::process::Command::new("nsenter")
        .args([net.as_str(), "--", "bash", "-c"])
        .arg("exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET /readied HTTP/1.1\\r\\nHost: web\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3")
        .output()
        .expect("nsenter runs");
    assert!(String::from_utf8_lossy(&told.stdout).contains("200"), "{told:?}");
}

/// A check that hangs is killed with its children; a slow start is not killed.
#[test]
fn a_hanging_check_leaves_nothing_and_a_slow_start_is_waited_for() {
    let cluster = Cluster::up("hang", 1, 1);
    cluster.good(&[
        "service",
        "create",
        "--detach",
        "--name",
        "hang",
        "--health-cmd",
        // Without a shell, which the image has not.
        r#"["/web", "hang"]"#,
        "--health-interval",
        "200ms",
        "--health-timeout",
        "300ms",
        "--health-retries",
        "6",
        "--restart-condition",
        "none",
        "web:1",
    ]);
    // While the container lives: at most the check under way, never those before it.
    let looked = std::time::Instant::now();
    let mut seen = 0;
    while looked.elapsed() < Duration::from_millis(1500) {
        let processes = cluster.lab().processes("worker-1").unwrap_or_default();
        let hanging =
            processes.iter().filter(|process| process.argv.iter().any(|arg| arg == "hang"));
        let hanging = hanging.count();
        assert!(hanging <= 4, "{hanging} processes of checks are left: {processes:?}");
        seen = seen.max(hanging);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(seen > 0, "the check was made");
    until("it fails", SOON, || {
        let tasks = cluster.tasks("hang");
        match tasks.first() {
            Some(task) if task.observed == "failed" => Ok(()),
            _ => Err(format!("{tasks:?}")),
        }
    });
    until("no hanging process", SOON, || {
        let processes = cluster.lab().processes("worker-1").expect("processes");
        let left = processes.iter().filter(|process| process.argv.iter().any(|arg| arg == "hang"));
        if left.count() == 0 { Ok(()) } else { Err(format!("{processes:?}")) }
    });
    cluster.good(&[
        "service",
        "create",
        "--name",
        "slow",
        "--env",
        "START_DELAY_MS=4000",
        "--health-http",
        "80/health",
        "--health-interval",
        "200ms",
        "--health-retries",
        "2",
        "--startup-http",
        "80/health",
        "--startup-interval",
        "200ms",
        "--startup-retries",
        "100",
        "web:1",
    ]);
    assert_eq!(cluster.tasks("slow").len(), 1, "it was never restarted");
}

#[test]
fn host_ports_are_the_nodes_own() {
    let cluster = Cluster::up("hostport", 1, 2);
    cluster.good(&[
        "service",
        "create",
        "--detach",
        "--name",
        "web",
        "--replicas",
        "3",
        "--publish",
        "mode=host,published=8080,target=80",
        "web:1",
    ]);
    let running = cluster.wait_running("web", 2, SOON);
    assert_ne!(running[0].node, running[1].node);
    for task in &running {
        let address = cluster.address(&task.node);
        let (body, _) = until("the node's own task", SOON, || cluster.get(address, 8080, "/"));
        assert!(body.1.contains(&task.id), "{body:?}");
    }
    until("the third says why", SOON, || {
        let tasks = cluster.tasks("web");
        let waits = tasks.iter().any(|task| task.node.is_empty() && task.message.contains("8080"));
        if waits { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    let explained = cluster.good(&["explain", "web"]);
    assert!(explained.contains("8080"), "{explained}");
}

/// An open request is answered to its end although its task leaves, up to the drain timeout.
#[test]
fn open_requests_end_before_the_signal() {
    let cluster = Cluster::up("drainconn", 1, 2);
    cluster.good(&[
        "service",
        "create",
        "--name",
        "web",
        "--publish",
        "80:80",
        "--drain-timeout",
        "10s",
        "--stop-grace-period",
        "1s",
        "--env",
        "IGNORE_TERM=1",
        "web:1",
    ]);
    let before = cluster.wait_running("web", 1, SOON);
    let address = cluster.address(&before[0].node);
    until("an answer", SOON, || cluster.get(address, 80, "/"));
    let slow = cluster.lab().inside(Place::Client, move || {
        std::thread::spawn(move || {
            (http::get_within(address, 80, "/slow?ms=3000", SOON), Instant::now())
        })
    });
    let slow = slow.expect("inside the lab");
    std::thread::sleep(Duration::from_millis(500));
    cluster.good(&["service", "scale", "--detach", "web=0"]);
    let (answer, _) = slow.join().expect("the request ends");
    let (status, body) = answer.expect("it was answered to its end");
    assert_eq!(status, 200, "{body}");
    until("the task is gone", SOON, || {
        let tasks = cluster.tasks("web");
        let alive = tasks.iter().filter(|task| task.observed == "running").count();
        if alive == 0 { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
}
