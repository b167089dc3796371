//! The durable log of a manager: entries, vote and marks, appended to checksummed segments.
//!
//! Callers append and read; one thread (`writer`) writes. Whatever queued up while it was busy
//! becomes one write and one `fdatasync`. An append is acknowledged only after that sync. The
//! first failure to write or sync ends the log: nothing is acknowledged after it, because after a
//! failed sync nobody can say what is on the disk.
//!
//! Nothing here knows what an entry means; `storage` connects the log to consensus.

mod index;
pub(crate) mod record;
mod recover;
pub(crate) mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{Notify, watch};

use cluster_mutants::{Mutant, is};

use index::{Index, Place};
use record::Record;
pub(crate) use record::{Ballot, EntryKind, LogEntry, Position};
pub use segment::Owner;
use segment::{Checkpoint, Segment};

use super::cipher::Keyring;
use super::config::Threads;
use super::disk::Disk;
use super::error::StorageError;
use writer::{Op, Writer};

/// Called once with the fate of an append.
pub(crate) type Done = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// Sizes of a log.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    /// Bytes of a segment; one that must hold a larger entry is made larger.
    pub segment_bytes: u64,
    /// Bytes of recent entries kept in memory for replication and apply.
    pub cache_bytes: usize,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { segment_bytes: 8 << 20, cache_bytes: 8 << 20 }
    }
}

/// Operations that may wait for the writer; an append beyond them waits.
const QUEUE: usize = 8192;

/// Where the log is and how it is laid out.
struct Folder {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    owner: Owner,
    settings: LogSettings,
    /// None: nothing is encrypted.
    keys: Option<Keyring>,
}

impl Folder {
    /// Makes a segment with room for a record of `needed` bytes.
    fn make(
        &self,
        number: u64,
        needed: u64,
        checkpoint: &Checkpoint,
    ) -> Result<Segment, StorageError> {
        let capacity = self.settings.segment_bytes.max(segment::FIRST + needed);
        let keys = self.keys.as_ref();
        Segment::create(&*self.disk, &self.dir, self.owner, number, capacity, checkpoint, keys)
    }
}

/// State shared by callers and writer.
struct Shared {
    index: Mutex<Index>,
    failure: watch::Sender<Option<String>>,
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        // Every change of the index is complete before anything can panic.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> Option<StorageError> {
        let reason = self.failure.borrow().clone()?;
        Some(StorageError::Stopped { reason })
    }
}

/// A handle on the log; clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    ops: SyncSender<Op>,
    /// Wakes a writer that has no thread of its own.
    wake: Option<Arc<Notify>>,
}

/// Owns the writing thread, if it has one; dropping it lets the thread finish what is queued.
pub(crate) struct LogThread(Option<JoinHandle<()>>);

impl LogThread {
    /// Waits until the writer has ended, which it does once all `Log`s are gone or stopped.
    pub(crate) fn join(mut self) {
        if let Some(thread) = self.0.take() {
            // A panic of the writer already showed as failed appends.
            let _ = thread.join();
        }
    }
}

