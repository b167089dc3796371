//! What a manager says of data folders, flags and peers that it cannot work with. Each must end
//! with an error that names the file or flag and the way out, and must leave the folder as it was.

use std::fs;
use std::path::Path;

use cluster_tests::manager::Folder;

/// Changes a file, checks that the manager refuses its folder, puts the file back, and checks that
/// nothing was lost.
fn refused_while_changed(
    folder: &Folder,
    path: &Path,
    says: &[&str],
    change: impl FnOnce(&mut Vec<u8>),
) {
    let before = fs::read(path).expect("the file");
    let mut changed = before.clone();
    change(&mut changed);
    fs::write(path, &changed).expect("the file is changed");
    folder.refused(&[], says);
    assert_eq!(fs::read(path).expect("the file"), changed, "the refused file was touched");
    fs::write(path, &before).expect("the file is put back");
}

/// A folder with a cluster and three services in it, and no manager running.
fn used() -> Folder {
    let folder = Folder::new();
    let manager = folder.start(&["--bootstrap"]);
    for name in ["one", "two", "three"] {
        manager.write(name);
    }
    drop(manager);
    folder
}

fn is_whole(folder: &Folder) {
    let manager = folder.start(&[]);
    let mut services = manager.services();
    services.sort();
    assert_eq!(services, ["one", "three", "two"]);
    manager.write("four");
    manager.stop();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the folder") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a copy");
        }
    }
}

#[test]
fn a_damaged_log_is_refused_by_name_and_place() {
    let folder = used();
    let segment = folder.segment();
    let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
    let name = name.as_str();
    refused_while_changed(&folder, &segment, &[name, "cut short"], |bytes| {
        bytes.truncate(bytes.len() / 2);
    });
    refused_while_changed(&folder, &segment, &[name, "cut short"], |bytes| bytes.truncate(100));
    refused_while_changed(&folder, &segment, &[name, "damaged at offset"], |bytes| bytes[700] ^= 8);
    refused_while_changed(&folder, &segment, &[name, "damaged at offset 0"], |bytes| {
        bytes[20] ^= 1
    });
    // A newer release marks its segments so; its header is whole.
    refused_while_changed(
        &folder,
        &segment,
        &[name, "newer version", "start the newer"],
        |bytes| {
            bytes[12] += 1;
            let sum = crc32fast::hash(&bytes[12..512]);
            bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        },
    );
    // The log is gone, the certificate is not.
    let aside = folder.file("aside");
    fs::rename(folder.file("raft"), &aside).expect("moved aside");
    folder.refused(&[], &["no log", "--join"]);
    folder.refused(&["--bootstrap"], &["no log", "--join"]);
    // Not even where it could join: it would vote anew, under the same id.
    folder.refused(&["--join", "127.0.0.1:1", "--token", "any"], &["no log", "an empty one"]);
    let _ = fs::remove_dir_all(folder.file("raft"));
    fs::rename(&aside, folder.file("raft")).expect("moved back");
    is_whole(&folder);
}

#[test]
fn an_identity_that_does_not_serve_is_refused_by_name() {
    let folder = used();
    let identity = folder.file("identity.json");
    let refused = |says: &[&str], change: &dyn Fn(&mut Vec<u8>)| {
        refused_while_changed(&folder, &identity, says, change);
    };
    refused(&["identity.json", "damaged"], &|bytes| *bytes = b"garbage".to_vec());
    refused(&["identity.json", "truncated"], &|bytes| bytes.truncate(bytes.len() / 2));
    refused(&["identity.json", "truncated"], &Vec::clear);
    refused(&["identity.json", "version 2"], &|bytes| {
        let text = String::from_utf8(bytes.clone()).expect("text");
        *bytes = text.replace("\"version\": 1", "\"version\": 2").into_bytes();
    });
    // One bit of the certificate.
    refused(&["identity.json"], &|bytes| {
        let text = String::from_utf8(bytes.clone()).expect("text");
        let at = text.find("BEGIN CERTIFICATE").expect("a certificate") + 200;
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    });
    let aside = folder.file("aside");
    fs::rename(&identity, &aside).expect("moved aside");
    folder.refused(&["--bootstrap"], &["no certificate"]);
    fs::rename(&aside, &identity).expect("moved back");
    is_whole(&folder);
}

