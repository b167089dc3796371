//! Updates on real containers: batches, order, failures, rollback, canaries, pause, history.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster_tests::cluster::SOON;
use cluster_tests::{Cluster, Task, Traffic, until};
use serde_json::Value;

fn create(cluster: &Cluster, name: &str, replicas: &str, more: &[&str]) -> Vec<Task> {
    let mut args = vec!["service", "create", "--name", name, "--replicas", replicas];
    args.extend(more);
    args.push("web:1");
    cluster.good(&args);
    cluster.wait_running(name, replicas.parse().expect("a number"), SOON)
}

fn inspect(cluster: &Cluster, name: &str) -> Value {
    let value = cluster.json(&["service", "inspect", name]);
    value.as_array().and_then(|all| all.first().cloned()).unwrap_or(value)
}

fn images(cluster: &Cluster, name: &str) -> Vec<String> {
    let tasks = cluster.json(&["service", "ps", name]);
    let running =
        |task: &&Value| task["desired_state"] == "running" && task["observed_state"] == "running";
    let all = tasks.as_array().expect("a list");
    let image = |task: &Value| task["image"].as_str().unwrap_or_default().to_owned();
    all.iter().filter(running).map(image).collect()
}

fn ids(tasks: &[Task]) -> BTreeSet<String> {
    tasks.iter().map(|task| task.id.clone()).collect()
}

/// Never fewer than eight of ten, mixed versions only forward, and a visitor notices nothing.
#[test]
fn ten_replicas_roll_two_at_a_time_and_nobody_notices() {
    let cluster = Cluster::up("roll", 1, 3);
    let policy = ["--update-parallelism", "2", "--update-monitor", "1s", "--publish", "80:80"];
    create(&cluster, "web", "10", &policy);
    let addresses: Vec<_> = cluster.workers().into_iter().map(|(_, address)| address).collect();
    let traffic = Traffic::start(&cluster, &addresses, 80);
    let begun = Instant::now();
    cluster.good(&["service", "update", "--detach", "--image", "web:2", "web"]);
    let mut most_new = 0;
    until("all ten on the new image", SOON, || {
        let images = images(&cluster, "web");
        let new = images.iter().filter(|image| *image == "web:2").count();
        assert!(images.len() >= 8, "fewer than eight run: {images:?}");
        assert!(new >= most_new, "the mix went back: {images:?}");
        most_new = new;
        if new == 10 { Ok(()) } else { Err(format!("{images:?}")) }
    });
    println!("rolled ten in {:?}", begun.elapsed());
    for answers in traffic.stop() {
        assert!(answers.failed.is_empty(), "{answers:?}");
    }
    until("the update completed", SOON, || {
        let state = inspect(&cluster, "web");
        if state.to_string().contains("completed") { Ok(()) } else { Err(state.to_string()) }
    });
}

