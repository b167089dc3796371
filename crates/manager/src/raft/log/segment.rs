//! One file of the log: its header, how it is made and how it is read back.
//!
//! The header carries what earlier segments would have said (vote, purged, committed), so that
//! whole segments can be deleted without losing it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{self, Ballot, Position, Record, Stop, u32_at, u64_at};
use crate::raft::disk::{Disk, DiskFile};
use crate::raft::error::StorageError;

/// Where records start: the header has a sector of its own.
pub(crate) const FIRST: u64 = 512;
const MAGIC: &[u8; 8] = b"CLRAFTLG";
/// Format of segments that this program writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster_id: u64,
    /// The manager.
    pub node_id: u64,
}

/// What holds at the start of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Checkpoint {
    pub(crate) vote: Option<Ballot>,
    pub(crate) purged: Option<Position>,
    pub(crate) committed: Option<Position>,
}

/// An open segment.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) capacity: u64,
}

pub(crate) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.log"))
}

/// The number in a segment's file name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".log")?.parse().ok()
}

fn encode_header(
    owner: Owner,
    number: u64,
    capacity: u64,
    checkpoint: &Checkpoint,
) -> [u8; FIRST as usize] {
    let mut block = [0u8; FIRST as usize];
    let mut body = Vec::with_capacity(128);
    body.extend_from_slice(&FORMAT.to_le_bytes());
    for value in [owner.cluster_id, owner.node_id, number, capacity] {
        body.extend_from_slice(&value.to_le_bytes());
    }
    let vote = checkpoint.vote.unwrap_or(Ballot { term: 0, node: 0, committed: false });
    body.push(u8::from(checkpoint.vote.is_some()));
    body.push(u8::from(vote.committed));
    body.extend_from_slice(&vote.term.to_le_bytes());
    body.extend_from_slice(&vote.node.to_le_bytes());
    for at in [checkpoint.purged, checkpoint.committed] {
        let known = at.unwrap_or(Position { term: 0, index: 0 });
        body.push(u8::from(at.is_some()));
        body.extend_from_slice(&known.term.to_le_bytes());
        body.extend_from_slice(&known.index.to_le_bytes());
    }
    block[..8].copy_from_slice(MAGIC);
    block[12..12 + body.len()].copy_from_slice(&body);
    let sum = crc32fast::hash(&block[12..]);
    block[8..12].copy_from_slice(&sum.to_le_bytes());
    block
}

fn decode_checkpoint(block: &[u8]) -> Option<Checkpoint> {
    let at = |from: usize| -> Option<Option<Position>> {
        let known = *block.get(from)? != 0;
        let position = Position { term: u64_at(block, from + 1)?, index: u64_at(block, from + 9)? };
        Some(known.then_some(position))
    };
    let vote =
        Ballot { committed: block[49] != 0, term: u64_at(block, 50)?, node: u64_at(block, 58)? };
    Some(Checkpoint { vote: (block[48] != 0).then_some(vote), purged: at(66)?, committed: at(83)? })
}

impl Segment {
    /// Makes a segment and returns once it is durable under its final name.
    pub(crate) fn create(
        disk: &dyn Disk,
        dir: &Path,
        owner: Owner,
        number: u64,
        capacity: u64,
        checkpoint: &Checkpoint,
    ) -> Result<Self, StorageError> {
        let path = path_of(dir, number);
        let unfinished = path.with_extension("tmp");
        let making = StorageError::io("make", &path);
        let file = (|| {
            let file = disk.create(&unfinished, capacity)?;
            file.write_at(&encode_header(owner, number, capacity, checkpoint), 0)?;
            file.sync()?;
            disk.rename(&unfinished, &path)?;
            disk.sync_dir(dir)?;
            Ok(file)
        })()
        .map_err(making)?;
        Ok(Self { number, path, file, capacity })
    }

    /// Opens a segment and reads it whole; `each` gets every record with its offset.
    pub(crate) fn load(
        disk: &dyn Disk,
        dir: &Path,
        owner: Owner,
        number: u64,
        each: &mut dyn FnMut(u64, Record),
    ) -> Result<(Self, Checkpoint, Stop), StorageError> {
        let path = path_of(dir, number);
        let file = disk.open(&path).map_err(StorageError::io("open", &path))?;
        let len = file.size().map_err(StorageError::io("read", &path))?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_at(&mut bytes, 0).map_err(StorageError::io("read", &path))?;
        let (capacity, checkpoint) = check_header(&path, &bytes, owner, number)?;
        if len < capacity {
            return Err(StorageError::CutShort { path, len, expected: capacity });
        }
        let stop =
            record::scan(&bytes, FIRST as usize, number, |at, record| each(at as u64, record));
        if let Stop::Damaged { at, what } = stop {
            return Err(StorageError::damaged(&path, at as u64, what));
        }
        Ok((Self { number, path, file, capacity }, checkpoint, stop))
    }

    /// Reads the entry whose record starts at `offset` and takes `size` bytes.
    pub(crate) fn read_entry(
        &self,
        offset: u64,
        size: usize,
    ) -> Result<record::LogEntry, StorageError> {
        let mut bytes = vec![0; size];
        self.file.read_at(&mut bytes, offset).map_err(StorageError::io("read", &self.path))?;
        match record::read(&bytes, 0, self.number) {
            Ok((Record::Entry(entry), _)) => Ok(entry),
            Ok(_) => Err(StorageError::damaged(
                &self.path,
                offset,
                "an entry was here, another record is now",
            )),
            Err(what) => Err(StorageError::damaged(&self.path, offset, what)),
        }
    }
}

fn check_header(
    path: &Path,
    bytes: &[u8],
    owner: Owner,
    number: u64,
) -> Result<(u64, Checkpoint), StorageError> {
    let cut = StorageError::CutShort {
        path: path.to_path_buf(),
        len: bytes.len() as u64,
        expected: FIRST,
    };
    let Some(block) = bytes.get(..FIRST as usize) else {
        return Err(cut);
    };
    if &block[..8] != MAGIC || u32_at(block, 8) != Some(crc32fast::hash(&block[12..])) {
        return Err(StorageError::damaged(path, 0, "the file's header does not check"));
    }
    let read = || {
        Some((
            u32_at(block, 12)?,
            Owner { cluster_id: u64_at(block, 16)?, node_id: u64_at(block, 24)? },
            u64_at(block, 32)?,
            u64_at(block, 40)?,
            decode_checkpoint(block)?,
        ))
    };
    let Some((format, found, named, capacity, checkpoint)) = read() else {
        return Err(cut);
    };
    let path = path.to_path_buf();
    if format > FORMAT {
        return Err(StorageError::NewerVersion { path, found: format, known: FORMAT });
    }
    if found.cluster_id != owner.cluster_id {
        return Err(StorageError::OtherCluster {
            path,
            found: found.cluster_id,
            expected: owner.cluster_id,
        });
    }
    if found.node_id != owner.node_id {
        return Err(StorageError::OtherNode {
            path,
            found: found.node_id,
            expected: owner.node_id,
        });
    }
    if named != number {
        return Err(StorageError::damaged(
            &path,
            32,
            "the file was renamed: its number is not its name",
        ));
    }
    Ok((capacity, checkpoint))
}