#[test]
fn a_folder_of_another_cluster_is_refused_and_two_cannot_share_one() {
    let (ours, theirs) = (used(), used());
    let aside = ours.file("aside");
    fs::rename(ours.file("raft"), &aside).expect("moved aside");
    copy(&theirs.file("raft"), &ours.file("raft"));
    let before = fs::read(ours.segment()).expect("the segment");
    ours.refused(&[], &["00000000000000000001.log", "belongs to another cluster"]);
    assert!(fs::read(ours.segment()).expect("the segment") == before, "it was touched");
    fs::remove_dir_all(ours.file("raft")).expect("removed");
    fs::rename(&aside, ours.file("raft")).expect("moved back");

    let first = ours.start(&[]);
    let data = ours.data().display().to_string();
    ours.refused(&[], &["another process (pid ", &data]);
    ours.refused(&["--bootstrap", "--listen", "127.0.0.1:1"], &["another process (pid ", &data]);
    assert_eq!(first.services().len(), 3, "the first one is not disturbed");
    first.stop();
    is_whole(&ours);
}

#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    let folder = Folder::of_size("32m");
    let data = folder.data().display().to_string();
    folder.remount("ro");
    folder.refused(&["--bootstrap"], &[&data, "Read-only file system", "--data-dir"]);
    folder.remount("rw");
    let manager = folder.start(&["--bootstrap"]);
    manager.write("one");
    drop(manager);
    folder.remount("ro");
    folder.refused(&[], &[&data, "Read-only file system"]);
    folder.remount("rw");
    assert_eq!(folder.start(&[]).services(), ["one"]);

    // Something else than a folder.
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().display().to_string();
    folder.refused(&["--bootstrap", "--data-dir", &path], &["--data-dir"]);
}

/// What was acknowledged before the disk was full is there once there is room again; what was not,
/// was not acknowledged.
#[test]
fn a_full_disk_stops_the_manager_and_loses_nothing() {
    let folder = Folder::of_size("4m");
    folder.refused(&["--bootstrap"], &["No space left on device", "raft/log"]);
    folder.remount("size=11m");
    let manager = folder.start(&["--bootstrap"]);
    let filling = "x".repeat(80_000);
    let names: Vec<String> = (0..100).map(|number| format!("s{number}")).collect();
    let mut acknowledged = Vec::new();
    for name in &names {
        let (a, b, c) = (format!("A={filling}"), format!("B={filling}"), format!("C={filling}"));
        let ran = manager.ctl(&[
            "service",
            "create",
            "--detach",
            "--name",
            name,
            "--replicas",
            "0",
            "--env",
            &a,
            "--env",
            &b,
            "--env",
            &c,
            "--timeout",
            "5s",
            "web:1",
        ]);
        if ran.code != 0 {
            break;
        }
        acknowledged.push(name.clone());
    }
    assert!((10..60).contains(&acknowledged.len()), "{} were acknowledged", acknowledged.len());
    let ran = manager.ended();
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let error = ran.stderr.lines().last().unwrap_or_default();
    for text in ["error: ", "No space left on device", "raft/log"] {
        assert!(error.contains(text), "does not say `{text}`: {}", ran.stderr);
    }
    // Still full: it may start, since what is there is whole, or say why not; it loses nothing.
    folder.remount("size=64m");
    let manager = folder.start(&[]);
    let services = manager.services();
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !services.contains(name)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(services.len() <= acknowledged.len() + 1, "more than was asked for: {services:?}");
    manager.write("after");
    manager.stop();
}