/// Paused after exactly two failures, the message names a task; rollback mends it.
#[test]
fn a_bad_image_pauses_the_update_and_a_rollback_returns() {
    let cluster = Cluster::up("badimg", 1, 2);
    let before = create(
        &cluster,
        "web",
        "5",
        &["--update-max-failure-ratio", "0.25", "--restart-condition", "none"],
    );
    let ran = cluster.ctl(&["service", "update", "--image", "web:none", "web"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("paused") || ran.stdout.contains("paused"), "{ran:?}");
    let failed: Vec<Task> =
        cluster.tasks("web").into_iter().filter(|task| task.observed == "rejected").collect();
    assert_eq!(failed.len(), 2, "{failed:#?}");
    let told = inspect(&cluster, "web").to_string();
    assert!(failed.iter().any(|task| told.contains(&task.id) || told.contains("web.")), "{told}");
    let kept = ids(&cluster.running("web")).intersection(&ids(&before)).count();
    assert_eq!(kept, 3, "what the update had not reached is untouched");
    // The same again changes nothing.
    cluster.good(&["service", "update", "--detach", "--image", "web:none", "web"]);
    assert_eq!(cluster.running("web").len(), 3);

    cluster.good(&["service", "rollback", "web"]);
    cluster.wait_running("web", 5, SOON);
    let images = images(&cluster, "web");
    assert!(images.iter().all(|image| image == "web:1"), "{images:?}");
    let now = ids(&cluster.running("web"));
    assert_eq!(now.intersection(&ids(&before)).count(), 3, "a rollback touches only what moved");
    cluster.bad(1, &["E0112"], &["service", "rollback", "--to", "1", "web"]);
}

/// A revision that runs and then fails within the monitor time rolls itself back.
#[test]
fn an_update_that_fails_rolls_itself_back_once() {
    let cluster = Cluster::up("autoback", 1, 2);
    let before = create(&cluster, "web", "3", &["--update-failure-action", "rollback"]);
    let ran = cluster.ctl(&["service", "update", "--env-add", "EXIT_AFTER_MS=300", "web"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    cluster.wait_running("web", 3, SOON);
    let kept = ids(&cluster.running("web")).intersection(&ids(&before)).count();
    assert!(kept >= 2, "one slot tried it: {before:?} {:?}", cluster.tasks("web"));
    let told = inspect(&cluster, "web").to_string();
    assert!(told.contains("rollback"), "{told}");
    assert!(!told.contains("EXIT_AFTER_MS"), "the spec is the old one again: {told}");
}

/// Start-first waits for health, and a new task that does not come up costs nothing.
#[test]
fn start_first_never_stops_the_old_before_the_new_is_healthy() {
    let cluster = Cluster::up("startfirst", 1, 2);
    let before = create(
        &cluster,
        "web",
        "3",
        &[
            "--update-order",
            "start-first",
            "--update-monitor",
            "1s",
            "--health-http",
            "80/health",
            "--health-interval",
            "200ms",
            "--health-start-period",
            "60s",
            "--health-start-interval",
            "100ms",
        ],
    );
    // Stays starting: nothing old is stopped.
    cluster.good(&["service", "update", "--detach", "--env-add", "UNHEALTHY=1", "web"]);
    until("a new task starts beside an old one", SOON, || {
        let tasks = cluster.tasks("web");
        let starting = tasks.iter().filter(|task| task.observed == "starting").count();
        if starting == 1 { Ok(()) } else { Err(format!("{tasks:#?}")) }
    });
    std::thread::sleep(Duration::from_secs(2));
    let still = ids(&cluster.running("web"));
    assert_eq!(still, ids(&before), "no old task was touched");
    // A healthy one goes through, never fewer than three running.
    cluster.good(&[
        "service",
        "update",
        "--detach",
        "--env-rm",
        "UNHEALTHY",
        "--env-add",
        "A=1",
        "web",
    ]);
    until("three new ones", SOON, || {
        let running = cluster.running("web");
        assert!(running.len() >= 3, "fewer than three run: {running:?}");
        let new = running.iter().filter(|task| !before.iter().any(|old| old.id == task.id)).count();
        if new == 3 && running.len() == 3 { Ok(()) } else { Err(format!("{running:?}")) }
    });
}

#[test]
fn canaries_wait_for_promotion_and_updates_pause_and_resume() {
    let cluster = Cluster::up("canary", 1, 3);
    let before = create(&cluster, "web", "3", &["--update-canary", "1", "--update-monitor", "1s"]);
    let ran = cluster.ctl(&["service", "update", "--image", "web:2", "web"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("promote") || ran.stdout.contains("promote"), "{ran:?}");
    let running = cluster.running("web");
    assert_eq!(running.len(), 4, "three old, one new: {running:?}");
    assert!(ids(&before).is_subset(&ids(&running)), "no old one was stopped");
    cluster.good(&["service", "promote", "web"]);
    cluster.wait_running("web", 3, SOON);
    assert!(images(&cluster, "web").iter().all(|image| image == "web:2"));
    cluster.bad(1, &["E0112"], &["service", "promote", "web"]);

    // Paused: nothing moves, what fails is still replaced; resumed: it goes on.
    cluster.good(&["service", "update", "--detach", "--update-canary", "0", "web"]);
    cluster.good(&[
        "service",
        "update",
        "--detach",
        "--update-delay",
        "2s",
        "--image",
        "web:1",
        "web",
    ]);
    until("the first has moved", SOON, || {
        let images = images(&cluster, "web");
        if images.iter().any(|image| image == "web:1") {
            Ok(())
        } else {
            Err(format!("{images:?}"))
        }
    });
    cluster.good(&["service", "update", "--pause", "web"]);
    cluster.wait_running("web", 3, SOON);
    let paused = ids(&cluster.running("web"));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(ids(&cluster.running("web")), paused, "nothing moves while paused");
    cluster.bad(1, &["E0112"], &["service", "update", "--pause", "web"]);
    cluster.good(&["service", "update", "--resume", "web"]);
    until("all have moved", SOON, || {
        let images = images(&cluster, "web");
        let done = images.len() == 3 && images.iter().all(|image| image == "web:1");
        if done { Ok(()) } else { Err(format!("{images:?}")) }
    });
    let history = cluster.json(&["service", "history", "web"]);
    assert_eq!(history.as_array().map(Vec::len), Some(3), "{history}");
    let diff = cluster.good(&["service", "diff", "web"]);
    assert!(diff.contains("web:1") && diff.contains("web:2"), "{diff}");
}

/// A restart replaces all by the update's rules; a compare-and-set that comes late is refused.
#[test]
fn restarts_are_rolled_and_late_changes_refused() {
    let cluster = Cluster::up("restart", 1, 2);
    let before = create(&cluster, "web", "3", &["--update-monitor", "0s"]);
    let version = inspect(&cluster, "web")["version"].as_u64().expect("a version");
    cluster.good(&["service", "restart", "web"]);
    let after = cluster.wait_running("web", 3, SOON);
    assert!(ids(&after).is_disjoint(&ids(&before)), "{before:?} {after:?}");
    let version = version.to_string();
    cluster.bad(
        1,
        &["E0105"],
        &["service", "update", "--expect-version", &version, "--image", "web:2", "web"],
    );
    // A named victim goes, and only it.
    let victim = after[1].id.clone();
    cluster.good(&["service", "scale", "web=2", "--remove", &victim]);
    let left = cluster.wait_running("web", 2, SOON);
    assert!(!ids(&left).contains(&victim), "{left:?}");
    assert!(ids(&left).is_subset(&ids(&after)), "{left:?}");
    // Dry runs say what would happen and change nothing.
    let plan = cluster.json(&["service", "update", "--dry-run", "--image", "web:2", "web"]);
    let steps = plan["steps"].as_array().cloned().unwrap_or_default();
    let renewed =
        steps.iter().filter(|step| step["action"] == "replace" || step["action"] == "move");
    assert_eq!(renewed.count(), 2, "{plan}");
    assert_eq!(ids(&cluster.wait_running("web", 2, SOON)), ids(&left));
    assert!(images(&cluster, "web").iter().all(|image| image == "web:1"));
}
