use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use cluster_model::cluster::{Cluster, Secret};
use cluster_model::{Command, Manager, NodeId, State};
use cluster_pb::control::v1 as pb;
use cluster_pb::control::v1::save_snapshot_response::Part;

use crate::testing::fake::{FakeManager, Script};
use crate::testing::{Ran, ca, clusterctl, context};

fn file() -> Vec<u8> {
    let manager = Manager { name: "m1".into(), address: "10.0.0.1:7100".into(), joined_at_ms: 5 };
    let cluster = Cluster {
        name: "prod".into(),
        created_at_ms: 5,
        ca_certificate: "certificate".into(),
        ca_key: Secret::new("key".into()),
        worker_token: Secret::new("worker".into()),
        manager_token: Secret::new("manager".into()),
        managers: BTreeMap::from([(NodeId(1), manager)]),
        ..cluster_model::testing::cluster(7)
    };
    let mut state = State::default();
    cluster_model::apply(&mut state, 1, &Command::Bootstrap(Box::new(cluster))).reply.unwrap();
    let header = cluster_archive::Header::of(&state, (3, 41), 9, "0.1.0").unwrap();
    let mut bytes = Vec::new();
    cluster_archive::write(&header, &state, &mut bytes).unwrap();
    bytes
}

fn parts(bytes: &[u8], sum: Option<u64>) -> Script {
    let part = |part| pb::SaveSnapshotResponse { part: Some(part) };
    let mut snapshot: Vec<_> =
        bytes.chunks(100).map(|chunk| part(Part::Chunk(chunk.to_vec()))).collect();
    snapshot.extend(sum.map(|bytes| part(Part::Sum(pb::SnapshotSum { bytes }))));
    Script { snapshot, ..Default::default() }
}

fn run(script: Script, words: &[&str]) -> Ran {
    let ca = ca("c1");
    let manager = FakeManager::start(&ca, script);
    let context = context(&ca, "test", vec![manager.address.to_string()]);
    clusterctl(&context, words)
}

#[test]
fn a_snapshot_is_saved_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.snapshot");
    let name = path.to_str().unwrap();
    let bytes = file();
    let whole = bytes.len() as u64;
    let mut damaged = bytes.clone();
    let last = damaged.len() - 20;
    damaged[last] ^= 1;
    for (script, says) in [
        (parts(&bytes, None), "ended before it was whole"),
        (parts(&bytes[..50], Some(whole)), "50 of"),
        (parts(&damaged, Some(whole)), "damaged"),
    ] {
        let ran = run(script, &["cluster", "snapshot", "save", name]);
        assert!(ran.code != 0 && ran.err.contains(says), "{says}: {}", ran.err);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something was left");
    }
    let ran = run(parts(&bytes, Some(whole)), &["cluster", "snapshot", "save", name]);
    assert_eq!((ran.code, ran.out), (0, format!("{name}\n")), "{}", ran.err);
    assert!(ran.err.contains("index 41") && ran.err.contains("CA's key"), "{}", ran.err);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let ran = run(parts(&bytes, Some(whole)), &["cluster", "snapshot", "save", name]);
    assert!(ran.code == 1 && ran.err.contains("--force"), "{}", ran.err);

    // No cluster is asked.
    let ran = run(
        Script { silent: true, ..Default::default() },
        &["cluster", "snapshot", "inspect", name],
    );
    assert_eq!(ran.code, 0, "{}", ran.err);
    for text in ["prod (id ", "3, 41", "m1", "whole"] {
        assert!(ran.out.contains(text), "{text}: {}", ran.out);
    }
    std::fs::write(&path, &damaged).unwrap();
    let ran = run(Script::default(), &["cluster", "snapshot", "inspect", name]);
    assert!(ran.code == 1 && ran.err.contains("damaged at offset"), "{}", ran.err);
}
