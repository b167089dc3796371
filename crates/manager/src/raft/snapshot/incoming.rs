//! A snapshot on its way in: comes in the clear, reaches the disk encrypted if there are keys.

use std::io::Write as _;

use super::blocks::{BLOCK, BlockWriter, HEAD, checksum};
use super::{CLEAR, FIXED, Head, META_LIMIT, SnapshotFile, SnapshotStore};
use crate::raft::error::StorageError;
use crate::raft::log::record::u32_at;

/// A snapshot being received; removed again unless it is finished.
pub(crate) struct Incoming {
    store: SnapshotStore,
    file: Option<SnapshotFile>,
    received: u64,
    /// What came and is not written yet: less than a header or a block.
    waiting: Vec<u8>,
    stage: Stage,
}

/// What comes next.
enum Stage {
    /// Bytes that are written as they are: nothing is encrypted here.
    Verbatim,
    Header,
    Block {
        writer: Box<BlockWriter>,
        number: u64,
    },
    End,
}

impl Incoming {
    pub(super) fn new(store: SnapshotStore, file: SnapshotFile) -> Self {
        let stage = if store.0.keys.is_some() { Stage::Header } else { Stage::Verbatim };
        Self { store, file: Some(file), received: 0, waiting: Vec::new(), stage }
    }

    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        self.received += chunk.len() as u64;
        if let Stage::Verbatim = self.stage {
            file.file.write_at(chunk, file.len).map_err(StorageError::io("write", &file.path))?;
            file.len += chunk.len() as u64;
            return Ok(());
        }
        self.waiting.extend_from_slice(chunk);
        let mut used = 0;
        loop {
            let before = self.received - (self.waiting.len() - used) as u64;
            let taken = step(&self.store, file, &mut self.stage, &self.waiting[used..], before)?;
            if taken == 0 {
                break;
            }
            used += taken;
        }
        self.waiting.drain(..used);
        Ok(())
    }

    /// Bytes received so far.
    pub(crate) fn len(&self) -> u64 {
        self.received
    }

    /// Checks what was received.
    pub(crate) fn finish(mut self) -> Result<SnapshotFile, StorageError> {
        if let Some(file) = &self.file {
            if matches!(self.stage, Stage::Header | Stage::Block { .. }) {
                let (path, len) = (file.path.clone(), self.received);
                return Err(StorageError::CutShort { path, len, expected: len + HEAD as u64 });
            }
            self.store.verify(file)?;
        }
        self.file
            .take()
            .ok_or(StorageError::Stopped { reason: "a snapshot was finished twice".into() })
    }
}

/// Takes a header or a block from the front of `bytes`, if it is whole; answers how much was taken.
fn step(
    store: &SnapshotStore,
    file: &mut SnapshotFile,
    stage: &mut Stage,
    bytes: &[u8],
    before: u64,
) -> Result<usize, StorageError> {
    let damaged = |what| StorageError::damaged(&file.path, before, what);
    match stage {
        Stage::Verbatim => Ok(0),
        Stage::Header => {
            let Some(covers) = u32_at(bytes, 24) else { return Ok(0) };
            if covers as usize > META_LIMIT || u32_at(bytes, 12) != Some(CLEAR) {
                return Err(damaged("what came does not begin like a snapshot in the clear"));
            }
            if bytes.len() < FIXED + covers as usize {
                return Ok(0);
            }
            let read = |out: &mut [u8], at: u64| {
                let from = usize::try_from(at).map_err(std::io::Error::other)?;
                let found = bytes.get(from..from + out.len());
                out.copy_from_slice(found.ok_or(std::io::ErrorKind::UnexpectedEof)?);
                Ok(())
            };
            let Head { meta, start, .. } =
                store.parse_header(&file.path, bytes.len() as u64, read)?;
            let cipher = store.new_cipher(&file.path)?;
            let header = store.header(&file.path, &meta, cipher.as_ref())?;
            file.file.write_at(&header, 0).map_err(StorageError::io("write", &file.path))?;
            let start_at = header.len() as u64;
            let writer = Box::new(BlockWriter::new(file.file.clone(), start_at, cipher));
            *stage = Stage::Block { writer, number: 0 };
            Ok(usize::try_from(start).unwrap_or(usize::MAX))
        }
        Stage::Block { writer, number } => {
            let Some((size, sum)) = u32_at(bytes, 0).zip(u32_at(bytes, 4)) else { return Ok(0) };
            let size = size as usize;
            if size > BLOCK {
                return Err(damaged("a block is longer than blocks are"));
            }
            let Some(block) = bytes.get(HEAD..HEAD + size) else { return Ok(0) };
            if checksum(*number, block) != sum {
                return Err(damaged("the block's checksum does not match"));
            }
            *number += 1;
            if !block.is_empty() {
                writer.write_all(block).map_err(StorageError::io("write", &file.path))?;
                return Ok(HEAD + size);
            }
            if let Stage::Block { writer, .. } = std::mem::replace(stage, Stage::End) {
                file.len = writer.finish().map_err(StorageError::io("write", &file.path))?;
            }
            Ok(HEAD)
        }
        Stage::End if bytes.is_empty() => Ok(0),
        Stage::End => Err(damaged("data follows the end of the state")),
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
