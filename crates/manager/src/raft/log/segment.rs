//! One file of the log: its header, how it is made and how it is read back.
//!
//! The header carries what earlier segments would have said (vote, purged, committed), so that
//! whole segments can be deleted without losing it. It is in the clear, vote and positions are no
//! secrets, but in an encrypted segment (format 2) sealed with the segment's key. Segments of
//! format 1 are read and never written by a manager that has data keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{self, Ballot, Position, Record, Spot, Stop, u32_at, u64_at};
use crate::raft::cipher::{FileCipher, KEY_BLOCK, Keyring, Unreadable};
use crate::raft::disk::{Disk, DiskFile};
use crate::raft::error::StorageError;

/// Where records start: the header has a sector of its own.
pub(crate) const FIRST: u64 = 512;
const MAGIC: &[u8; 8] = b"CLRAFTLG";
/// Segments in the clear.
const CLEAR: u32 = 1;
/// Encrypted segments; the newest format this program reads.
pub(crate) const FORMAT: u32 = 2;
/// Where the key block of format 2 stands: behind what format 1 says.
const KEY_AT: usize = 100;
/// What the segment's key is derived for.
const PURPOSE: &[u8] = b"cluster log segment";

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
    /// None: written in the clear.
    pub(crate) cipher: Option<Arc<FileCipher>>,
}

pub(crate) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.log"))
}

/// The number in a segment's file name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".log")?.parse().ok()
}

/// What the keys of a segment's owner are derived for.
fn purpose(owner: Owner, number: u64) -> Vec<u8> {
    let numbers = [owner.cluster_id, owner.node_id, number];
    PURPOSE.iter().copied().chain(numbers.into_iter().flat_map(u64::to_le_bytes)).collect()
}

fn encode_header(
    owner: Owner,
    number: u64,
    capacity: u64,
    checkpoint: &Checkpoint,
    cipher: Option<&FileCipher>,
) -> [u8; FIRST as usize] {
    let mut block = [0u8; FIRST as usize];
    let mut body = Vec::with_capacity(256);
    let format = if cipher.is_some() { FORMAT } else { CLEAR };
    body.extend_from_slice(&format.to_le_bytes());
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
    if let Some(cipher) = cipher {
        let sealed = cipher.key_block(&block[12..KEY_AT]);
        block[KEY_AT..KEY_AT + KEY_BLOCK].copy_from_slice(&sealed);
    }
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
        keys: Option<&Keyring>,
    ) -> Result<Self, StorageError> {
        let path = path_of(dir, number);
        let cipher = match keys {
            Some(keys) => {
                let made = FileCipher::create(keys, &[&purpose(owner, number)]);
                Some(made.ok_or_else(|| StorageError::damaged(&path, 0, "no key for it"))?)
            }
            None => None,
        };
        let unfinished = path.with_extension("tmp");
        let making = StorageError::io("make", &path);
        let file = (|| {
            let file = disk.create(&unfinished, capacity)?;
            let header = encode_header(owner, number, capacity, checkpoint, cipher.as_ref());
            file.write_at(&header, 0)?;
            file.sync()?;
            disk.rename(&unfinished, &path)?;
            disk.sync_dir(dir)?;
            Ok(file)
        })()
        .map_err(making)?;
        Ok(Self { number, path, file, capacity, cipher: cipher.map(Arc::new) })
    }

    /// Opens a segment and reads it whole; `each` gets every record with its offset.
    pub(crate) fn load(
        disk: &dyn Disk,
        dir: &Path,
        owner: Owner,
        number: u64,
        keys: Option<&Keyring>,
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
        let cipher = cipher_of(&path, &bytes, owner, number, keys)?.map(Arc::new);
        let stop = record::scan(&bytes, FIRST as usize, number, cipher.as_deref(), |at, record| {
            each(at as u64, record)
        });
        if let Stop::Damaged { at, what } = stop {
            return Err(StorageError::damaged(&path, at as u64, what));
        }
        Ok((Self { number, path, file, capacity, cipher }, checkpoint, stop))
    }

    /// Reads the entry whose record starts at `offset` and takes `size` bytes at most.
    pub(crate) fn read_entry(
        &self,
        offset: u64,
        size: usize,
    ) -> Result<record::LogEntry, StorageError> {
        let end = self.capacity.min(offset.saturating_add(size as u64));
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(offset)).unwrap_or(size)];
        self.file.read_at(&mut bytes, offset).map_err(StorageError::io("read", &self.path))?;
        let spot = Spot { segment: self.number, offset };
        match record::read(&bytes, spot, self.cipher.as_deref()) {
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

/// The key of a segment whose header was checked; none for one in the clear.
fn cipher_of(
    path: &Path,
    bytes: &[u8],
    owner: Owner,
    number: u64,
    keys: Option<&Keyring>,
) -> Result<Option<FileCipher>, StorageError> {
    if u32_at(bytes, 12) == Some(CLEAR) {
        return Ok(None);
    }
    let block = bytes.get(KEY_AT..).and_then(|rest| rest.first_chunk::<KEY_BLOCK>());
    let Some(block) = block else {
        return Err(StorageError::damaged(path, KEY_AT as u64, "the header has no key block"));
    };
    FileCipher::open(keys, &[&purpose(owner, number)], &bytes[12..KEY_AT], block)
        .map(Some)
        .map_err(|problem| unreadable(path, KEY_AT as u64, problem))
}

pub(crate) fn unreadable(path: &Path, offset: u64, problem: Unreadable) -> StorageError {
    match problem {
        Unreadable::NoKey(key_id) => StorageError::NoKey { path: path.to_path_buf(), key_id },
        Unreadable::Suite(_) => {
            StorageError::damaged(path, offset, "it is encrypted in a way this version lacks")
        }
        Unreadable::Header => StorageError::damaged(
            path,
            offset,
            "its header is not what was written under the data key it names",
        ),
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
