//! What the log holds: where each entry is, and the recent ones themselves.
//!
//! The index is changed by callers when they append and by the writer when it has written; it
//! never touches a file.

use std::collections::{BTreeMap, VecDeque};

use super::record::{LogEntry, Position, Record, entry_size};
use super::segment::{Checkpoint, Segment};

/// Where an entry is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// With the writer.
    Queued,
    /// In a segment, at an offset.
    Written { segment: u64, offset: u64 },
}

pub(super) struct Slot {
    pub(super) term: u64,
    /// Tells this entry from one that replaced it at the same index.
    pub(super) serial: u64,
    pub(super) size: usize,
    pub(super) place: Place,
    pub(super) cached: Option<LogEntry>,
}

/// What the log holds, as far as readers are concerned.
pub(super) struct Index {
    pub(super) first: u64,
    pub(super) slots: VecDeque<Slot>,
    pub(super) next_serial: u64,
    /// Cached bytes, and the index below which nothing is cached.
    pub(super) cached: usize,
    pub(super) cached_from: u64,
    pub(super) checkpoint: Checkpoint,
    pub(super) segments: BTreeMap<u64, Segment>,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            first: 0,
            slots: VecDeque::new(),
            next_serial: 0,
            cached: 0,
            cached_from: 0,
            checkpoint: Checkpoint::default(),
            segments: BTreeMap::new(),
        }
    }

    pub(super) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(super) fn push(&mut self, entry: LogEntry, place: Place) -> u64 {
        if self.slots.is_empty() {
            self.first = entry.at.index;
            self.cached_from = self.first;
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        let size = entry_size(entry.payload.len());
        self.cached += size;
        self.slots.push_back(Slot {
            term: entry.at.term,
            serial,
            size,
            place,
            cached: Some(entry),
        });
        serial
    }

    pub(super) fn slot(&mut self, index: u64) -> Option<&mut Slot> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(at)
    }

    pub(super) fn truncate(&mut self, from: u64) {
        while self.next() > from && !self.slots.is_empty() {
            if let Some(Slot { cached: Some(_), size, .. }) = self.slots.pop_back() {
                self.cached -= size;
            }
        }
        self.cached_from = self.cached_from.min(self.next());
    }

    pub(super) fn purge(&mut self, upto: Position) {
        while self.first <= upto.index && !self.slots.is_empty() {
            if let Some(Slot { cached: Some(_), size, .. }) = self.slots.pop_front() {
                self.cached -= size;
            }
            self.first += 1;
        }
        if self.slots.is_empty() {
            self.first = upto.index + 1;
        }
        self.cached_from = self.cached_from.max(self.first);
        if self.checkpoint.purged < Some(upto) {
            self.checkpoint.purged = Some(upto);
        }
    }

    /// Notes where an entry went, unless it was truncated or purged meanwhile.
    pub(super) fn settle(&mut self, index: u64, serial: u64, segment: u64, offset: u64) {
        if let Some(slot) = self.slot(index)
            && slot.serial == serial
        {
            slot.place = Place::Written { segment, offset };
        }
    }

    /// Drops the oldest written entries from memory until the rest fits.
    pub(super) fn shrink(&mut self, limit: usize) {
        while self.cached > limit {
            let at = self.cached_from;
            let Some(slot) = self.slot(at) else { return };
            if let Place::Queued = slot.place {
                return;
            }
            let size = slot.size;
            if slot.cached.take().is_some() {
                self.cached -= size;
            }
            self.cached_from += 1;
        }
    }

    /// Number of the oldest segment that still holds a live entry.
    pub(super) fn oldest_needed(&self) -> Option<u64> {
        match self.slots.front()?.place {
            Place::Written { segment, .. } => Some(segment),
            Place::Queued => None,
        }
    }

    pub(super) fn replay(&mut self, segment: u64, offset: u64, record: Record) {
        match record {
            Record::Entry(entry) => {
                let purged = self.checkpoint.purged.is_some_and(|at| entry.at.index <= at.index);
                if !purged {
                    self.truncate(entry.at.index);
                    self.push(entry, Place::Written { segment, offset });
                }
            }
            Record::Vote(vote) => self.checkpoint.vote = Some(vote),
            Record::Truncate(from) => self.truncate(from),
            Record::Committed(at) => self.checkpoint.committed = Some(at),
            Record::Purge(upto) => self.purge(upto),
            Record::Seal => {}
        }
    }
}
