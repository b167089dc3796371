//! Ways out after most managers are lost, as drills on real daemons.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use cluster_lab::Place;
use cluster_tests::cluster::SOON;
use cluster_tests::manager::{Folder, context_of, ctl};
use cluster_tests::{Cluster, Ran, Task, until};
use serde_json::Value;

/// State hash and index, as the asked manager holds them.
fn standing(ran: &Ran) -> (String, u64) {
    assert_eq!(ran.code, 0, "{ran:?}");
    let info: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let hash = info["state_hash"].as_str().expect("a hash").to_owned();
    assert_eq!(hash.len(), 64, "{info}");
    (hash, info["index"].as_u64().expect("an index"))
}

const INFO: [&str; 4] = ["cluster", "info", "--output", "json"];
const STALE: [&str; 5] = ["cluster", "info", "--output", "json", "--stale"];

fn services(context: &Path) -> Vec<String> {
    let ran = ctl(context, &["service", "ls", "--output", "json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let rows: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let name = |row: &Value| row["name"].as_str().unwrap_or_default().to_owned();
    let mut names: Vec<String> = rows.as_array().into_iter().flatten().map(name).collect();
    names.sort();
    names
}

#[test]
fn a_survivor_begins_anew_and_old_managers_cannot_come_back() {
    let [one, two, three, four] = [Folder::new(), Folder::new(), Folder::new(), Folder::new()];
    let first = one.start(&["--bootstrap"]);
    let second = two.join(&one, "m2", &[]);
    let third = three.join(&one, "m3", &[]);
    for name in ["a", "b", "c"] {
        first.write(name);
    }
    drop((second, third));
    // No majority: nothing can be agreed on, and what is held can still be read.
    let ran = first.ctl(&["service", "ls"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    let listed = first.ctl(&["manager", "ls"]);
    assert!(listed.stderr.contains("cluster-manager recover"), "{listed:?}");
    let (hash, index) = standing(&first.ctl(&STALE));
    let data = one.data().display().to_string();
    let recover = ["recover", "--data-dir", &data, "--from-data"];
    let busy = one.run(&recover);
    assert!(busy.code == 1 && busy.stderr.contains("stop its manager first"), "{busy:?}");
    drop(first);

    // First what it would do, and nothing else.
    let foretold = one.run(&recover);
    assert_eq!(foretold.code, 1, "{foretold:?}");
    for text in ["--yes", "nothing was changed"] {
        assert!(foretold.stderr.contains(text), "{foretold:?}");
    }
    let kept = format!("index {index}");
    for text in
        [hash.as_str(), &kept, "3 services", "lost:", "manager m2", "manager m3", "only voter"]
    {
        assert!(foretold.stdout.contains(text), "does not say `{text}`: {}", foretold.stdout);
    }
    let done = one.run(&[&recover[..], &["--yes"]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.stdout.contains(&format!("Recovered: state hash {hash} as of index {index}")),
        "{done:?}"
    );
    let first = one.start(&[]);
    let context = one.file("admin.json");
    assert_eq!(services(&context), ["a", "b", "c"]);
    let (_, later) = standing(&first.ctl(&INFO));
    assert!(later > index + 1_000_000, "{later} does not begin far above {index}");

    // The others come back with their old folders. They were a majority once; they learn that they
    // are out, and end.
    let old = [two.spawn(&["--name", "m2"]), three.spawn(&["--name", "m3"])];
    for manager in old {
        let ended = manager.ended();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.stderr.contains("no longer in the cluster"), "{ended:?}");
    }
    first.write("d");
    // With an empty folder one may join again, under its old name.
    let joined = four.join(&one, "m2", &[]);
    let members = first.good(&["manager", "ls", "--quiet"]);
    assert_eq!(members.lines().count(), 2, "{members}");
    drop((first, joined));
    // And all of it is durable.
    let (_first, _joined) = (one.spawn(&[]), four.spawn(&["--name", "m2"]));
    let both = context_of(&one, &[&one, &four]);
    until("both are back", SOON, || {
        let ran = ctl(&both, &["service", "ls", "--quiet"]);
        if ran.code == 0 { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    assert_eq!(services(&both), ["a", "b", "c", "d"]);
}

#[test]
fn a_recovery_that_is_interrupted_is_finished_at_the_next_start() {
    let one = Folder::new();
    let first = one.start(&["--bootstrap"]);
    first.write("a");
    first.stop();
    let data = one.data().display().to_string();
    let done = one.run(&["recover", "--data-dir", &data, "--from-data", "--yes"]);
    assert_eq!(done.code, 0, "{done:?}");
    // As if the power had gone in the middle of the swap: some of it is back where it was made.
    let made = one.file("recovered");
    std::fs::create_dir(&made).expect("a folder");
    for name in ["identity.json", "recovery.json"] {
        std::fs::rename(one.file(name), made.join(name)).expect("moved back");
    }
    let first = one.start(&[]);
    assert!(first.told().contains("finished a recovery"), "{}", first.told());
    assert_eq!(first.services(), ["a"]);
    assert!(!made.exists() && !one.file("recovery.json").exists());
}

#[test]
fn a_snapshot_begins_a_cluster_anew() {
    let [one, two] = [Folder::new(), Folder::new()];
    let first = one.start(&["--bootstrap"]);
    first.write("a");
    first.write("b");
    let file = one.data().parent().expect("a folder").join("c.snapshot");
    let file = file.to_str().expect("a path");
    let (hash, index) = standing(&first.ctl(&INFO));
    first.good(&["cluster", "snapshot", "save", file]);
    let view: Value = serde_json::from_str(
        &first.good(&["cluster", "snapshot", "inspect", "--output", "json", file]),
    )
    .expect("JSON");
    assert_eq!(
        (view["state_hash"].as_str(), view["index"].as_u64()),
        (Some(hash.as_str()), Some(index))
    );
    first.write("too-late");
    first.stop();

    let (data, address) = (two.data().display().to_string(), two.address());
    let line =
        ["cluster", "snapshot", "restore", file, "--data-dir", &data, "--advertise", &address];
    let foretold = ctl(Path::new("/nonexistent"), &line);
    assert_eq!(foretold.code, 1, "{foretold:?}");
    for text in [hash.as_str(), "2 services", "every change after index", "manager m1"] {
        assert!(foretold.stdout.contains(text), "does not say `{text}`: {foretold:?}");
    }
    let done = ctl(Path::new("/nonexistent"), &[&line[..], &["--name", "m7", "--yes"]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.contains(&hash), "{done:?}");
    let again = ctl(Path::new("/nonexistent"), &[&line[..], &["--yes"]].concat());
    assert!(again.code == 1 && again.stderr.contains("belongs to a manager already"), "{again:?}");
    let restored = two.start(&["--name", "m7"]);
    assert_eq!(restored.services(), ["a", "b"]);
    restored.write("c");
    // The old one is told that it is out.
    let context = one.file("admin.json");
    let text = std::fs::read_to_string(&context).expect("the old context");
    let text = text.replace(&one.address(), &two.address());
    std::fs::write(&context, text).expect("the old context");
    assert_eq!(services(&context), ["a", "b", "c"], "the administrator's old certificate is good");

    let damaged = one.data().parent().expect("a folder").join("damaged");
    let mut bytes = std::fs::read(file).expect("the file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, &bytes).expect("a damaged copy");
    let fresh = Folder::new();
    let ran = fresh.run(&[
        "recover",
        "--data-dir",
        &fresh.data().display().to_string(),
        "--from-snapshot",
        damaged.to_str().expect("a path"),
        "--advertise",
        &address,
        "--yes",
    ]);
    assert!(ran.code == 1 && ran.stderr.contains("damaged at offset"), "{ran:?}");
}

fn ids(tasks: &[Task]) -> BTreeSet<String> {
    tasks.iter().map(|task| task.id.clone()).collect()
}

/// The pids of all container processes that run the example server.
fn servers(cluster: &Cluster) -> BTreeSet<i32> {
    let mut pids = BTreeSet::new();
    for (worker, _) in cluster.workers() {
        let processes = cluster.lab().processes(&worker).expect("the node's processes");
        let servers =
            processes.iter().filter(|p| p.argv.first().is_some_and(|program| program == "/web"));
        pids.extend(servers.map(|process| process.pid));
    }
    pids
}

fn on(cluster: &Cluster, node: &str, args: &[&str]) -> Ran {
    let program = cluster_tests::install::bin_dir().join("cluster-manager");
    let mut argv = vec![program.display().to_string()];
    argv.extend(args.iter().map(|arg| (*arg).to_owned()));
    cluster.lab().exec_output(Place::Node(node), &argv).expect("the program runs").into()
}

fn wait_ready(cluster: &Cluster, workers: u64) -> Duration {
    until("all workers are ready", SOON, || {
        let ran = cluster.ctl(&INFO);
        let info: Value = serde_json::from_str(&ran.stdout).map_err(|_| format!("{ran:?}"))?;
        if info["workers_ready"] == workers { Ok(()) } else { Err(format!("{info}")) }
    })
    .1
}

/// The drill of docs/recovery.md.
#[test]
fn after_a_lost_majority_containers_run_on_and_new_managers_join() {
    let cluster = Cluster::up("recover", 3, 2);
    let lab = cluster.lab();
    let tasks = cluster.serve_web(4);
    let pids = servers(&cluster);
    assert_eq!(pids.len(), 4);

    // Two managers are lost for good.
    for node in ["manager-2", "manager-3"] {
        lab.kill(node).expect("power-off");
        std::fs::remove_dir_all(lab.data_path(node)).expect("its disk is gone");
    }
    let ran = cluster.ctl(&["service", "ls"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    let (hash, index) = standing(&cluster.ctl(&STALE));
    lab.kill_agent("manager-1").expect("the survivor is stopped");
    let data = lab.data_path("manager-1").display().to_string();
    let recovered =
        on(&cluster, "manager-1", &["recover", "--data-dir", &data, "--from-data", "--yes"]);
    assert_eq!(recovered.code, 0, "{recovered:?}");
    println!("{}", recovered.stdout);
    let same = format!("Recovered: state hash {hash} as of index {index}");
    assert!(recovered.stdout.contains(&same), "{recovered:?}");
    lab.start_agent("manager-1").expect("the survivor starts");
    let back = wait_ready(&cluster, 2);
    println!("both workers were ready {back:?} after the start");
    let after = cluster.wait_running("web", 4, SOON);
    assert_eq!(ids(&after), ids(&tasks), "a task was restarted");
    assert_eq!(servers(&cluster), pids, "a container was restarted");
    // They take orders, and the balancers follow.
    cluster.good(&["service", "scale", "web=5"]);
    let five = cluster.wait_running("web", 5, SOON);
    assert!(ids(&tasks).is_subset(&ids(&five)) && pids.is_subset(&servers(&cluster)));
    for (_, address) in cluster.workers() {
        cluster.wait_answers(address, 80, &ids(&five), SOON);
    }

    // Fresh ones join in place of the lost.
    for node in ["manager-2", "manager-3"] {
        lab.start(node).expect("power on");
    }
    until("three voters", SOON, || {
        let ran = cluster.ctl(&["manager", "ls", "--output", "json"]);
        let rows: Value = serde_json::from_str(&ran.stdout).map_err(|_| format!("{ran:?}"))?;
        let rows = rows.as_array().cloned().unwrap_or_default();
        let voters = rows.iter().filter(|row| row["voter"] == true && row["heard"] == true);
        if voters.count() == 3 && rows.len() == 3 { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    let old = cluster.leader();
    lab.kill(&old).expect("power-off");
    until("a write survives the leader", SOON, || {
        let ran = cluster.ctl(&["service", "scale", "--detach", "web=4"]);
        if ran.code == 0 { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    cluster.wait_running("web", 4, SOON);
}

#[test]
fn a_restored_snapshot_takes_over_what_still_runs() {
    let cluster = Cluster::up("restore", 1, 2);
    let lab = cluster.lab();
    let tasks = cluster.serve_web(2);
    let pids = servers(&cluster);
    let file = lab.folder().join("web.snapshot").display().to_string();
    cluster.good(&["cluster", "snapshot", "save", &file]);
    // After the snapshot: another service, which the restored cluster will not know.
    cluster.good(&["service", "create", "--name", "late", "--replicas", "2", "web:1"]);
    cluster.wait_running("late", 2, SOON);
    assert_eq!(servers(&cluster).len(), 4);

    lab.kill_agent("manager-1").expect("the manager is stopped");
    let data = lab.data_path("manager-1");
    std::fs::rename(&data, data.with_extension("lost")).expect("its disk is gone");
    let (data, address) =
        (data.display().to_string(), format!("{}:7100", cluster.address("manager-1")));
    let line = [
        "recover",
        "--data-dir",
        &data,
        "--from-snapshot",
        &file,
        "--advertise",
        &address,
        "--name",
        "manager-1",
    ];
    let recovered = on(&cluster, "manager-1", &[&line[..], &["--yes"]].concat());
    assert_eq!(recovered.code, 0, "{recovered:?}");
    lab.start_agent("manager-1").expect("the manager starts");
    wait_ready(&cluster, 2);
    let after = cluster.wait_running("web", 2, SOON);
    assert_eq!(ids(&after), ids(&tasks), "a task was restarted");
    until("what the snapshot does not know is stopped, the rest is the same", SOON, || {
        let now = servers(&cluster);
        if now == pids { Ok(()) } else { Err(format!("{now:?}, not {pids:?}")) }
    });
    for (_, address) in cluster.workers() {
        cluster.wait_answers(address, 80, &ids(&tasks), SOON);
    }
    cluster.good(&["service", "scale", "web=3"]);
    let three = cluster.wait_running("web", 3, SOON);
    for (_, address) in cluster.workers() {
        cluster.wait_answers(address, 80, &ids(&three), SOON);
    }
}
