//! Snapshot files: how a state is written, checked, received and replaced.
//!
//! A file is a checked header (format, cluster, what it covers) and a zstd stream of the encoded
//! state, cut into blocks that carry their own checksums, closed by an empty block. It is written
//! under a temporary name, synced, renamed, and the folder synced; only then do older ones go.
//! A file that does not check is an error that names it; the log it replaced may be gone, so
//! nothing older is ever used in its place.
//!
//! With data keys, the blocks are encrypted under a key of the file's own (format 2). Data keys are
//! each manager's alone, so between managers a snapshot travels in the clear of format 1, inside
//! TLS: `plain` shows a file that way, and `Incoming` encrypts what it receives as it comes.

mod blocks;
mod incoming;
mod plain;
#[cfg(test)]
mod tests;

use std::io::{BufReader, BufWriter, IntoInnerError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cluster_model::State;
use serde::{Deserialize, Serialize};

use super::cipher::{FileCipher, KEY_BLOCK, Keyring};
use super::codec;
use super::disk::{Disk, DiskFile};
use super::error::StorageError;
use super::log::segment::unreadable;
use super::types::SnapshotMeta;
use blocks::{BlockReader, BlockWriter};
pub(crate) use incoming::Incoming;

const MAGIC: &[u8; 8] = b"CLRAFTSN";
/// A file in the clear.
const CLEAR: u32 = 1;
/// An encrypted file; the newest format this program reads.
const FORMAT: u32 = 2;
/// What a file's key is derived for.
const PURPOSE: &[u8] = b"cluster snapshot";
/// Magic, checksum, format, cluster, length of the encoded meta.
const FIXED: usize = 8 + 4 + 4 + 8 + 4;
/// Bound of the encoded meta: a few members with their addresses.
const META_LIMIT: usize = 1 << 20;
/// Fast enough not to be felt; the state is mostly small numbers and repeats.
const LEVEL: i32 = 1;
/// Fields go to and come from the compressor together, so many bytes at a time: most are of one byte.
const FIELDS: usize = 64 << 10;

/// An open snapshot file.
#[derive(Clone)]
pub struct SnapshotFile {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) len: u64,
}

impl std::fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} bytes", self.path.display(), self.len)
    }
}

#[derive(Serialize, Deserialize)]
struct Covers {
    meta: SnapshotMeta,
}

/// The snapshots of a manager; there is one that counts. Clones share it.
#[derive(Clone)]
pub(crate) struct SnapshotStore(Arc<Store>);

struct Store {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    cluster_id: u64,
    /// None: nothing is encrypted.
    keys: Option<Keyring>,
    current: Mutex<Option<(SnapshotMeta, SnapshotFile)>>,
    /// Makes names of unfinished files unique within this process.
    unfinished: AtomicU64,
}

/// A checked header.
struct Head {
    meta: SnapshotMeta,
    /// Where the blocks start.
    start: u64,
    cipher: Option<FileCipher>,
}

