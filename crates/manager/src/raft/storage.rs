//! Connects our log to openraft: translates entries, votes and positions, nothing else.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use super::codec;
use super::error::StorageError;
use super::log::{Done, EntryKind, Log, LogEntry};
use super::types::{self, Entry, LogId, Membership, Payload, Proposal, Types, Vote};

/// Most bytes of entries sent to a follower in one message.
const APPEND_BYTES: usize = 1 << 20;

/// openraft's view of the log; clones share it.
#[derive(Clone)]
pub(crate) struct LogStore(pub(crate) Log);

impl LogStore {
    fn entries(&self, range: std::ops::Range<u64>, limit: usize) -> io::Result<Vec<Entry>> {
        let found = self.0.read(range, limit)?;
        found.into_iter().map(|entry| decode(entry).map_err(io::Error::from)).collect()
    }
}

fn decode(entry: LogEntry) -> Result<Entry, StorageError> {
    let payload = match entry.kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Command => EntryPayload::Normal(Proposal(entry.payload)),
        EntryKind::Members => {
            let members: Membership = codec::decode(&entry.payload).map_err(|source| {
                StorageError::Payload { what: "the members", index: entry.at.index, source }
            })?;
            EntryPayload::Membership(members)
        }
    };
    Ok(Entry::new(types::log_id(entry.at), payload))
}

fn encode(entry: Entry) -> Result<LogEntry, StorageError> {
    let at = types::position(entry.log_id());
    let (kind, payload) = match entry.payload {
        Payload::Blank => (EntryKind::Blank, Default::default()),
        Payload::Normal(Proposal(bytes)) => (EntryKind::Command, bytes),
        Payload::Membership(members) => {
            let bytes = codec::encode(&members).map_err(|source| StorageError::Payload {
                what: "the members",
                index: at.index,
                source,
            })?;
            (EntryKind::Members, bytes)
        }
    };
    Ok(LogEntry { at, kind, payload })
}

/// A callback and the future that ends when it was called.
fn waiter() -> (Done, impl Future<Output = io::Result<()>>) {
    let (told, tell) = oneshot::channel();
    let done: Done = Box::new(move |result| {
        // A caller that stopped waiting wants no answer.
        let _ = told.send(result);
    });
    let wait = async move {
        let result = tell
            .await
            .unwrap_or_else(|_| Err(StorageError::Stopped { reason: "its writer ended".into() }));
        Ok(result?)
    };
    (done, wait)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(at) => at + 1,
            Bound::Excluded(at) => *at,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(start..end, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.vote().map(types::vote))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.entries(start..end, APPEND_BYTES)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let (purged, last) = self.0.bounds();
        Ok(LogState {
            last_purged_log_id: purged.map(types::log_id),
            last_log_id: last.map(types::log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, wait) = waiter();
        self.0.save_vote(types::ballot(vote), done)?;
        wait.await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        match committed {
            Some(id) => Ok(self.0.save_committed(types::position(id))?),
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.0.committed().map(types::log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().map(encode).collect::<Result<_, _>>()?;
        let done: Done =
            Box::new(move |result| callback.io_completed(result.map_err(io::Error::from)));
        Ok(self.0.append(entries, done)?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |id| id.index + 1);
        let (done, wait) = waiter();
        self.0.truncate(from, done)?;
        wait.await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let (done, wait) = waiter();
        self.0.purge(types::position(log_id), done)?;
        wait.await
    }
}
