//! The log's promises, once more for encrypted segments, and what encryption adds.

use super::*;
use crate::raft::cipher::{DataKey, Keyring};

fn keys() -> Keyring {
    Keyring::new(DataKey::generate(), Vec::new())
}

fn open_with(disk: &SimDisk, keys: &Keyring) -> Result<(Log, LogThread), StorageError> {
    Log::open_with(Arc::new(disk.clone()), dir(), OWNER, small(), Threads::Own, Some(keys.clone()))
}

fn secret(index: u64) -> LogEntry {
    LogEntry { payload: Bytes::from(format!("top secret {index}").repeat(9)), ..entry(index, 0) }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn nothing_of_an_entry_is_on_disk_in_the_clear_and_all_of_it_reads_back() {
    let (disk, keys) = (SimDisk::default(), keys());
    let (log, thread) = open_with(&disk, &keys).unwrap();
    append(&log, (0..100).map(secret).collect());
    // The first of them are no longer in memory.
    assert_eq!(all(&log), (0..100).map(secret).collect::<Vec<_>>());
    close(log, thread);
    assert!(disk.paths().len() > 2);
    for path in disk.paths() {
        assert!(!contains(&disk.bytes(&path), b"secret"), "{}", path.display());
    }
    let (log, thread) = open_with(&disk.after_power_loss(Loss::All), &keys).unwrap();
    assert_eq!(all(&log), (0..100).map(secret).collect::<Vec<_>>());
    close(log, thread);
}

#[test]
fn a_torn_tail_is_cut_at_any_byte_and_the_log_goes_on_there() {
    let (disk, keys) = (SimDisk::default(), keys());
    let (log, _thread) = open_with(&disk, &keys).unwrap();
    append(&log, (0..3).map(|i| entry(i, 300)).collect());
    disk.fail_syncs_after(0);
    wait(|done| log.append(vec![entry(3, 700), entry(4, 300)], done)).unwrap_err();
    assert!(disk.unsynced_bytes() > 1000);
    let losses = (0..=disk.unsynced_bytes()).map(Loss::After);
    for loss in losses.chain((0..200).map(Loss::Sectors)) {
        let after = disk.after_power_loss(loss);
        let (log, thread) = open_with(&after, &keys).unwrap_or_else(|e| panic!("{loss:?}: {e}"));
        let found = all(&log);
        assert!(found.len() >= 3, "{loss:?}: only {} entries are left", found.len());
        append(&log, vec![entry(found.len() as u64, 40)]);
        close(log, thread);
        let (log, thread) = open_with(&after, &keys).unwrap();
        assert_eq!(all(&log).len(), found.len() + 1, "{loss:?}");
        close(log, thread);
    }
}

#[test]
fn a_flipped_bit_is_an_error_that_names_file_and_offset() {
    let (disk, keys) = (SimDisk::default(), keys());
    let (log, thread) = open_with(&disk, &keys).unwrap();
    append(&log, (0..100).map(|i| entry(i, 100)).collect());
    close(log, thread);
    let path = segment::path_of(dir(), 2);
    for at in (0..3900).step_by(37) {
        let copy = disk.after_power_loss(Loss::All);
        copy.tamper(&path, |bytes| bytes[at] ^= 0x10);
        let error = open_with(&copy, &keys).map(|_| ()).unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }), "at {at}: {error}");
        assert!(error.to_string().contains("00000000000000000002.log"), "{error}");
    }
}

/// Whoever can write to the disk can make checksums right, but nothing that authenticates.
#[test]
fn records_that_were_forged_or_moved_are_refused() {
    let (disk, keys) = (SimDisk::default(), keys());
    let (log, thread) = open_with(&disk, &keys).unwrap();
    append(&log, vec![entry(0, 100)]);
    append(&log, vec![entry(1, 100)]);
    close(log, thread);
    let path = segment::path_of(dir(), 1);
    let size = record::entry_size(100);
    disk.tamper(&path, |bytes| {
        let (one, two) = (512, 512 + size);
        let first = bytes[one..two].to_vec();
        bytes.copy_within(two..two + size, one);
        bytes[two..two + size].copy_from_slice(&first);
    });
    let error = open_with(&disk, &keys).map(|_| ()).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { offset: 512, .. }), "{error}");
}

#[test]
fn a_log_in_the_clear_is_read_and_goes_on_encrypted() {
    let (disk, keys) = (SimDisk::default(), keys());
    let (log, thread) = open(&disk).unwrap();
    append(&log, (0..50).map(secret).collect());
    close(log, thread);
    let before = disk.paths();
    let (log, thread) = open_with(&disk, &keys).unwrap();
    assert!(log.key_ids().contains(&None));
    append(&log, (50..100).map(secret).collect());
    let upto = Position { term: 1, index: 60 };
    wait(|done| log.purge(upto, done)).unwrap();
    assert_eq!(log.key_ids(), [Some(keys.current().id())].into(), "old segments are gone");
    close(log, thread);
    assert!(disk.paths().iter().all(|path| !before.contains(path)));
    let (log, thread) = open_with(&disk, &keys).unwrap();
    assert_eq!(all(&log), (61..100).map(secret).collect::<Vec<_>>());
    close(log, thread);
}

#[test]
fn a_new_data_key_counts_from_the_next_record_on() {
    let (disk, keys) = (SimDisk::default(), keys());
    let (log, thread) = open_with(&disk, &keys).unwrap();
    append(&log, vec![secret(0)]);
    let (old, new) = (keys.current(), DataKey::generate());
    keys.replace(new.clone(), vec![old.clone()]);
    append(&log, vec![secret(1)]);
    assert_eq!(log.key_ids(), [Some(old.id()), Some(new.id())].into());
    close(log, thread);
    let (log, thread) = open_with(&disk, &keys).unwrap();
    assert_eq!(all(&log), vec![secret(0), secret(1)]);
    close(log, thread);
    let error = open_with(&disk, &Keyring::new(new, Vec::new())).map(|_| ()).unwrap_err();
    assert!(matches!(error, StorageError::NoKey { key_id, .. } if key_id == old.id()), "{error}");
    let error = open(&disk).map(|_| ()).unwrap_err();
    assert!(matches!(error, StorageError::NoKey { .. }), "{error}");
}

/// What encryption costs a log on a real disk: batches of 50 entries of 200 bytes, each synced.
#[test]
#[ignore = "a measurement, for docs/benchmarks.md: it asserts nothing"]
fn what_encryption_costs() {
    let run = |keys: Option<Keyring>| {
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(crate::raft::disk::OsDisk);
        let settings = LogSettings::default();
        let (log, thread) =
            Log::open_with(disk, folder.path(), OWNER, settings, Threads::Own, keys).unwrap();
        let begun = std::time::Instant::now();
        let mut waits = Vec::new();
        for batch in 0..400u64 {
            let entries = (0..50).map(|i| entry(batch * 50 + i, 200)).collect();
            let at = std::time::Instant::now();
            append(&log, entries);
            waits.push(at.elapsed());
        }
        let took = begun.elapsed();
        close(log, thread);
        waits.sort();
        (took, waits[waits.len() / 2])
    };
    for round in 0..3 {
        let (clear, clear_median) = run(None);
        let (sealed, sealed_median) = run(Some(keys()));
        eprintln!(
            "round {round}: clear {clear:?}, median {clear_median:?}; \
             encrypted {sealed:?}, median {sealed_median:?}"
        );
    }
}
