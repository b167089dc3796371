//! Snapshot files: how a state is written, checked, received and replaced.
//!
//! A file is a checked header (format, cluster, what it covers) and a zstd stream of the encoded
//! state, cut into blocks that carry their own checksums, closed by an empty block. It is written
//! under a temporary name, synced, renamed, and the folder synced; only then do older ones go.
//! A file that does not check is an error that names it; the log it replaced may be gone, so
//! nothing older is ever used in its place.

mod blocks;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cluster_model::State;
use serde::{Deserialize, Serialize};

use super::codec;
use super::disk::{Disk, DiskFile};
use super::error::StorageError;
use super::types::SnapshotMeta;
use blocks::{BlockReader, BlockWriter};

const MAGIC: &[u8; 8] = b"CLRAFTSN";
/// Format that this program writes, and the newest it reads.
const FORMAT: u32 = 1;
/// Magic, checksum, format, cluster, length of the encoded meta.
const FIXED: usize = 8 + 4 + 4 + 8 + 4;
/// Bound of the encoded meta: a few members with their addresses.
const META_LIMIT: usize = 1 << 20;
/// Fast enough not to be felt; the state is mostly small numbers and repeats.
const LEVEL: i32 = 1;

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
    current: Mutex<Option<(SnapshotMeta, SnapshotFile)>>,
    /// Makes names of unfinished files unique within this process.
    unfinished: AtomicU64,
}

impl SnapshotStore {
    /// Opens the folder and checks the newest snapshot's header.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        cluster_id: u64,
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
            current: Mutex::new(None),
            unfinished: AtomicU64::new(0),
        }));
        // Names sort by what they cover.
        if let Some(name) = names.iter().rfind(|name| name.ends_with(".snap")) {
            let path = dir.join(name);
            let file = store.0.disk.open(&path).map_err(StorageError::io("open", &path))?;
            let len = file.size().map_err(StorageError::io("read", &path))?;
            let file = SnapshotFile { path, file, len };
            let (meta, _) = store.read_header(&file)?;
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
        let header = self.header(&path, meta)?;
        let written = (|| {
            file.write_at(&header, 0)?;
            let mut blocks = BlockWriter::new(file.clone(), header.len() as u64);
            let mut packer = zstd::Encoder::new(&mut blocks, LEVEL)?;
            codec::encode_to(state, &mut packer)?;
            packer.finish()?;
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

    fn header(&self, path: &Path, meta: &SnapshotMeta) -> Result<Vec<u8>, StorageError> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let covers = codec::encode(&Covers { meta: meta.clone() }).map_err(|source| {
            StorageError::Payload { what: "what a snapshot covers", index, source }
        })?;
        let mut header = Vec::with_capacity(FIXED + covers.len());
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.extend_from_slice(&self.0.cluster_id.to_le_bytes());
        let len = u32::try_from(covers.len()).unwrap_or(u32::MAX);
        header.extend_from_slice(&len.to_le_bytes());
        header.extend_from_slice(&covers);
        if covers.len() > META_LIMIT {
            return Err(StorageError::damaged(path, 0, "what it covers does not fit its header"));
        }
        let sum = crc32fast::hash(&header[12..]);
        header[8..12].copy_from_slice(&sum.to_le_bytes());
        Ok(header)
    }

    /// Checks a header: what the snapshot covers, and where its blocks start.
    fn read_header(&self, snapshot: &SnapshotFile) -> Result<(SnapshotMeta, u64), StorageError> {
        let path = &snapshot.path;
        let damaged = || StorageError::damaged(path, 0, "the file's header does not check");
        let short = || StorageError::CutShort {
            path: path.clone(),
            len: snapshot.len,
            expected: FIXED as u64,
        };
        let mut fixed = [0u8; FIXED];
        snapshot.file.read_at(&mut fixed, 0).map_err(|_| short())?;
        let number = |at: usize| super::log::record::u32_at(&fixed, at).unwrap_or_default();
        let len = number(24) as usize;
        if &fixed[..8] != MAGIC || len > META_LIMIT {
            return Err(damaged());
        }
        let mut covers = vec![0; len];
        snapshot.file.read_at(&mut covers, FIXED as u64).map_err(|_| short())?;
        let mut sum = crc32fast::Hasher::new();
        sum.update(&fixed[12..]);
        sum.update(&covers);
        if sum.finalize() != number(8) {
            return Err(damaged());
        }
        if number(12) > FORMAT {
            return Err(StorageError::NewerVersion {
                path: path.clone(),
                found: number(12),
                known: FORMAT,
            });
        }
        let found = super::log::record::u64_at(&fixed, 16).unwrap_or_default();
        if found != self.0.cluster_id {
            let expected = self.0.cluster_id;
            return Err(StorageError::OtherCluster { path: path.clone(), found, expected });
        }
        let Covers { meta } = codec::decode(&covers).map_err(|source| StorageError::Payload {
            what: "what a snapshot covers",
            index: 0,
            source,
        })?;
        Ok((meta, (FIXED + len) as u64))
    }

    /// Reads and checks a whole snapshot.
    pub(crate) fn read(
        &self,
        snapshot: &SnapshotFile,
    ) -> Result<(SnapshotMeta, State), StorageError> {
        let (meta, start) = self.read_header(snapshot)?;
        let mut blocks = BlockReader::new(snapshot, start);
        let state = (|| {
            let unpacked = zstd::Decoder::new(&mut blocks)?;
            codec::decode_from(unpacked)
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
        let (meta, start) = self.read_header(snapshot)?;
        BlockReader::new(snapshot, start).check_all()?;
        Ok(meta)
    }

    /// Starts receiving a snapshot.
    pub(crate) fn receive(&self) -> Result<Incoming, StorageError> {
        let path = self.unfinished_path();
        let file = self.0.disk.create(&path, 0).map_err(StorageError::io("make", &path))?;
        Ok(Incoming { store: self.clone(), file: Some(SnapshotFile { path, file, len: 0 }) })
    }
}

/// A snapshot being received; removed again unless it is finished.
pub(crate) struct Incoming {
    store: SnapshotStore,
    file: Option<SnapshotFile>,
}

impl Incoming {
    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        if let Some(file) = &mut self.file {
            file.file.write_at(chunk, file.len).map_err(StorageError::io("write", &file.path))?;
            file.len += chunk.len() as u64;
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> u64 {
        self.file.as_ref().map_or(0, |file| file.len)
    }

    /// Checks what was received.
    pub(crate) fn finish(mut self) -> Result<SnapshotFile, StorageError> {
        if let Some(file) = &self.file {
            self.store.verify(file)?;
        }
        self.file
            .take()
            .ok_or(StorageError::Stopped { reason: "a snapshot was finished twice".into() })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(file) = self.file.take()
            && let Err(error) = self.store.0.disk.remove(&file.path)
        {
            tracing::warn!(path = %file.path.display(), %error, "cannot remove an unfinished snapshot");
        }
    }
}
