//! Frozen bytes: what this release writes to the log and to snapshots, every later one must read.
//!
//! The files of tests/golden hold one line for each value: a name and its bytes in hexadecimal. A
//! value that was changed on purpose gets a new format version and new lines; lines of a release
//! stay. `UPDATE_GOLDEN=1 cargo test -p cluster-manager golden` writes the files anew.

mod samples;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use cluster_model::State;
use cluster_model::command::COMMANDS;

use super::cipher::{DataKey, KEY, Keyring};
use super::codec;
use super::config::Threads;
use super::disk::Disk;
use super::disk::sim::SimDisk;
use super::error::StorageError;
use super::log::record::{self, Record, Spot};
use super::log::{Ballot, Done, EntryKind, Log, LogEntry, LogSettings, Owner, Position};
use super::snapshot::SnapshotStore;
use super::tests::fixture::meta_at;
use super::types::Membership;

/// Where the frozen records stand.
const SPOT: Spot = Spot { segment: 3, offset: 512 };

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd number of digits");
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

/// The frozen bytes by name. With UPDATE_GOLDEN, what is written now becomes frozen.
fn frozen(file: &str, now: &[(String, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
    let path = path(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let lines: String =
            now.iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
        std::fs::write(&path, lines).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let frozen: BTreeMap<_, _> = text
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, bytes)| (name.to_owned(), unhex(bytes)))
        .collect();
    let names: Vec<&String> = now.iter().map(|(name, _)| name).collect();
    for name in frozen.keys() {
        assert!(names.contains(&name), "{file}: `{name}` is frozen but no longer written");
    }
    for name in names {
        assert!(
            frozen.contains_key(name),
            "{file}: `{name}` is not frozen yet; run again with UPDATE_GOLDEN=1"
        );
    }
    frozen
}

#[test]
fn commands_read_and_write_as_ever() {
    let samples = samples::commands();
    let now: Vec<_> = samples
        .iter()
        .map(|(name, command)| (name.clone(), codec::encode_command(command).unwrap().to_vec()))
        .collect();
    let frozen = frozen("commands.hex", &now);
    for (name, command) in &samples {
        let bytes = &frozen[name];
        let read = codec::decode_command(bytes, COMMANDS)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read, *command, "{name} reads as something else");
        assert_eq!(
            hex(&codec::encode_command(&read).unwrap()),
            hex(bytes),
            "{name} is written otherwise"
        );
    }
}

#[test]
fn every_kind_of_command_is_frozen() {
    let kinds: std::collections::BTreeSet<usize> =
        samples::commands().iter().map(|(_, command)| samples::kind(command)).collect();
    assert_eq!(kinds, (0..samples::KINDS).collect());
}

#[test]
fn members_and_what_a_snapshot_covers_read_and_write_as_ever() {
    let meta = meta_at(3, 41);
    let members = meta.last_membership.membership().clone();
    let now = [
        ("members".to_owned(), codec::encode(&members).unwrap().to_vec()),
        ("snapshot-meta".to_owned(), codec::encode(&meta).unwrap().to_vec()),
    ];
    let frozen = frozen("consensus.hex", &now);
    let read: Membership = codec::decode(&frozen["members"]).unwrap();
    assert_eq!(read, members);
    let read: super::types::SnapshotMeta = codec::decode(&frozen["snapshot-meta"]).unwrap();
    assert_eq!(read, meta);
    for (name, bytes) in now {
        assert_eq!(hex(&frozen[&name]), hex(&bytes), "{name} is written otherwise");
    }
}

/// The frozen commands make the frozen state, so `apply` is frozen with it: managers of two
/// releases that apply the same log must agree to the bit.
#[test]
fn the_state_reads_and_writes_as_ever_and_apply_makes_it() {
    let state = samples::state();
    let now = [("state".to_owned(), codec::encode(&state).unwrap().to_vec())];
    let frozen = frozen("state.hex", &now);
    let bytes = &frozen["state"];
    let read: State = codec::decode(bytes).unwrap();
    assert_eq!(hex(&codec::encode(&read).unwrap()), hex(bytes), "the state is written otherwise");
    assert_eq!(hex(&now[0].1), hex(bytes), "apply makes another state of the same commands");
}

#[test]
fn snapshot_files_read_as_ever() {
    let dir = Path::new("/raft/snapshots");
    let state = samples::state();
    let disk = SimDisk::default();
    let store = SnapshotStore::open(Arc::new(disk.clone()), dir, 7).unwrap();
    let file = store.write(&meta_at(3, 41), &state).unwrap();
    let now = [("snapshot".to_owned(), disk.bytes(&file.path))];
    // Compression may differ from release to release; the file must only be readable.
    let frozen = frozen("snapshot.hex", &now);
    let disk = SimDisk::default();
    put(&disk, &file.path, &frozen["snapshot"]);
    let store = SnapshotStore::open(Arc::new(disk), dir, 7).unwrap();
    let (meta, file) = store.current().unwrap();
    assert_eq!(meta, meta_at(3, 41));
    let (_, read) = store.read(&file).unwrap();
    assert_eq!(codec::encode(&read).unwrap(), codec::encode(&state).unwrap());
}

fn put(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = disk.create(path, bytes.len() as u64).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(path.parent().unwrap()).unwrap();
}

