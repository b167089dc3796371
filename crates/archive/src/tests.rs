use std::collections::BTreeMap;
use std::path::Path;

use cluster_model::cluster::{Cluster, Secret};
use cluster_model::{Command, Manager, NodeId, State};

use super::*;

fn state(nodes: u64) -> State {
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
    for number in 2..2 + nodes {
        let name = format!("n{number}-{}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let join = Command::RegisterNode { id: NodeId(number), name, at_ms: number };
        cluster_model::apply(&mut state, number, &join).reply.unwrap();
    }
    state
}

fn file(nodes: u64) -> (Header, State, Vec<u8>) {
    let state = state(nodes);
    let header = Header::of(&state, (3, 1 + nodes), 9, "0.1.0").unwrap();
    let mut bytes = Vec::new();
    write(&header, &state, &mut bytes).unwrap();
    (header, state, bytes)
}

#[test]
fn what_is_written_is_read_again_with_the_same_hash() {
    // The larger one takes several blocks.
    for nodes in [0, 3, 40_000] {
        let (header, state, bytes) = file(nodes);
        let (read_header, read_state) = read(bytes.as_slice()).unwrap();
        assert_eq!((&read_header, &read_state), (&header, &state));
        assert_eq!(state_hash(&read_state).unwrap(), header.state_hash);
        assert_eq!(super::read_header(bytes.as_slice()).unwrap(), header);
    }
}

#[test]
fn other_states_have_other_hashes() {
    assert_ne!(state_hash(&state(1)).unwrap(), state_hash(&state(2)).unwrap());
}

#[test]
fn any_flipped_bit_and_any_cut_is_noticed() {
    let (_, _, bytes) = file(20);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(read(flipped.as_slice()).is_err(), "a flip at {at} of {}", bytes.len());
        assert!(read(&bytes[..at]).is_err(), "a cut at {at}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(read(longer.as_slice()), Err(Error::Damaged { .. })));
    assert!(matches!(read(&b"hello"[..]), Err(Error::NotASnapshot)));
    assert!(matches!(read(&bytes[..12]), Err(Error::CutShort { .. })));
}

#[test]
fn a_newer_format_is_named() {
    let (_, _, mut bytes) = file(0);
    bytes[8] = 2;
    let len = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let mut sum = crc32fast::Hasher::new();
    sum.update(&bytes[8..16]);
    sum.update(&bytes[20..20 + len]);
    bytes[16..20].copy_from_slice(&sum.finalize().to_le_bytes());
    let error = read(bytes.as_slice()).unwrap_err();
    assert!(error.to_string().contains("newer"), "{error}");
}

/// What this release writes, every later one must read. `UPDATE_GOLDEN=1` writes the file anew.
#[test]
fn a_frozen_file_reads_as_ever() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshot-1.hex");
    let (header, state, bytes) = file(3);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, hex::encode(&bytes)).unwrap();
    }
    let frozen = hex::decode(std::fs::read_to_string(&path).unwrap().trim()).unwrap();
    let (read_header, read_state) = read(frozen.as_slice()).unwrap();
    assert_eq!((read_header, read_state), (header, state));
}