impl Log {
    /// Opens a log that is not encrypted.
    #[cfg(test)]
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        owner: Owner,
        settings: LogSettings,
        threads: Threads,
    ) -> Result<(Self, LogThread), StorageError> {
        Self::open_with(disk, dir, owner, settings, threads, None)
    }

    /// Opens the log in `dir`, making it if there is none, and starts its writer. With keys, what
    /// is written from now on is encrypted; what was written before is read as it is.
    pub(crate) fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        owner: Owner,
        settings: LogSettings,
        threads: Threads,
        keys: Option<Keyring>,
    ) -> Result<(Self, LogThread), StorageError> {
        disk.create_dir(dir).map_err(StorageError::io("make", dir))?;
        let mut index = Index::new();
        let folder = Folder { disk, dir: dir.to_path_buf(), owner, settings, keys };
        let active = recover::recover(&folder, &mut index)?;
        let shared =
            Arc::new(Shared { index: Mutex::new(index), failure: watch::Sender::new(None) });
        let (ops, queue): (_, Receiver<Op>) = sync_channel(QUEUE);
        let writer = Writer::new(folder, shared.clone(), active);
        if threads == Threads::Callers {
            let wake = Arc::new(Notify::new());
            tokio::spawn(writer.run_here(queue, wake.clone()));
            return Ok((Self { shared, ops, wake: Some(wake) }, LogThread(None)));
        }
        let thread = std::thread::Builder::new()
            .name("raft-log".into())
            .spawn(move || writer.run(&queue))
            .map_err(StorageError::io("start the writer of", dir))?;
        Ok((Self { shared, ops, wake: None }, LogThread(Some(thread))))
    }

    /// Becomes the reason once the log has failed for good.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared.failure.subscribe()
    }

    fn send(&self, op: Op) -> Result<(), StorageError> {
        if let Some(error) = self.shared.stopped() {
            return Err(error);
        }
        self.ops.send(op).map_err(|_| {
            self.shared
                .stopped()
                .unwrap_or(StorageError::Stopped { reason: "it was closed".into() })
        })?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            wake.notify_one();
        }
    }

    /// Appends entries, readable at once; `done` hears when they are durable.
    pub(crate) fn append(&self, entries: Vec<LogEntry>, done: Done) -> Result<(), StorageError> {
        let queued = {
            let mut index = self.shared.index();
            entries
                .into_iter()
                .map(|entry| (index.push(entry.clone(), Place::Queued), entry))
                .collect()
        };
        self.send(Op::Append { entries: queued, done })
    }

    /// Stores the vote; `done` hears when it is durable.
    pub(crate) fn save_vote(&self, vote: Ballot, done: Done) -> Result<(), StorageError> {
        self.shared.index().checkpoint.vote = Some(vote);
        if is(Mutant::ForgottenVote) {
            done(Ok(()));
            return Ok(());
        }
        self.send(Op::Record { record: Record::Vote(vote), done })
    }

    /// Voids the entries from `from` on; `done` hears when that is durable.
    pub(crate) fn truncate(&self, from: u64, done: Done) -> Result<(), StorageError> {
        self.shared.index().truncate(from);
        self.send(Op::Record { record: Record::Truncate(from), done })
    }

    /// Notes what is committed. Not synced for its own sake: it only saves waiting at a restart.
    pub(crate) fn save_committed(&self, at: Position) -> Result<(), StorageError> {
        self.shared.index().checkpoint.committed = Some(at);
        self.send(Op::Committed(at))
    }

    /// Forgets entries up to `upto`; their segments go once that is durable.
    pub(crate) fn purge(&self, upto: Position, done: Done) -> Result<(), StorageError> {
        self.shared.index().purge(upto);
        self.send(Op::Record { record: Record::Purge(upto), done })
    }

    pub(crate) fn vote(&self) -> Option<Ballot> {
        self.shared.index().checkpoint.vote
    }

    /// What is known to be committed, as far as this log reaches.
    pub(crate) fn committed(&self) -> Option<Position> {
        let (_, last) = self.bounds();
        // A mark may be written before the entries it covers when others committed them first.
        self.shared.index().checkpoint.committed.min(last)
    }

    /// Last purged and last present position.
    pub(crate) fn bounds(&self) -> (Option<Position>, Option<Position>) {
        let index = self.shared.index();
        let purged = index.checkpoint.purged;
        let last =
            index.slots.back().map(|slot| Position { term: slot.term, index: index.next() - 1 });
        (purged, last.or(purged))
    }

    /// The entries of `range` that are present, up to about `limit` bytes but at least one.
    pub(crate) fn read(
        &self,
        range: Range<u64>,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        enum Found {
            Cached(LogEntry),
            Stored(Segment, u64, usize),
        }
        let found = {
            let mut index = self.shared.index();
            let range = range.start.max(index.first)..range.end.min(index.next());
            let mut found = Vec::new();
            let mut bytes = 0;
            for at in range {
                let Some(slot) = index.slot(at) else { break };
                bytes += slot.size;
                if bytes > limit && !found.is_empty() {
                    break;
                }
                let (place, size, cached) = (slot.place, slot.size, slot.cached.clone());
                match (cached, place) {
                    (Some(entry), _) => found.push(Found::Cached(entry)),
                    (None, Place::Written { segment, offset }) => {
                        let Some(segment) = index.segments.get(&segment) else { break };
                        found.push(Found::Stored(segment.clone(), offset, size));
                    }
                    (None, Place::Queued) => break,
                }
            }
            found
        };
        found
            .into_iter()
            .map(|found| match found {
                Found::Cached(entry) => Ok(entry),
                Found::Stored(segment, offset, size) => segment.read_entry(offset, size),
            })
            .collect()
    }

    /// The data keys that present segments need; none stands for a segment in the clear.
    pub(crate) fn key_ids(&self) -> BTreeSet<Option<u64>> {
        let index = self.shared.index();
        let cipher = |segment: &Segment| segment.cipher.as_ref().map(|cipher| cipher.key_id());
        index.segments.values().map(cipher).collect()
    }

    /// Ends the writer after what is queued, including marks that were not worth a sync.
    pub(crate) fn close(&self) {
        // A writer that failed has ended already.
        let _ = self.ops.send(Op::Close);
        self.wake();
    }
}

/// The folder of the log inside a manager's raft folder.
pub(crate) fn folder(dir: &Path) -> PathBuf {
    dir.join("log")
}