fn records() -> Vec<(&'static str, Record)> {
    let at = Position { term: 3, index: 41 };
    let payload = codec::encode(&samples::commands()[0].1).unwrap();
    let entry = |kind, payload| Record::Entry(LogEntry { at, kind, payload });
    vec![
        ("blank", entry(EntryKind::Blank, Default::default())),
        ("command", entry(EntryKind::Command, payload)),
        ("members", entry(EntryKind::Members, vec![1, 2, 3].into())),
        ("vote", Record::Vote(Ballot { term: 3, node: 5, committed: true })),
        ("truncate", Record::Truncate(40)),
        ("committed", Record::Committed(at)),
        ("purge", Record::Purge(at)),
        ("seal", Record::Seal),
    ]
}

#[test]
fn records_of_the_log_read_and_write_as_ever() {
    let bytes = |record: &Record| {
        let mut bytes = Vec::new();
        record.encode(512, SPOT, None, &mut bytes);
        bytes
    };
    let now: Vec<_> =
        records().iter().map(|(name, record)| ((*name).to_owned(), bytes(record))).collect();
    let frozen = frozen("records.hex", &now);
    for (name, record) in records() {
        let (read, end) = record::read(&frozen[name], SPOT, None).unwrap();
        assert_eq!((read, end), (record.clone(), frozen[name].len()), "{name}");
        assert_eq!(hex(&bytes(&record)), hex(&frozen[name]), "{name} is written otherwise");
    }
}

/// The data key of the frozen encrypted files.
fn frozen_keys() -> Keyring {
    Keyring::new(DataKey::new(0x0123_4567_89ab_cdef, [0x42; KEY]), Vec::new())
}

/// What is sealed differs from time to time; it must only be readable with the key.
#[test]
fn encrypted_files_read_as_ever() {
    let (log_dir, dir) = (Path::new("/raft/log"), Path::new("/raft/snapshots"));
    let settings = LogSettings { segment_bytes: 2048, cache_bytes: 1024 };
    let open_log = |disk: &SimDisk| {
        let keys = Some(frozen_keys());
        Log::open_with(Arc::new(disk.clone()), log_dir, OWNER, settings, Threads::Own, keys)
            .unwrap()
    };
    let vote = Ballot { term: 3, node: 1, committed: true };
    let disk = SimDisk::default();
    let (log, thread) = open_log(&disk);
    wait(|done| log.save_vote(vote, done));
    for entry in entries() {
        wait(|done| log.append(vec![entry], done));
    }
    log.close();
    drop(log);
    thread.join();
    let log_path = disk.paths().remove(0);
    let segment = disk.bytes(&log_path);
    let state = samples::state();
    let open_store = |disk: &SimDisk| {
        let disk = Arc::new(disk.clone());
        SnapshotStore::open_with(disk, dir, 7, Some(frozen_keys())).unwrap()
    };
    let file = open_store(&disk).write(&meta_at(3, 41), &state).unwrap();
    let snapshot = disk.bytes(&file.path);
    let now = [("segment".to_owned(), segment), ("snapshot".to_owned(), snapshot)];
    let frozen = frozen("encrypted.hex", &now);

    let disk = SimDisk::default();
    put(&disk, &log_path, &frozen["segment"]);
    put(&disk, &file.path, &frozen["snapshot"]);
    let (log, thread) = open_log(&disk);
    assert_eq!(log.vote(), Some(vote));
    assert_eq!(log.read(0..u64::MAX, usize::MAX).unwrap(), entries());
    log.close();
    drop(log);
    thread.join();
    let store = open_store(&disk);
    let (meta, file) = store.current().unwrap();
    assert_eq!(meta, meta_at(3, 41));
    let (_, read) = store.read(&file).unwrap();
    assert_eq!(codec::encode(&read).unwrap(), codec::encode(&state).unwrap());
}

const OWNER: Owner = Owner { cluster_id: 7, node_id: 1 };

fn open(disk: &SimDisk) -> Result<(Log, super::log::LogThread), StorageError> {
    let settings = LogSettings { segment_bytes: 2048, cache_bytes: 1024 };
    Log::open(Arc::new(disk.clone()), Path::new("/raft/log"), OWNER, settings, Threads::Own)
}

/// Runs one operation and waits for its fate.
fn wait(start: impl FnOnce(Done) -> Result<(), StorageError>) {
    let (told, tell) = mpsc::channel();
    start(Box::new(move |result| told.send(result).unwrap())).unwrap();
    tell.recv().unwrap().unwrap();
}

fn entries() -> Vec<LogEntry> {
    (0..3)
        .map(|index| LogEntry {
            at: Position { term: 3, index },
            kind: EntryKind::Command,
            payload: codec::encode(&super::tests::fixture::write(index)).unwrap(),
        })
        .collect()
}

#[test]
fn a_segment_of_the_log_reads_and_writes_as_ever() {
    let vote = Ballot { term: 3, node: 1, committed: true };
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    wait(|done| log.save_vote(vote, done));
    for entry in entries() {
        wait(|done| log.append(vec![entry], done));
    }
    log.close();
    drop(log);
    thread.join();
    let path = disk.paths().remove(0);
    let now = [("segment".to_owned(), disk.bytes(&path))];
    let frozen = frozen("segment.hex", &now);
    assert_eq!(hex(&now[0].1), hex(&frozen["segment"]), "a segment is written otherwise");
    let disk = SimDisk::default();
    put(&disk, &path, &frozen["segment"]);
    let (log, thread) = open(&disk).unwrap();
    assert_eq!(log.vote(), Some(vote));
    assert_eq!(log.read(0..u64::MAX, usize::MAX).unwrap(), entries());
    log.close();
    drop(log);
    thread.join();
}
