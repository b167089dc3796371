mod sealed;

use std::path::Path;
use std::sync::mpsc;

use bytes::Bytes;

use super::*;
use crate::raft::config::Threads;
use crate::raft::disk::sim::{Loss, SimDisk};

const OWNER: Owner = Owner { cluster_id: 7, node_id: 1 };

fn small() -> LogSettings {
    LogSettings { segment_bytes: 4096, cache_bytes: 1024 }
}

fn dir() -> &'static Path {
    Path::new("/raft/log")
}

fn open(disk: &SimDisk) -> Result<(Log, LogThread), StorageError> {
    Log::open(Arc::new(disk.clone()), dir(), OWNER, small(), Threads::Own)
}

fn entry(index: u64, size: usize) -> LogEntry {
    let fill = u8::try_from(index % 250).unwrap() + 1;
    LogEntry {
        at: Position { term: 1, index },
        kind: EntryKind::Command,
        payload: Bytes::from(vec![fill; size]),
    }
}

/// Runs one operation and waits for its fate.
fn wait(start: impl FnOnce(Done) -> Result<(), StorageError>) -> Result<(), StorageError> {
    let (told, tell) = mpsc::channel();
    start(Box::new(move |result| told.send(result).unwrap()))?;
    tell.recv().unwrap()
}

fn append(log: &Log, entries: Vec<LogEntry>) {
    wait(|done| log.append(entries, done)).unwrap();
}

fn close(log: Log, thread: LogThread) {
    log.close();
    drop(log);
    thread.join();
}

fn all(log: &Log) -> Vec<LogEntry> {
    log.read(0..u64::MAX, usize::MAX).unwrap()
}

#[test]
fn what_was_acknowledged_is_there_after_power_loss() {
    let disk = SimDisk::default();
    let (log, _thread) = open(&disk).unwrap();
    let vote = Ballot { term: 3, node: 1, committed: true };
    wait(|done| log.save_vote(vote, done)).unwrap();
    append(&log, (0..100).map(|i| entry(i, 100)).collect());
    let (log, thread) = open(&disk.after_power_loss(Loss::All)).unwrap();
    assert_eq!(log.vote(), Some(vote));
    assert_eq!(all(&log), (0..100).map(|i| entry(i, 100)).collect::<Vec<_>>());
    close(log, thread);
}

#[test]
fn truncation_and_new_entries_survive() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    append(&log, (0..50).map(|i| entry(i, 200)).collect());
    wait(|done| log.truncate(30, done)).unwrap();
    let other = LogEntry { at: Position { term: 2, index: 30 }, ..entry(30, 10) };
    append(&log, vec![other.clone()]);
    close(log, thread);
    let (log, thread) = open(&disk).unwrap();
    assert_eq!(log.bounds().1, Some(Position { term: 2, index: 30 }));
    assert_eq!(all(&log).pop(), Some(other));
    close(log, thread);
}

#[test]
fn purge_removes_whole_segments_and_keeps_the_rest() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    let vote = Ballot { term: 9, node: 1, committed: false };
    wait(|done| log.save_vote(vote, done)).unwrap();
    append(&log, (0..200).map(|i| entry(i, 200)).collect());
    let before = disk.paths().len();
    let upto = Position { term: 1, index: 150 };
    wait(|done| log.purge(upto, done)).unwrap();
    close(log, thread);
    assert!(
        disk.paths().len() < before / 2,
        "{} of {before} segments are left",
        disk.paths().len()
    );
    let (log, thread) = open(&disk.after_power_loss(Loss::All)).unwrap();
    assert_eq!(log.bounds(), (Some(upto), Some(Position { term: 1, index: 199 })));
    assert_eq!(all(&log), (151..200).map(|i| entry(i, 200)).collect::<Vec<_>>());
    assert_eq!(log.vote(), Some(vote), "the vote's own segment is gone");
    // A snapshot from elsewhere may cover more than the log holds.
    let ahead = Position { term: 4, index: 1000 };
    wait(|done| log.purge(ahead, done)).unwrap();
    append(&log, vec![LogEntry { at: Position { term: 4, index: 1001 }, ..entry(0, 5) }]);
    close(log, thread);
    let (log, thread) = open(&disk.after_power_loss(Loss::All)).unwrap();
    assert_eq!(log.vote(), Some(vote));
    close(log, thread);
}

#[test]
fn an_entry_larger_than_a_segment_fits() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    append(&log, vec![entry(0, 10), entry(1, 20_000), entry(2, 10)]);
    close(log, thread);
    let (log, thread) = open(&disk).unwrap();
    assert_eq!(all(&log), vec![entry(0, 10), entry(1, 20_000), entry(2, 10)]);
    close(log, thread);
}

/// The bytes of three synced entries and of a batch of two more that was not.
fn with_unsynced_batch() -> SimDisk {
    let disk = SimDisk::default();
    let (log, _thread) = open(&disk).unwrap();
    append(&log, (0..3).map(|i| entry(i, 300)).collect());
    disk.fail_syncs_after(0);
    wait(|done| log.append(vec![entry(3, 700), entry(4, 300)], done)).unwrap_err();
    assert!(disk.unsynced_bytes() > 1000);
    disk
}

