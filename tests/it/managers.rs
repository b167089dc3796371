//! The managers' own group: joining, votes, planned stops, spares, scheduled snapshots.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cluster_tests::cluster::SOON;
use cluster_tests::manager::{Folder, Manager, context_of, ctl};
use cluster_tests::{eventually, until};
use serde_json::Value;

fn good(context: &Path, args: &[&str]) -> String {
    let ran = ctl(context, args);
    assert_eq!(ran.code, 0, "clusterctl {args:?}: {ran:?}");
    ran.stdout
}

fn bad(context: &Path, args: &[&str], says: &[&str]) {
    let ran = ctl(context, args);
    assert_eq!(ran.code, 1, "clusterctl {args:?}: {ran:?}");
    for text in says {
        assert!(ran.stderr.contains(text), "clusterctl {args:?} does not say `{text}`: {ran:?}");
    }
}

/// Names and roles, those that are not heard in parentheses.
fn roles(context: &Path) -> Result<Vec<String>, String> {
    let ran = ctl(context, &["manager", "ls", "--output", "json"]);
    if ran.code != 0 {
        return Err(format!("{ran:?}"));
    }
    let rows: Value = serde_json::from_str(&ran.stdout).map_err(|error| error.to_string())?;
    let row = |row: &Value| {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let shown = format!("{} {}", text("name"), text("role"));
        if row["heard"] == true { shown } else { format!("({shown})") }
    };
    Ok(rows.as_array().into_iter().flatten().map(row).collect())
}

fn wait_roles(context: &Path, wanted: &[&str], bound: Duration) -> Duration {
    until(&format!("{wanted:?}"), bound, || {
        let roles = roles(context)?;
        if roles == wanted { Ok(()) } else { Err(format!("{roles:?}")) }
    })
    .1
}

fn leader(context: &Path) -> String {
    until("a leader", SOON, || {
        let roles = roles(context)?;
        let leads = roles.iter().find_map(|role| role.strip_suffix(" leader"));
        leads.map(str::to_owned).ok_or(format!("{roles:?}"))
    })
    .0
}

#[test]
fn votes_are_given_and_taken_only_while_enough_are_heard() {
    let [one, two, three] = [Folder::new(), Folder::new(), Folder::new()];
    let first = one.start(&["--bootstrap"]);
    let context = context_of(&one, &[&one, &two, &three]);
    let context = context.as_path();
    bad(context, &["manager", "demote", "m1"], &["E0113", "m1 is the only voter"]);
    bad(context, &["manager", "rm", "--force", "m1"], &["m1 is the only voter"]);
    let second = two.join(&one, "m2", &[]);
    let third = three.join(&one, "m3", &["--spare"]);
    wait_roles(context, &["m1 leader", "m2 voter", "m3 spare"], SOON);
    assert!(third.told().contains("spare"), "{}", third.told());
    good(context, &["manager", "promote", "m3"]);
    wait_roles(context, &["m1 leader", "m2 voter", "m3 voter"], SOON);
    bad(context, &["manager", "promote", "m9"], &["no manager `m9`"]);

    // One is lost: it is named, and what would make it worse is refused.
    drop(second);
    wait_roles(context, &["m1 leader", "(m2 voter)", "m3 voter"], SOON);
    let info = ctl(context, &["cluster", "info"]);
    assert!(info.stderr.contains("warning: manager m2 (voter) is not heard"), "{info:?}");
    bad(context, &["manager", "demote", "m3"], &["E0113", "without m3 1 of 2", "m2 (for"]);
    bad(context, &["manager", "rm", "m3"], &["E0113", "m2 (for"]);
    good(context, &["manager", "rm", "m2"]);
    wait_roles(context, &["m1 leader", "m3 voter"], SOON);

    // The leader gives up its own vote: another one leads first.
    good(context, &["manager", "demote", "m1"]);
    wait_roles(context, &["m1 spare", "m3 leader"], SOON);
    eventually("m1 says so", SOON, || first.told().contains("this manager was demoted"));
    bad(context, &["manager", "demote", "m3"], &["m3 is the only voter"]);
    good(context, &["manager", "promote", "m1"]);
    wait_roles(context, &["m1 voter", "m3 leader"], SOON);
    bad(context, &["manager", "rm", "m1"], &["votes and is heard", "--force"]);
    good(context, &["manager", "rm", "--force", "m1"]);

    // It ends by itself, says why, and its folder is of no more use.
    let ended = first.ended();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr.contains("no longer in the cluster"), "{ended:?}");
    one.refused(&[], &["no longer in the cluster", "removed.json", "empty data folder"]);
    // So does one that was away when it was removed, and learns it at its next start.
    let returned = two.spawn(&["--name", "m2"]).ended();
    assert_eq!(returned.code, 0, "{returned:?}");
    assert!(returned.stderr.contains("no longer in the cluster"), "{returned:?}");
    wait_roles(context, &["m3 leader"], SOON);
    good(context, &["service", "create", "--detach", "--name", "a", "--replicas", "0", "web:1"]);
}

/// Creates services one after another until told to stop; what failed.
fn write(context: &Path, writer: usize, stop: &AtomicBool, good: &AtomicU32) -> Vec<String> {
    let mut failed = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let name = format!("w{writer}-{number}");
        let line = ["service", "create", "--detach", "--name", &name, "--replicas", "0", "web:1"];
        let ran = ctl(context, &line);
        match ran.code {
            0 => {
                good.fetch_add(1, Ordering::AcqRel);
            }
            _ => failed.push(format!("{name}: {ran:?}")),
        }
    }
    failed
}