impl SnapshotStore {
    /// Opens a folder where nothing is encrypted.
    #[cfg(test)]
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        cluster_id: u64,
    ) -> Result<Self, StorageError> {
        Self::open_with(disk, dir, cluster_id, None)
    }

    /// Opens the folder and checks the newest snapshot's header. With keys, snapshots written from
    /// now on are encrypted; one that was written before is read as it is.
    pub(crate) fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        cluster_id: u64,
        keys: Option<Keyring>,
    ) -> Result<Self, StorageError> {
        disk.create_dir(dir).map_err(StorageError::io("make", dir))?;
        let names = disk.list(dir).map_err(StorageError::io("list", dir))?;
        for name in names.iter().filter(|name| name.ends_with(".tmp")) {
            let path = dir.join(name);
            disk.remove(&path).map_err(StorageError::io("remove", &path))?;
        }
        // What the last process renamed and did not live to sync must not be lost once the log that
        // it covers goes.
        disk.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
        let store = Self(Arc::new(Store {
            disk,
            dir: dir.to_path_buf(),
            cluster_id,
            keys,
            current: Mutex::new(None),
            unfinished: AtomicU64::new(0),
        }));
        // Names sort by what they cover.
        if let Some(name) = names.iter().rfind(|name| name.ends_with(".snap")) {
            let path = dir.join(name);
            let file = store.0.disk.open(&path).map_err(StorageError::io("open", &path))?;
            let len = file.size().map_err(StorageError::io("read", &path))?;
            let file = SnapshotFile { path, file, len };
            let Head { meta, .. } = store.read_header(&file)?;
            store.set_current(meta, file);
        }
        Ok(store)
    }

    fn set_current(&self, meta: SnapshotMeta, file: SnapshotFile) {
        *self.0.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((meta, file));
    }

    /// The snapshot that counts.
    pub(crate) fn current(&self) -> Option<(SnapshotMeta, SnapshotFile)> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn unfinished_path(&self) -> PathBuf {
        let number = self.0.unfinished.fetch_add(1, Ordering::Relaxed);
        self.0.dir.join(format!("{number}.tmp"))
    }

    /// Writes `state` as the snapshot that counts.
    pub(crate) fn write(
        &self,
        meta: &SnapshotMeta,
        state: &State,
    ) -> Result<SnapshotFile, StorageError> {
        let path = self.unfinished_path();
        let file = self.0.disk.create(&path, 0).map_err(StorageError::io("make", &path))?;
        let cipher = self.new_cipher(&path)?;
        let header = self.header(&path, meta, cipher.as_ref())?;
        let written = (|| {
            file.write_at(&header, 0)?;
            let mut blocks = BlockWriter::new(file.clone(), header.len() as u64, cipher);
            let packer = zstd::Encoder::new(&mut blocks, LEVEL)?;
            let mut fields = BufWriter::with_capacity(FIELDS, packer);
            codec::encode_to(state, &mut fields)?;
            fields.into_inner().map_err(IntoInnerError::into_error)?.finish()?;
            blocks.finish()
        })();
        let len = written.map_err(StorageError::io("write the snapshot", &path))?;
        self.adopt(meta, SnapshotFile { path, file, len })
    }

    /// Makes a complete file the snapshot that counts; returns once that is durable.
    pub(crate) fn adopt(
        &self,
        meta: &SnapshotMeta,
        file: SnapshotFile,
    ) -> Result<SnapshotFile, StorageError> {
        let (term, index) = meta.last_log_id.map_or((0, 0), |id| (id.leader_id.term, id.index));
        let name = format!("{index:020}-{term:020}.snap");
        let path = self.0.dir.join(&name);
        if path != file.path {
            file.file.sync().map_err(StorageError::io("sync", &file.path))?;
            self.0
                .disk
                .rename(&file.path, &path)
                .map_err(StorageError::io("rename", &file.path))?;
            self.0.disk.sync_dir(&self.0.dir).map_err(StorageError::io("sync", &self.0.dir))?;
        }
        let file = SnapshotFile { path, ..file };
        self.set_current(meta.clone(), file.clone());
        self.remove_older(&name)?;
        Ok(file)
    }

    fn remove_older(&self, newest: &str) -> Result<(), StorageError> {
        let Store { disk, dir, .. } = &*self.0;
        let names = disk.list(dir).map_err(StorageError::io("list", dir))?;
        for name in names.iter().filter(|name| name.ends_with(".snap") && name.as_str() < newest) {
            let path = dir.join(name);
            disk.remove(&path).map_err(StorageError::io("remove", &path))?;
        }
        Ok(())
    }

    fn purpose(&self) -> Vec<u8> {
        [PURPOSE, &self.0.cluster_id.to_le_bytes()].concat()
    }

    /// A key for a new file, if there are data keys.
    fn new_cipher(&self, path: &Path) -> Result<Option<FileCipher>, StorageError> {
        let Some(keys) = &self.0.keys else { return Ok(None) };
        let cipher = FileCipher::create(keys, &[&self.purpose()]);
        cipher.map(Some).ok_or_else(|| StorageError::damaged(path, 0, "there is no key for it"))
    }

    /// The data key that the snapshot that counts needs; none when it is in the clear, no answer
    /// when there is no snapshot.
    pub(crate) fn key_id(&self) -> Result<Option<Option<u64>>, StorageError> {
        let Some((_, file)) = self.current() else { return Ok(None) };
        let Head { cipher, .. } = self.read_header(&file)?;
        Ok(Some(cipher.map(|cipher| cipher.key_id())))
    }

    fn header(
        &self,
        path: &Path,
        meta: &SnapshotMeta,
        cipher: Option<&FileCipher>,
    ) -> Result<Vec<u8>, StorageError> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let covers = codec::encode(&Covers { meta: meta.clone() }).map_err(|source| {
            StorageError::Payload { what: "what a snapshot covers", index, source }
        })?;
        let mut header = Vec::with_capacity(FIXED + covers.len());
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&[0; 4]);
        let format = if cipher.is_some() { FORMAT } else { CLEAR };
        header.extend_from_slice(&format.to_le_bytes());
        header.extend_from_slice(&self.0.cluster_id.to_le_bytes());
        let len = u32::try_from(covers.len()).unwrap_or(u32::MAX);
        header.extend_from_slice(&len.to_le_bytes());
        header.extend_from_slice(&covers);
        if covers.len() > META_LIMIT {
            return Err(StorageError::damaged(path, 0, "what it covers does not fit its header"));
        }
        if let Some(cipher) = cipher {
            let block = cipher.key_block(&header[12..]);
            header.extend_from_slice(&block);
        }
        let sum = crc32fast::hash(&header[12..]);
        header[8..12].copy_from_slice(&sum.to_le_bytes());
        Ok(header)
    }

    /// Checks a file's header.
    fn read_header(&self, snapshot: &SnapshotFile) -> Result<Head, StorageError> {
        let SnapshotFile { path, file, len } = snapshot;
        self.parse_header(path, *len, |bytes, at| file.read_at(bytes, at))
    }

    /// Checks the header of something that can be read at offsets.
    fn parse_header(
        &self,
        path: &Path,
        file_len: u64,
        read_at: impl Fn(&mut [u8], u64) -> std::io::Result<()>,
    ) -> Result<Head, StorageError> {
        let damaged = || StorageError::damaged(path, 0, "the file's header does not check");
        let short = || StorageError::CutShort {
            path: path.to_path_buf(),
            len: file_len,
            expected: FIXED as u64,
        };
        let mut fixed = [0u8; FIXED];
        read_at(&mut fixed, 0).map_err(|_| short())?;
        let number = |at: usize| super::log::record::u32_at(&fixed, at).unwrap_or_default();
        let (format, len) = (number(12), number(24) as usize);
        if &fixed[..8] != MAGIC || len > META_LIMIT {
            return Err(damaged());
        }
        let mut covers = vec![0; len];
        read_at(&mut covers, FIXED as u64).map_err(|_| short())?;
        let mut key = [0; KEY_BLOCK];
        let key_at = (FIXED + len) as u64;
        let key = match format {
            CLEAR => &mut key[..0],
            _ => &mut key[..],
        };
        read_at(key, key_at).map_err(|_| short())?;
        let mut sum = crc32fast::Hasher::new();
        [&fixed[12..], &covers[..], &*key].into_iter().for_each(|part| sum.update(part));
        if sum.finalize() != number(8) {
            return Err(damaged());
        }
        if format > FORMAT {
            let (path, found) = (path.to_path_buf(), format);
            return Err(StorageError::NewerVersion { path, found, known: FORMAT });
        }
        let found = super::log::record::u64_at(&fixed, 16).unwrap_or_default();
        if found != self.0.cluster_id {
            let (path, expected) = (path.to_path_buf(), self.0.cluster_id);
            return Err(StorageError::OtherCluster { path, found, expected });
        }
        let cipher = match key.first_chunk::<KEY_BLOCK>() {
            Some(block) => {
                let stated = [&fixed[12..], &covers[..]].concat();
                let (keys, purpose) = (self.0.keys.as_ref(), self.purpose());
                let opened = FileCipher::open(keys, &[&purpose], &stated, block);
                Some(opened.map_err(|problem| unreadable(path, key_at, problem))?)
            }
            None => None,
        };
        let Covers { meta } = codec::decode(&covers).map_err(|source| StorageError::Payload {
            what: "what a snapshot covers",
            index: 0,
            source,
        })?;
        Ok(Head { meta, start: key_at + key.len() as u64, cipher })
    }

    /// Reads and checks a whole snapshot.
    pub(crate) fn read(
        &self,
        snapshot: &SnapshotFile,
    ) -> Result<(SnapshotMeta, State), StorageError> {
        let Head { meta, start, cipher } = self.read_header(snapshot)?;
        let mut blocks = BlockReader::new(snapshot, start, cipher.as_ref());
        let state = (|| {
            let unpacked = zstd::Decoder::new(&mut blocks)?;
            codec::decode_from(BufReader::with_capacity(FIELDS, unpacked))
        })();
        // A bad block stops the decoder with a vaguer error than its own.
        if let Some(error) = blocks.take_error() {
            return Err(error);
        }
        let state = state.map_err(StorageError::io("read the snapshot", &snapshot.path))?;
        blocks.expect_end()?;
        Ok((meta, state))
    }

    /// Checks every block of a snapshot without decoding it.
    pub(crate) fn verify(&self, snapshot: &SnapshotFile) -> Result<SnapshotMeta, StorageError> {
        let Head { meta, start, cipher } = self.read_header(snapshot)?;
        BlockReader::new(snapshot, start, cipher.as_ref()).check_all()?;
        Ok(meta)
    }

    /// The same snapshot as a file in the clear, for another manager or a backup: read-only, and
    /// never on a disk.
    pub(crate) fn plain(&self, snapshot: SnapshotFile) -> Result<SnapshotFile, StorageError> {
        let Head { meta, start, cipher } = self.read_header(&snapshot)?;
        let Some(cipher) = cipher else { return Ok(snapshot) };
        let header = self.header(&snapshot.path, &meta, None)?;
        plain::view(snapshot, header, start, cipher)
    }

    /// Starts receiving a snapshot in the clear.
    pub(crate) fn receive(&self) -> Result<Incoming, StorageError> {
        let path = self.unfinished_path();
        let file = self.0.disk.create(&path, 0).map_err(StorageError::io("make", &path))?;
        Ok(Incoming::new(self.clone(), SnapshotFile { path, file, len: 0 }))
    }
}