#[test]
fn a_write_torn_at_any_byte_is_cut_and_nothing_before_it() {
    let disk = with_unsynced_batch();
    for bytes in 0..=disk.unsynced_bytes() {
        let after = disk.after_power_loss(Loss::After(bytes));
        let (log, thread) = open(&after).unwrap_or_else(|error| panic!("{bytes} bytes: {error}"));
        let found = all(&log);
        assert!(found.len() >= 3, "{bytes} bytes: only {} entries are left", found.len());
        assert_eq!(
            found,
            (0..found.len() as u64)
                .map(|i| entry(i, if i == 3 { 700 } else { 300 }))
                .collect::<Vec<_>>()
        );
        // The log goes on where it was cut, and nothing of the torn write comes back.
        let next = found.len() as u64;
        append(&log, vec![entry(next, 40)]);
        close(log, thread);
        let (log, thread) = open(&after).unwrap();
        assert_eq!(all(&log).len() as u64, next + 1);
        close(log, thread);
    }
}

/// Killed between a write and its sync, started again, and then the power goes: what the second
/// start found, others may rely on.
#[test]
fn what_a_killed_writer_left_is_durable_once_the_log_is_open() {
    for forgets in [false, true] {
        let disk = SimDisk::default();
        let (log, thread) = open(&disk).unwrap();
        append(&log, (0..3).map(|i| entry(i, 300)).collect());
        if forgets {
            disk.forget_after_failed_syncs();
        }
        disk.fail_syncs_after(0);
        wait(|done| log.append(vec![entry(3, 700)], done)).unwrap_err();
        close(log, thread);
        disk.recover();
        let (log, thread) = open(&disk).unwrap();
        let found = all(&log);
        assert_eq!(found.len(), 4, "the bytes read well");
        let after = disk.after_power_loss(Loss::All);
        close(log, thread);
        let (log, thread) = open(&after).unwrap();
        assert_eq!(all(&log), found);
        close(log, thread);
    }
}

/// The same when the process dies between the seal of a full segment and its sync.
#[test]
fn a_seal_that_was_not_synced_is_durable_once_the_log_is_open() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    append(&log, (0..3).map(|i| entry(i, 300)).collect());
    disk.fail_syncs_after(0);
    // Too much for what is left of the segment.
    wait(|done| log.append(vec![entry(3, 300), entry(4, 4000)], done)).unwrap_err();
    close(log, thread);
    disk.recover();
    let (log, thread) = open(&disk).unwrap();
    let found = all(&log);
    let after = disk.after_power_loss(Loss::All);
    close(log, thread);
    let (log, thread) = open(&after).unwrap();
    assert_eq!(all(&log), found);
    close(log, thread);
}

#[test]
fn sectors_lost_from_an_unfinished_write_are_cut() {
    let disk = with_unsynced_batch();
    for seed in 1..300 {
        let (log, thread) = open(&disk.after_power_loss(Loss::Sectors(seed)))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(all(&log).len() >= 3, "seed {seed}");
        close(log, thread);
    }
}

#[test]
fn a_flipped_bit_is_an_error_that_names_file_and_place() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    for i in 0..6 {
        append(&log, vec![entry(i, 100)]);
    }
    close(log, thread);
    let path = segment::path_of(dir(), 1);
    let end = disk.bytes(&path).iter().rposition(|byte| *byte != 0).unwrap();
    for at in (0..=end).filter(|at| !(128..512).contains(at)) {
        let copy = disk.after_power_loss(Loss::All);
        copy.tamper(&path, |bytes| bytes[at] ^= 1 << (at % 8));
        match open(&copy).map(|_| ()) {
            Err(StorageError::Damaged { path: named, offset, .. }) => {
                assert_eq!(named, path);
                let record = (HEADER_AND_BODY) as u64;
                assert!(
                    offset <= at as u64 && at as u64 <= offset + record.max(512),
                    "bit in {at}, named {offset}"
                );
            }
            other => panic!("a flipped bit at {at} gave {other:?}"),
        }
    }
}

const HEADER_AND_BODY: usize = 16 + 18 + 100 + 1;

#[test]
fn damage_that_looks_like_a_lost_sector_is_known_by_what_came_after() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    let zeros = LogEntry { payload: Bytes::from(vec![0; 1500]), ..entry(0, 0) };
    append(&log, vec![zeros]);
    append(&log, vec![entry(1, 10)]);
    close(log, thread);
    disk.tamper(&segment::path_of(dir(), 1), |bytes| bytes[545] ^= 1);
    let error = open(&disk).map(|_| ()).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { offset: 512, .. }), "{error}");
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_an_error() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    append(&log, (0..100).map(|i| entry(i, 100)).collect());
    close(log, thread);
    let path = segment::path_of(dir(), 2);
    for at in (512..3900).step_by(37) {
        let copy = disk.after_power_loss(Loss::All);
        copy.tamper(&path, |bytes| bytes[at] ^= 0x10);
        assert!(matches!(open(&copy).map(|_| ()), Err(StorageError::Damaged { .. })), "at {at}");
    }
}