#[test]
fn a_leader_that_is_told_to_stop_costs_no_write() {
    let folders = [Folder::new(), Folder::new(), Folder::new()];
    let names = ["m1", "m2", "m3"];
    let mut managers: Vec<Option<Manager<'_>>> = vec![Some(folders[0].start(&["--bootstrap"]))];
    managers.push(Some(folders[1].join(&folders[0], "m2", &[])));
    managers.push(Some(folders[2].join(&folders[0], "m3", &[])));
    let context = context_of(&folders[0], &[&folders[0], &folders[1], &folders[2]]);
    let (stop, done) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut took = Vec::new();
    let failed: Vec<String> = std::thread::scope(|scope| {
        let (context, stop, done) = (&context, &stop, &done);
        let writers: Vec<_> =
            (0..3).map(|writer| scope.spawn(move || write(context, writer, stop, done))).collect();
        for round in 0..4 {
            let wanted = done.load(Ordering::Acquire) + 10;
            eventually("writes go on", SOON, || done.load(Ordering::Acquire) >= wanted);
            let old = leader(context);
            let at = names.iter().position(|name| *name == old).expect("one of ours");
            let began = Instant::now();
            managers[at].take().expect("it runs").stop();
            took.push(began.elapsed());
            let wanted = done.load(Ordering::Acquire) + 10;
            eventually("writes go on without it", SOON, || done.load(Ordering::Acquire) >= wanted);
            assert_ne!(leader(context), old, "round {round}");
            managers[at] = Some(folders[at].spawn(&["--name", names[at]]));
            wait_all_heard(context);
        }
        stop.store(true, Ordering::Release);
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer ends")).collect()
    });
    println!(
        "{} writes, 4 planned stops of the leader, which took {took:?}",
        done.load(Ordering::Acquire)
    );
    assert_eq!(failed, Vec::<String>::new());
}

fn wait_all_heard(context: &Path) {
    until("all are heard", SOON, || {
        let roles = roles(context)?;
        let all = roles.len() == 3 && roles.iter().all(|role| !role.starts_with('('));
        if all { Ok(()) } else { Err(format!("{roles:?}")) }
    });
}

#[test]
fn a_dead_manager_is_replaced_by_a_spare() {
    let [one, two, three, four] = [Folder::new(), Folder::new(), Folder::new(), Folder::new()];
    let _first = one.start(&["--bootstrap"]);
    let second = two.join(&one, "m2", &[]);
    let _third = three.join(&one, "m3", &[]);
    let context = context_of(&one, &[&one, &two, &three, &four]);
    let context = context.as_path();
    good(context, &["cluster", "update", "--replace-dead-managers-after", "10s"]);
    let info = good(context, &["cluster", "info"]);
    assert!(info.contains("replace dead managers after 10s"), "{info}");
    drop(second);
    // Without a spare nothing is done, and the reason is told.
    until("the reason", Duration::from_secs(30), || {
        let ran = ctl(context, &["manager", "ls"]);
        let told = ran.stderr.contains("no spare is there to replace it");
        if told { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    let _fourth = four.join(&one, "m4", &["--spare"]);
    let swapped = wait_roles(
        context,
        &["m1 leader", "(m2 spare)", "m3 voter", "m4 voter"],
        Duration::from_secs(30),
    );
    println!("swapped {swapped:?} after the spare had joined");
    // When it returns it stands by.
    let _second = two.spawn(&["--name", "m2"]);
    wait_roles(context, &["m1 leader", "m2 spare", "m3 voter", "m4 voter"], SOON);
}

#[test]
fn snapshots_are_written_on_schedule_and_failures_are_told() {
    let [one, two] = [Folder::new(), Folder::new()];
    let first = one.start(&["--bootstrap"]);
    std::fs::write(two.data().parent().expect("a folder").join("file"), "").expect("a file");
    let inside = two.data().parent().expect("a folder").join("file/inside");
    let inside = inside.to_str().expect("a path");
    let _second = two.join(&one, "m2", &["--spare", "--snapshot-dir", inside]);
    first.good(&["cluster", "update", "--snapshot-every", "1s", "--snapshot-keep", "2"]);
    let dir = one.file("snapshots-scheduled");
    let names = || {
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.path().display().to_string()).collect();
        names.sort();
        names
    };
    let mut seen = std::collections::BTreeSet::new();
    until("four snapshots, two of them kept", SOON, || {
        let now = names();
        seen.extend(now.iter().filter(|name| name.ends_with(".snapshot")).cloned());
        if seen.len() >= 4 && now.len() <= 3 { Ok(()) } else { Err(format!("{seen:?} {now:?}")) }
    });
    first.good(&["cluster", "update", "--snapshot-every", "off"]);
    let kept = until("the schedule rests", SOON, || {
        let before = names();
        std::thread::sleep(Duration::from_millis(1500));
        if names() == before { Ok(before) } else { Err(format!("{before:?}")) }
    })
    .0;
    assert_eq!(kept.len(), 2, "{kept:?}");
    let view: Value = serde_json::from_str(
        &first.good(&["cluster", "snapshot", "inspect", "--output", "json", &kept[1]]),
    )
    .expect("JSON");
    assert_eq!(view["managers"].as_array().map(Vec::len), Some(2), "{view}");
    let told = first.ctl(&["manager", "ls"]);
    assert!(told.stderr.contains("manager m2 could not write its last snapshot"), "{told:?}");
    assert!(told.stderr.contains("file/inside"), "{told:?}");
}
