use std::path::Path;

use super::*;
use crate::raft::disk::sim::{Loss, SimDisk};
use crate::raft::tests::fixture::{big_state, meta_at};

fn dir() -> &'static Path {
    Path::new("/raft/snapshots")
}

fn open(disk: &SimDisk) -> Result<SnapshotStore, StorageError> {
    SnapshotStore::open(Arc::new(disk.clone()), dir(), 7)
}

fn written() -> (SimDisk, State) {
    let disk = SimDisk::default();
    let state = big_state(3000);
    let store = open(&disk).unwrap();
    store.write(&meta_at(1, 5), &State::default()).unwrap();
    store.write(&meta_at(2, 900), &state).unwrap();
    (disk, state)
}

#[test]
fn the_newest_snapshot_is_there_after_power_loss_and_older_ones_are_not() {
    let (disk, state) = written();
    let store = open(&disk.after_power_loss(Loss::All)).unwrap();
    let (meta, file) = store.current().unwrap();
    assert_eq!(meta, meta_at(2, 900));
    let (_, read) = store.read(&file).unwrap();
    assert_eq!(codec::encode(&read).unwrap(), codec::encode(&state).unwrap());
    assert_eq!(disk.paths().len(), 1);
}

#[test]
fn every_flipped_bit_is_found_and_named() {
    let (disk, _) = written();
    let path = disk.paths().pop().unwrap();
    let len = disk.bytes(&path).len();
    for at in (0..len).step_by(13) {
        let copy = disk.after_power_loss(Loss::All);
        copy.tamper(&path, |bytes| bytes[at] ^= 4);
        let found = open(&copy).and_then(|store| {
            let (_, file) = store.current().unwrap();
            store.read(&file)
        });
        let error = found.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("00000000000000000900"), "at {at}: {error}");
    }
}

#[test]
fn a_snapshot_cut_short_or_of_others_is_refused() {
    let (disk, _) = written();
    let path = disk.paths().pop().unwrap();
    let len = disk.bytes(&path).len();
    for keep in [0, 10, 40, len / 2, len - 8, len - 1] {
        let copy = disk.after_power_loss(Loss::All);
        copy.tamper(&path, |bytes| bytes.truncate(keep));
        let found = open(&copy).and_then(|store| {
            let (_, file) = store.current().unwrap();
            store.read(&file)
        });
        assert!(matches!(found.map(|_| ()), Err(StorageError::CutShort { .. })), "kept {keep}");
    }
    let foreign = SnapshotStore::open(Arc::new(disk), dir(), 8).map(|_| ());
    assert!(matches!(foreign, Err(StorageError::OtherCluster { found: 7, expected: 8, .. })));
}

#[test]
fn a_received_snapshot_is_checked_before_it_is_used() {
    let (disk, _) = written();
    let path = disk.paths().pop().unwrap();
    let mut bytes = disk.bytes(&path);
    let store = open(&SimDisk::default()).unwrap();
    let mut incoming = store.receive().unwrap();
    bytes.chunks(1000).for_each(|chunk| incoming.write(chunk).unwrap());
    let file = incoming.finish().unwrap();
    store.adopt(&meta_at(2, 900), file).unwrap();
    assert!(store.current().is_some());

    let last = bytes.len() / 2;
    bytes[last] ^= 1;
    let disk = SimDisk::default();
    let store = open(&disk).unwrap();
    let mut incoming = store.receive().unwrap();
    incoming.write(&bytes).unwrap();
    assert!(incoming.finish().is_err());
    assert!(disk.paths().is_empty(), "the refused file was left behind");
}
