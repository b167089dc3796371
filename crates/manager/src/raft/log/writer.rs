//! The thread that owns the log's files for writing: batches what waits, syncs, acknowledges,
//! starts new segments and deletes old ones.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tokio::sync::Notify;

use cluster_mutants::{Mutant, is};

use super::record::{LogEntry, Position, Record, SEAL_SIZE, Spot, entry_size};
use super::segment::{self, Segment};
use super::{Done, Folder, Shared};
use crate::raft::error::StorageError;

/// Largest batch that is written with one sync.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_OPS: usize = 4096;
/// Upper bound of a framed record that is not an entry.
const SMALL_RECORD: usize = 64 + super::record::SEAL_SIZE;

/// A request to the writer.
pub(super) enum Op {
    /// Entries with their serials.
    Append { entries: Vec<(u64, LogEntry)>, done: Done },
    /// A record that must be durable before `done`.
    Record { record: Record, done: Done },
    /// A mark that rides along with the next sync.
    Committed(Position),
    /// Finish and end.
    Close,
}

impl Op {
    fn size(&self) -> usize {
        match self {
            Self::Append { entries, .. } => {
                entries.iter().map(|(_, e)| entry_size(e.payload.len())).sum()
            }
            Self::Record { .. } | Self::Committed(_) | Self::Close => SMALL_RECORD,
        }
    }
}

/// The segment being written.
pub(super) struct Active {
    pub(super) segment: Segment,
    /// Where the next record goes.
    end: u64,
    /// Everything below is on disk.
    durable: u64,
}

impl Active {
    pub(super) fn at(segment: Segment, end: u64) -> Self {
        Self { segment, end, durable: end }
    }
}

pub(super) struct Writer {
    folder: Folder,
    shared: Arc<Shared>,
    active: Active,
    /// Records not yet written, for `active.end` on.
    buffer: Vec<u8>,
    /// Entries in `buffer`: index, serial, segment, offset.
    placed: Vec<(u64, u64, u64, u64)>,
    /// Something in `buffer` must be synced.
    must_sync: bool,
    /// A purge is in the batch, so old segments may go after it.
    purged: bool,
}

impl Writer {
    pub(super) fn new(folder: Folder, shared: Arc<Shared>, active: Active) -> Self {
        Self {
            folder,
            shared,
            active,
            buffer: Vec::new(),
            placed: Vec::new(),
            must_sync: false,
            purged: false,
        }
    }

    pub(super) fn run(mut self, queue: &Receiver<Op>) {
        let mut closing = false;
        while !closing {
            let Ok(first) = queue.recv() else { break };
            match self.write(first, queue) {
                Some(last) => closing = last,
                None => return,
            }
        }
        self.end();
    }

    /// As `run`, for a task among others: `wake` says that something is queued.
    pub(super) async fn run_here(mut self, queue: Receiver<Op>, wake: Arc<Notify>) {
        let mut closing = false;
        while !closing {
            wake.notified().await;
            tokio::time::sleep(self.folder.disk.latency()).await;
            while let Ok(first) = queue.try_recv() {
                match self.write(first, &queue) {
                    Some(last) => closing = last,
                    None => return,
                }
            }
        }
        self.end();
    }

    /// Writes one operation and what waits behind it. `Some(true)` after the last one, `None` when
    /// the log has failed.
    fn write(&mut self, first: Op, queue: &Receiver<Op>) -> Option<bool> {
        let mut size = first.size();
        let mut batch = vec![first];
        while size < BATCH_BYTES && batch.len() < BATCH_OPS {
            let Ok(op) = queue.try_recv() else { break };
            size += op.size();
            batch.push(op);
        }
        let closing = batch.iter().any(|op| matches!(op, Op::Close));
        let mut waiting = Vec::new();
        let result = self.write_batch(batch, &mut waiting);
        if let Err(error) = result {
            self.fail(&error, waiting, queue);
            return None;
        }
        for done in waiting {
            done(Ok(()));
        }
        Some(closing)
    }

    fn end(mut self) {
        if let Err(error) = self.sync() {
            tracing::warn!(error = %error.chain(), "cannot sync the log while closing it");
        }
    }

    /// Tells everyone, now and later, that nothing more becomes durable.
    fn fail(&self, error: &StorageError, waiting: Vec<Done>, queue: &Receiver<Op>) {
        let reason = error.chain();
        tracing::error!(error = %reason, "the log cannot be written; this manager stops");
        self.shared.failure.send_replace(Some(reason.clone()));
        let refuse = |done: Done| done(Err(StorageError::Stopped { reason: reason.clone() }));
        waiting.into_iter().for_each(refuse);
        while let Ok(op) = queue.try_recv() {
            if let Op::Append { done, .. } | Op::Record { done, .. } = op {
                refuse(done);
            }
        }
    }

