//! What fuzz targets call of this folder: the decoders of bytes that come from a disk or from
//! another manager.
//!
//! Checksums keep a fuzzer out, not an attacker or a bug, so each entry point looks beneath them
//! too. Nothing here is part of a manager: the module exists under the feature `fuzzing` alone.

use std::io;
use std::path::Path;
use std::sync::Arc;

use cluster_model::command::COMMANDS;
use cluster_model::{State, apply};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec;
use super::disk::{Disk, DiskFile};
use super::log::Owner;
use super::log::record::{self, Record, Spot, Stop};
use super::log::segment::{self, Segment};
use super::snapshot::SnapshotStore;
use super::types::{Membership, Proposal, Response, SnapshotMeta, StreamAppendResult, Types, Vote};

/// Segment that records belong to; part of their checksums.
const SALT: u64 = 3;
const OWNER: Owner = Owner { cluster_id: 7, node_id: 1 };

/// How a segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By its last record or in zeros.
    Whole,
    /// In an unfinished write.
    Torn,
    /// In bytes that no crash leaves.
    Damaged,
}

/// Reads `bytes` as the records of a segment: how many there are, and how they end. An entry
/// that reads is written again to the same bytes.
pub fn records(bytes: &[u8]) -> (usize, End) {
    let mut count = 0;
    let stop = record::scan(bytes, 0, SALT, None, |at, found| {
        count += 1;
        // Bodies of the others may go on behind what is read of them.
        if matches!(found, Record::Entry(_)) {
            let durable = record::u32_at(bytes, at + 4).unwrap_or_default();
            let mut again = Vec::new();
            let spot = Spot { segment: SALT, offset: at as u64 };
            found.encode(durable, spot, None, &mut again);
            assert!(bytes[at..].starts_with(&again), "{found:?}");
        }
    });
    let end = match stop {
        Stop::Sealed | Stop::Clean { .. } => End::Whole,
        Stop::Torn { end, dirty } => {
            assert!(end < dirty && dirty <= bytes.len());
            End::Torn
        }
        Stop::Damaged { at, .. } => {
            assert!(at <= bytes.len());
            End::Damaged
        }
    };
    (count, end)
}

/// A record around any body, with checksums that hold; `durable` as in the log.
pub fn frame(body: &[u8], durable: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(record::HEADER + body.len() + 1);
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    for number in [len, durable, crc32fast::hash(body)] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let mut sum = crc32fast::Hasher::new();
    sum.update(&out);
    sum.update(&SALT.to_le_bytes());
    out.extend_from_slice(&sum.finalize().to_le_bytes());
    out.extend_from_slice(body);
    out.push(0xA5);
    out
}

/// Reads `bytes` as a whole segment file; with `mend`, its header's checksum is made to hold.
pub fn segment(bytes: &[u8], mend: bool) {
    let mut bytes = bytes.to_vec();
    if mend && bytes.len() >= 512 {
        bytes[..8].copy_from_slice(b"CLRAFTLG");
        let sum = crc32fast::hash(&bytes[12..512]);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    }
    let path = segment::path_of(Path::new("/log"), SALT);
    let disk = OneFile { name: name_of(&path), content: bytes.into() };
    // An error is as good as a segment; what counts is that it ends.
    let _ = Segment::load(&disk, Path::new("/log"), OWNER, SALT, None, &mut |_, _| {});
}

/// Reads `bytes` as a snapshot file; with `mend`, its header's checksum is made to hold. The state
/// in it, if there is one.
pub fn snapshot(bytes: &[u8], mend: bool) -> Option<State> {
    let mut bytes = bytes.to_vec();
    if mend && bytes.len() >= 28 {
        bytes[..8].copy_from_slice(b"CLRAFTSN");
        let len = record::u32_at(&bytes, 24).unwrap_or_default() as usize;
        let end = bytes.len().min(len.saturating_add(28));
        let sum = crc32fast::hash(&bytes[12..end]);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    }
    let disk = OneFile { name: "1-1.snap".to_owned(), content: bytes.into() };
    let store =
        SnapshotStore::open_with(Arc::new(disk), Path::new("/snapshots"), OWNER.cluster_id, None);
    let (_, file) = store.as_ref().ok()?.current()?;
    let store = store.ok()?;
    let read = store.read(&file);
    if read.is_ok() {
        assert!(store.verify(&file).is_ok(), "what reads is whole");
    }
    read.ok().map(|(_, state)| state)
}

/// Reads `bytes` as what is packed in a snapshot. A state that reads is written to bytes that
/// read as the same state.
pub fn state(bytes: &[u8]) -> Option<State> {
    let read: State = codec::decode_from(bytes).ok()?;
    let again = codec::encode(&read).expect("a state that was read encodes");
    let reread: State = codec::decode(&again).expect("a state that was written reads");
    assert!(reread == read, "a state changes by being written");
    Some(read)
}

/// Reads `bytes` as one of the envelopes between managers, chosen by the first byte.
pub fn envelope(bytes: &[u8]) {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    match kind % 10 {
        0 => same::<AppendEntriesRequest<Types>>(bytes),
        1 => same::<VoteRequest<Types>>(bytes),
        2 => same::<(Vote, SnapshotMeta)>(bytes),
        3 => same::<TransferLeaderRequest<Types>>(bytes),
        4 => same::<StreamAppendResult>(bytes),
        5 => same::<VoteResponse<Types>>(bytes),
        6 => same::<SnapshotResponse<Types>>(bytes),
        7 => same::<Response>(bytes),
        8 => same::<Membership>(bytes),
        _ => same::<Proposal>(bytes),
    }
}

/// What reads is written to bytes that read to the same bytes again.
fn same<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(read) = codec::decode::<T>(bytes) else { return };
    let once = codec::encode(&read).expect("what was read encodes");
    let read: T = codec::decode(&once).expect("what was written reads");
    let twice = codec::encode(&read).expect("what was read encodes");
    assert_eq!(once, twice, "writing is not stable");
}

/// Applies encoded commands, in order, to an empty cluster. Whatever they are, `apply` answers; the
/// same commands make the same state; and a snapshot holds all of it.
pub fn commands(encoded: &[&[u8]]) -> State {
    let mut state = State::default();
    let mut twin = State::default();
    for (index, bytes) in (1..).zip(encoded) {
        let Ok(command) = codec::decode_command(bytes, COMMANDS) else { continue };
        let before = state.clone();
        let outcome = apply(&mut state, index, &command);
        if outcome.reply.is_err() {
            assert!(state == before, "a refused command changed something: {command:?}");
        }
        let again = apply(&mut twin, index, &command);
        assert_eq!(outcome, again, "apply is not a function: {command:?}");
    }
    assert!(state == twin, "equal commands make different states");
    let bytes = codec::encode(&state).expect("the state encodes");
    let read: State = codec::decode(&bytes).expect("the state reads");
    assert!(read == state, "a snapshot loses something");
    state
}

/// A folder with one file that cannot be changed.
#[derive(Debug)]
struct OneFile {
    name: String,
    content: Arc<[u8]>,
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read_only() -> io::Error {
    io::ErrorKind::ReadOnlyFilesystem.into()
}

impl Disk for OneFile {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(vec![self.name.clone()])
    }

    fn create(&self, _: &Path, _: u64) -> io::Result<Arc<dyn DiskFile>> {
        Err(read_only())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if name_of(path) != self.name {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Arc::new(Content(self.content.clone())))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

struct Content(Arc<[u8]>);

impl DiskFile for Content {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = start.checked_add(buffer.len()).and_then(|end| self.0.get(start..end));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}