#[test]
fn bad_flags_are_refused_before_anything_is_written() {
    let folder = Folder::new();
    let long = "n".repeat(500);
    let table: &[(&[&str], &[&str])] = &[
        (&[], &["--bootstrap", "--join"]),
        (&["--bootstrap", "--join", "127.0.0.1:1", "--token", "t"], &["--bootstrap", "--join"]),
        (&["--join", "127.0.0.1:1"], &["--token"]),
        (&["--bootstrap", "--heartbeat-period", "50ms", "--lease", "1s"], &["--heartbeat-period"]),
        (&["--bootstrap", "--lease", "1s"], &["--lease", "--heartbeat-period"]),
        (&["--bootstrap", "--lease", "3"], &["--lease", "unit"]),
        (&["--bootstrap", "--cluster-name", "two words"], &["--cluster-name"]),
        (&["--bootstrap", "--name", "with space"], &["--name"]),
        (&["--bootstrap", "--name", "new\nline"], &["--name"]),
        (&["--bootstrap", "--name", &long], &["--name"]),
        (&["--bootstrap", "--listen", "127.0.0.1"], &["--listen"]),
        (&["--bootstrap", "--listen", "127.0.0.1:70000"], &["--listen"]),
        (&["--bootstrap", "--listen", "127.0.0.1:0"], &["--listen", "port"]),
        (&["--bootstrap", "--listen", "0.0.0.0:7100"], &["--advertise"]),
        (&["--bootstrap", "--listen", "192.0.2.1:7100"], &["--listen", "192.0.2.1:7100"]),
        (&["--bootstrap", "--advertise", "somewhere"], &["--advertise"]),
        (&["--join", "nowhere", "--token", "nonsense"], &["--token"]),
        (&["--frobnicate"], &["--frobnicate"]),
    ];
    for (args, says) in table {
        folder.refused(args, says);
        let left: Vec<String> = fs::read_dir(folder.data())
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name != "LOCK")
            .collect();
        assert!(left.is_empty(), "{args:?} left {left:?} behind");
    }
    // A port that is taken; then the same folder founds a cluster as if nothing had been.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    folder.refused(&["--bootstrap", "--listen", &address], &["--listen", &address]);
    assert!(!folder.file("founding.json").exists(), "nothing was founded");
    folder.start(&["--bootstrap", "--cluster-name", "mine"]).stop();
    // The folder holds a cluster now: the flags for a new one no longer matter.
    folder.start(&["--bootstrap", "--cluster-name", "other"]).stop();
}

#[test]
fn joining_with_the_wrong_token_port_or_cluster_says_so_and_leaves_nothing() {
    let (cluster, other, newcomer) = (Folder::new(), Folder::new(), Folder::new());
    let manager = cluster.start(&["--bootstrap"]);
    let foreign = other.start(&["--bootstrap"]);
    let token = |manager: &cluster_tests::manager::Manager<'_>, role: &str| {
        manager.good(&["cluster", "token", "--role", role, "--quiet"]).trim().to_owned()
    };
    let good = token(&manager, "manager");
    let mut typo = good.clone().into_bytes();
    let last = typo.last_mut().expect("a character");
    *last = if *last == b'a' { b'b' } else { b'a' };
    let typo = String::from_utf8(typo).expect("text");
    let http = silent_http();
    let refused = |address: &str, token: &str, says: &[&str]| {
        newcomer.refused(&["--name", "m2", "--join", address, "--token", token], says);
        assert!(!newcomer.file("identity.json").exists(), "half a join is left");
    };
    let address = cluster.address();
    refused(&address, "nonsense", &["--token"]);
    refused(&address, &token(&manager, "worker"), &["--token", "--role manager"]);
    refused(&address, &token(&foreign, "manager"), &["another cluster"]);
    refused(&address, &typo, &["token"]);
    refused("127.0.0.1:1", &good, &["127.0.0.1:1", "refused"]);
    refused(&http, &good, &[&http, "not a cluster port"]);
    manager.good(&["cluster", "token", "--role", "manager", "--rotate", "--quiet"]);
    refused(&address, &good, &["rotated"]);
    let nodes = manager.good(&["node", "ls", "--output", "json"]);
    assert!(!nodes.contains("m2"), "{nodes}");

    // The name of a manager that exists.
    let fresh = token(&manager, "manager");
    newcomer.refused(&["--name", "m1", "--join", &address, "--token", &fresh], &["m1", "taken"]);
    // And with all of it right, it joins.
    let joined = newcomer.spawn(&["--name", "m2", "--join", &address, "--token", &fresh]);
    cluster_tests::until("the second manager is a member", cluster_tests::cluster::SOON, || {
        let nodes = manager.ctl(&["node", "ls", "--output", "json"]);
        if nodes.stdout.contains("m2") {
            Ok(())
        } else {
            Err(format!("{nodes:?} {}", joined.told()))
        }
    });
}

/// A server that answers everything with an HTTP error, until the process ends.
fn silent_http() -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    address
}
