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

mod sealed {
    use super::*;
    use crate::raft::cipher::{DataKey, Keyring};

    fn keys() -> Keyring {
        Keyring::new(DataKey::generate(), Vec::new())
    }

    fn open_with(disk: &SimDisk, keys: &Keyring) -> Result<SnapshotStore, StorageError> {
        SnapshotStore::open_with(Arc::new(disk.clone()), dir(), 7, Some(keys.clone()))
    }

    fn written(keys: &Keyring, state: &State) -> SimDisk {
        let disk = SimDisk::default();
        open_with(&disk, keys).unwrap().write(&meta_at(2, 900), state).unwrap();
        disk
    }

    fn same(a: &State, b: &State) {
        assert_eq!(codec::encode(a).unwrap(), codec::encode(b).unwrap());
    }

    #[test]
    fn it_reads_back_and_every_flipped_bit_or_lost_byte_is_found() {
        let (keys, state) = (keys(), big_state(3000));
        let disk = written(&keys, &state);
        let path = disk.paths().pop().unwrap();
        let read = |disk: &SimDisk| {
            let store = open_with(disk, &keys)?;
            let (_, file) = store.current().unwrap();
            store.read(&file).map(|(_, state)| state)
        };
        same(&read(&disk.after_power_loss(Loss::All)).unwrap(), &state);
        let len = disk.bytes(&path).len();
        for at in (0..len).step_by(13) {
            let copy = disk.after_power_loss(Loss::All);
            copy.tamper(&path, |bytes| bytes[at] ^= 4);
            let error = read(&copy).unwrap_err();
            assert!(error.to_string().contains("00000000000000000900"), "at {at}: {error}");
        }
        for keep in [0, 10, 40, len / 2, len - 8, len - 1] {
            let copy = disk.after_power_loss(Loss::All);
            copy.tamper(&path, |bytes| bytes.truncate(keep));
            assert!(matches!(read(&copy), Err(StorageError::CutShort { .. })), "kept {keep}");
        }
        let other = SnapshotStore::open(Arc::new(disk), dir(), 7).map(|_| ());
        assert!(matches!(other, Err(StorageError::NoKey { .. })), "{other:?}");
    }

    /// As between managers: each has keys of its own, or none.
    #[test]
    fn it_travels_in_the_clear_and_rests_encrypted() {
        let (ours, theirs) = (keys(), keys());
        // One that fits a block, and one of several.
        let noise = |count: u64| {
            let mut state = State::default();
            for number in 1..=count {
                let name: String =
                    (0..60).map(|_| char::from(b'a' + rand::random::<u8>() % 26)).collect();
                let id = cluster_model::NodeId(number);
                let command = cluster_model::Command::RegisterNode { id, name, at_ms: number };
                cluster_model::apply(&mut state, number, &command).reply.unwrap();
            }
            state
        };
        for (state, blocks) in [(State::default(), 1), (noise(20_000), 3)] {
            let disk = written(&ours, &state);
            let store = open_with(&disk, &ours).unwrap();
            let (meta, file) = store.current().unwrap();
            assert!(file.len as usize > (blocks - 1) * blocks::BLOCK, "{}", file.len);
            let plain = store.plain(file).unwrap();
            let mut bytes = vec![0; plain.len as usize];
            plain.file.read_at(&mut bytes, 0).unwrap();
            assert!(plain.file.read_at(&mut [0], plain.len).is_err());
            for chunk in [1000, 300_000, 3_000_000] {
                let mut pieces = vec![0; plain.len as usize];
                for (at, piece) in pieces.chunks_mut(chunk).enumerate() {
                    plain.file.read_at(piece, (at * chunk) as u64).unwrap();
                }
                assert!(pieces == bytes, "in pieces of {chunk}");
                let disk = SimDisk::default();
                let store = open_with(&disk, &theirs).unwrap();
                let mut incoming = store.receive().unwrap();
                bytes.chunks(chunk).for_each(|chunk| incoming.write(chunk).unwrap());
                assert_eq!(incoming.len(), plain.len);
                let file = incoming.finish().unwrap();
                let file = store.adopt(&meta, file).unwrap();
                let (read_meta, read) = store.read(&file).unwrap();
                assert_eq!(read_meta, meta);
                same(&read, &state);
                assert_eq!(store.key_id().unwrap(), Some(Some(theirs.current().id())));
            }
            // A manager without keys takes it as it comes.
            let store = open(&SimDisk::default()).unwrap();
            let mut incoming = store.receive().unwrap();
            incoming.write(&bytes).unwrap();
            same(&store.read(&incoming.finish().unwrap()).unwrap().1, &state);
            // Damage on the way, more than there is, less than there is.
            for damage in 0..3 {
                let mut bytes = bytes.clone();
                let middle = bytes.len() - 12;
                match damage {
                    0 => bytes[middle] ^= 1,
                    1 => bytes.push(0),
                    _ => bytes.truncate(middle),
                }
                let disk = SimDisk::default();
                let store = open_with(&disk, &theirs).unwrap();
                let mut incoming = store.receive().unwrap();
                let taken = incoming.write(&bytes).and_then(|()| incoming.finish().map(|_| ()));
                assert!(taken.is_err(), "damage {damage}");
                assert!(disk.paths().is_empty(), "the refused file was left behind");
            }
        }
    }
}
