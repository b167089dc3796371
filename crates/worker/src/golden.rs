//! Frozen files: what this release keeps in a worker's folder, every later one must read.
//!
//! The files of tests/golden are as they are on disk. A format that was changed on purpose gets a
//! new version and a new file; files of a release stay. `UPDATE_GOLDEN=1 cargo test -p
//! cluster-worker golden` writes them anew.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster_model::spec::{ContainerSpec, Mount, MountKind, Resources, TaskSpec};
use cluster_model::{Desired, Observed, ServiceId, StatusReport, TaskId};
use cluster_network::{Backend, Endpoints, PublishedPort};

use crate::assignments::{Assignment, Stamp, Table, store};
use crate::data_dir::DataDir;
use crate::endpoints;
use crate::member::{self, Member};
use crate::task::record::Record;

/// Writes with `write` what must be what the frozen file holds, and puts the frozen file there to
/// be read.
fn frozen(name: &str, path: &Path, write: impl FnOnce()) {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    write();
    let now = fs::read(path).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &now).unwrap();
    }
    let then = fs::read(&golden).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&now), text(&then), "{name} is written otherwise");
    fs::write(path, then).unwrap();
}

fn folder() -> (tempfile::TempDir, DataDir) {
    let root = tempfile::tempdir().unwrap();
    let dir = DataDir::new(root.path());
    (root, dir)
}

fn spec() -> TaskSpec {
    TaskSpec {
        container: ContainerSpec {
            image: "web:1".into(),
            entrypoint: vec!["/web".into()],
            args: vec!["--slow".into()],
            env: vec![("A".into(), "1".into())],
            mounts: vec![Mount {
                kind: MountKind::Volume { name: "data".into() },
                target: "/data".into(),
                read_only: true,
            }],
            ..ContainerSpec::default()
        },
        reservations: Resources { cpu_nanos: 500_000_000, memory_bytes: 64 << 20 },
        generic: [("gpu".to_owned(), 1)].into(),
        drain_timeout_ms: 5_000,
        ..TaskSpec::default()
    }
}

#[test]
fn assignments_read_and_write_as_ever() {
    let (_root, dir) = folder();
    let spec = Arc::new(spec());
    let task = |number: u64, desired| Assignment {
        task: TaskId(number),
        service: ServiceId(7),
        service_name: "web".into(),
        slot: 1,
        revision: 2,
        desired,
        withdrawn: 40,
        target_ports: vec![80, 8080],
        generic: vec![("gpu".into(), vec!["a".into()])],
        stop_after_ms: 30_000,
        spec: spec.clone(),
    };
    let tasks = [task(1, Desired::Running), task(2, Desired::Shutdown)];
    let tasks: BTreeMap<_, _> = tasks.map(|task| (task.task, Arc::new(task))).into();
    let table = Table { stamp: Stamp { term: 3, version: 41 }, tasks };
    let path = dir.assignments();
    frozen("assignments", &path, || store::save(&path, &table).unwrap());
    assert_eq!(store::load(&path).unwrap(), table);
}

#[test]
fn what_a_member_remembers_reads_and_writes_as_ever() {
    let (_root, dir) = folder();
    let member = Member {
        name: "worker-1".into(),
        boot: 3,
        managers: vec!["10.0.0.1:7100".into(), "10.0.0.2:7100".into()],
    };
    frozen("member.json", &dir.member(), || member.store(&dir).unwrap());
    assert_eq!(Member::load(&dir).unwrap(), Some(member));
}

#[test]
fn records_of_tasks_read_and_write_as_ever() {
    let (_root, dir) = folder();
    let folder = dir.task(TaskId(1));
    let ended = StatusReport {
        exit_code: Some(1),
        error: Some("it broke".into()),
        ..StatusReport::new(TaskId(1), Observed::Failed, 1_800_000_000_000)
    };
    let record = Record {
        created: true,
        ready: Some(false),
        doom: Some("the probe failed".into()),
        cut_off: true,
        ended: Some(ended),
    };
    frozen("record.json", &folder.join("record.json"), || record.store(&folder).unwrap());
    assert_eq!(Record::load(&folder), record);
    // As before the file said its version, and without what came later.
    fs::write(folder.join("record.json"), br#"{"created":true,"ended":null}"#).unwrap();
    assert_eq!(Record::load(&folder), Record { created: true, ..Record::default() });
    fs::write(folder.join("record.json"), br#"{"version":2,"created":true,"ended":null}"#).unwrap();
    assert_eq!(Record::load(&folder), Record::default(), "a newer record is not guessed at");
}

#[test]
fn endpoints_read_and_write_as_ever() {
    let (_root, dir) = folder();
    let backend = Backend {
        task_id: "t1".into(),
        node_id: "n1".into(),
        node_mesh_addr: SocketAddr::from(([10, 0, 0, 1], 7101)),
        target_port: 8080,
    };
    let port = PublishedPort {
        published: 80,
        service_id: "s1".into(),
        service_name: "web".into(),
        backends: vec![backend],
    };
    let endpoints = Endpoints { version: 41, ports: vec![port] };
    let path = dir.endpoints();
    frozen("endpoints", &path, || {
        fs::write(&path, endpoints::encode(&endpoints).unwrap()).unwrap();
    });
    assert_eq!(endpoints::load(&path), Some(endpoints));
}

/// Whatever else is in it: a newer release may have written fields of other shapes.
#[test]
fn files_of_a_newer_release_are_refused_by_name_with_the_way_out() {
    let (_root, dir) = folder();
    fs::write(dir.member(), br#"{"version": 2, "name": {"first": "a"}}"#).unwrap();
    let error = Member::load(&dir).unwrap_err();
    assert!(matches!(error, member::Error::UnknownVersion { found: 2, .. }), "{error}");
    says(&error.to_string(), &dir.member());

    let body = br#"{"version": 2, "stamp": 5}"#;
    let mut bytes = format!("{:08x}\n", crc32fast::hash(body)).into_bytes();
    bytes.extend_from_slice(body);
    fs::write(dir.assignments(), bytes).unwrap();
    let error = store::load(&dir.assignments()).unwrap_err();
    assert!(matches!(error, store::Error::UnknownVersion { found: 2, .. }), "{error}");
    says(&error.to_string(), &dir.assignments());
}

fn says(text: &str, path: &Path) {
    for part in [&*path.display().to_string(), "version 2", "knows version 1", "newer"] {
        assert!(text.contains(part), "does not say `{part}`: {text}");
    }
}