#[test]
fn a_bit_that_flips_while_running_is_never_served() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    append(&log, (0..40).map(|i| entry(i, 100)).collect());
    // The first entries are no longer in memory.
    disk.tamper(&segment::path_of(dir(), 1), |bytes| bytes[600] ^= 1);
    let error = log.read(0..1, usize::MAX).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { offset: 512, .. }), "{error}");
    close(log, thread);
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_ends_the_log() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    append(&log, vec![entry(0, 10)]);
    let failure = log.failure();
    disk.fail_syncs_after(0);
    let error = wait(|done| log.append(vec![entry(1, 10)], done)).unwrap_err();
    assert!(matches!(error, StorageError::Stopped { .. }));
    // Even if the disk works again: nobody knows what it dropped.
    disk.fail_syncs_after(1000);
    assert!(wait(|done| log.append(vec![entry(2, 10)], done)).is_err());
    let reason = failure.borrow().clone().unwrap();
    assert!(reason.contains("00000000000000000001.log"), "{reason}");
    drop(log);
    thread.join();
    let (log, thread) = open(&disk.after_power_loss(Loss::All)).unwrap();
    assert_eq!(all(&log), vec![entry(0, 10)]);
    close(log, thread);
}

#[test]
fn a_full_disk_acknowledges_nothing_and_ends_the_log() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    disk.limit_space(5000);
    let mut acknowledged = 0;
    let reason = loop {
        match wait(|done| log.append(vec![entry(acknowledged, 500)], done)) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error.chain(),
        }
        assert!(acknowledged < 100, "the disk never filled");
    };
    assert!(reason.contains("No space left"), "{reason}");
    drop(log);
    thread.join();
    let (log, thread) = open(&disk.after_power_loss(Loss::All)).unwrap();
    assert_eq!(all(&log).len() as u64, acknowledged);
    close(log, thread);
}

#[test]
fn other_folders_are_refused_by_name() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    append(&log, vec![entry(0, 10)]);
    close(log, thread);
    let try_open =
        |owner| Log::open(Arc::new(disk.clone()), dir(), owner, small(), Threads::Own).map(|_| ());
    let foreign = try_open(Owner { cluster_id: 8, ..OWNER });
    assert!(
        matches!(foreign, Err(StorageError::OtherCluster { found: 7, expected: 8, .. })),
        "{foreign:?}"
    );
    let other = try_open(Owner { node_id: 2, ..OWNER });
    assert!(
        matches!(other, Err(StorageError::OtherNode { found: 1, expected: 2, .. })),
        "{other:?}"
    );

    let path = segment::path_of(dir(), 1);
    let newer = disk.after_power_loss(Loss::All);
    newer.tamper(&path, |bytes| {
        bytes[12] = 3;
        let sum = crc32fast::hash(&bytes[12..512]);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    });
    assert!(matches!(open(&newer).map(|_| ()), Err(StorageError::NewerVersion { found: 3, .. })));

    let cut = disk.after_power_loss(Loss::All);
    cut.tamper(&path, |bytes| bytes.truncate(2000));
    assert!(matches!(open(&cut).map(|_| ()), Err(StorageError::CutShort { len: 2000, .. })));
}

#[test]
fn a_missing_segment_is_an_error() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    append(&log, (0..100).map(|i| entry(i, 100)).collect());
    close(log, thread);
    for number in 1..=2 {
        let copy = disk.after_power_loss(Loss::All);
        copy.remove(&segment::path_of(dir(), number)).unwrap();
        let error = open(&copy).map(|_| ()).unwrap_err();
        assert!(matches!(error, StorageError::Missing { .. }), "without {number}: {error}");
    }
}

#[test]
fn waiting_appends_share_a_sync() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    let before = disk.syncs();
    let (told, tell) = mpsc::channel();
    for i in 0..2000 {
        let told = told.clone();
        log.append(vec![entry(i, 1)], Box::new(move |result| told.send(result).unwrap())).unwrap();
    }
    for _ in 0..2000 {
        tell.recv().unwrap().unwrap();
    }
    let syncs = disk.syncs() - before;
    assert!(syncs < 1000, "2000 appends took {syncs} syncs");
    close(log, thread);
}

#[test]
fn marks_are_kept_without_a_sync_of_their_own() {
    let disk = SimDisk::default();
    let (log, thread) = open(&disk).unwrap();
    append(&log, (0..10).map(|i| entry(i, 10)).collect());
    let before = disk.syncs();
    log.save_committed(Position { term: 1, index: 8 }).unwrap();
    append(&log, vec![entry(10, 10)]);
    assert_eq!(disk.syncs() - before, 1);
    close(log, thread);
    let (log, thread) = open(&disk).unwrap();
    assert_eq!(log.committed(), Some(Position { term: 1, index: 8 }));
    close(log, thread);
}