    fn write_batch(&mut self, batch: Vec<Op>, waiting: &mut Vec<Done>) -> Result<(), StorageError> {
        let mut failed = None;
        for op in batch {
            // After a failure the rest is only collected, to be told.
            let result = match op {
                Op::Append { entries, done } => {
                    waiting.push(done);
                    self.put_all(entries, failed.is_some())
                }
                Op::Record { record, done } => {
                    waiting.push(done);
                    self.purged |= matches!(record, Record::Purge(_));
                    if failed.is_some() {
                        Ok(())
                    } else {
                        self.put_synced(&record, SMALL_RECORD).map(drop)
                    }
                }
                Op::Committed(at) if failed.is_none() => {
                    self.put(&Record::Committed(at), SMALL_RECORD).map(drop)
                }
                Op::Committed(_) | Op::Close => Ok(()),
            };
            if let Err(error) = result {
                failed.get_or_insert(error);
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        self.flush()?;
        if self.must_sync {
            self.sync()?;
        }
        self.settle();
        if self.purged {
            self.purged = false;
            self.remove_unneeded()?;
        }
        Ok(())
    }

    fn put_all(&mut self, entries: Vec<(u64, LogEntry)>, failed: bool) -> Result<(), StorageError> {
        if failed {
            return Ok(());
        }
        for (serial, entry) in entries {
            let (index, size) = (entry.at.index, entry_size(entry.payload.len()));
            let offset = self.put_synced(&Record::Entry(entry), size)?;
            self.placed.push((index, serial, self.active.segment.number, offset));
        }
        Ok(())
    }

    /// Adds a record to the buffer, in a new segment if this one is full; returns its offset.
    fn put(&mut self, record: &Record, size: usize) -> Result<u64, StorageError> {
        let needed = (size + SEAL_SIZE) as u64;
        let full = self.active.end + self.buffer.len() as u64 + needed;
        if full > self.active.segment.capacity || self.has_old_key() {
            self.rotate(needed)?;
        }
        Ok(self.encode(record))
    }

    /// Whether the segment is in the clear or of an older data key, and new ones are not.
    fn has_old_key(&self) -> bool {
        let used = self.active.segment.cipher.as_ref().map(|cipher| cipher.key_id());
        self.folder.keys.as_ref().is_some_and(|keys| used != Some(keys.current().id()))
    }

    /// Adds a record to the buffer; returns its offset.
    fn encode(&mut self, record: &Record) -> u64 {
        let Active { segment, end, durable } = &self.active;
        let offset = *end + self.buffer.len() as u64;
        let durable = u32::try_from(*durable).unwrap_or(u32::MAX);
        let spot = Spot { segment: segment.number, offset };
        record.encode(durable, spot, segment.cipher.as_deref(), &mut self.buffer);
        offset
    }

    /// As `put`, and the batch is not done before a sync. Noted afterwards: a new segment syncs
    /// the old one, not this record.
    fn put_synced(&mut self, record: &Record, size: usize) -> Result<u64, StorageError> {
        let offset = self.put(record, size)?;
        self.must_sync = true;
        Ok(offset)
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        let Active { segment, end, .. } = &mut self.active;
        if !self.buffer.is_empty() {
            segment
                .file
                .write_at(&self.buffer, *end)
                .map_err(StorageError::io("write to", &segment.path))?;
            *end += self.buffer.len() as u64;
            self.buffer.clear();
            self.buffer.shrink_to(1 << 20);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.flush()?;
        let Active { segment, end, durable } = &mut self.active;
        if !is(Mutant::AckBeforeSync) {
            segment.file.sync().map_err(StorageError::io("sync", &segment.path))?;
        }
        *durable = *end;
        self.must_sync = false;
        Ok(())
    }

    /// Lets readers find the batch in its files and trims the cache.
    fn settle(&mut self) {
        let mut index = self.shared.index();
        for (at, serial, segment, offset) in self.placed.drain(..) {
            index.settle(at, serial, segment, offset);
        }
        index.shrink(self.folder.settings.cache_bytes);
    }

    /// Seals the segment and starts the next.
    fn rotate(&mut self, needed: u64) -> Result<(), StorageError> {
        self.encode(&Record::Seal);
        self.sync()?;
        let number = self.active.segment.number + 1;
        let checkpoint = self.shared.index().checkpoint;
        let made = self.folder.make(number, needed, &checkpoint)?;
        self.shared.index().segments.insert(number, made.clone());
        self.active = Active::at(made, segment::FIRST);
        Ok(())
    }

    /// Deletes the segments, oldest first, that hold no entry anyone may ask for.
    fn remove_unneeded(&mut self) -> Result<(), StorageError> {
        let unneeded: Vec<Segment> = {
            let mut index = self.shared.index();
            let keep = index.oldest_needed().unwrap_or(self.active.segment.number);
            let rest = index.segments.split_off(&keep);
            std::mem::replace(&mut index.segments, rest).into_values().collect()
        };
        for segment in &unneeded {
            self.folder
                .disk
                .remove(&segment.path)
                .map_err(StorageError::io("remove", &segment.path))?;
        }
        if !unneeded.is_empty() {
            self.folder
                .disk
                .sync_dir(&self.folder.dir)
                .map_err(StorageError::io("sync", &self.folder.dir))?;
        }
        Ok(())
    }
}
