//! The body of a snapshot file: blocks of `length | checksum | bytes`, closed by an empty one.
//!
//! The checksum covers the block's number too, so that blocks cannot change places. In an encrypted
//! file the bytes of each block are sealed, the empty one's too, so that the end cannot be forged.

use std::io::{self, Read, Write};
use std::sync::Arc;

use super::SnapshotFile;
use crate::raft::cipher::{FileCipher, TAG};
use crate::raft::disk::DiskFile;
use crate::raft::error::StorageError;
use crate::raft::log::record::u32_at;

/// Payload of a block.
pub(super) const BLOCK: usize = 256 * 1024;
pub(super) const HEAD: usize = 8;

pub(super) fn checksum(number: u64, bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&number.to_le_bytes());
    sum.update(bytes);
    sum.finalize()
}

pub(super) struct BlockWriter {
    file: Arc<dyn DiskFile>,
    at: u64,
    number: u64,
    /// Head and payload of the block being filled.
    block: Vec<u8>,
    cipher: Option<FileCipher>,
}

impl BlockWriter {
    pub(super) fn new(file: Arc<dyn DiskFile>, at: u64, cipher: Option<FileCipher>) -> Self {
        Self { file, at, number: 0, block: vec![0; HEAD], cipher }
    }

    fn end_block(&mut self) -> io::Result<()> {
        if let Some(cipher) = &self.cipher {
            cipher.seal_block(self.number, &mut self.block, HEAD);
        }
        let payload = &self.block[HEAD..];
        let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let sum = checksum(self.number, payload);
        self.block[..4].copy_from_slice(&len.to_le_bytes());
        self.block[4..HEAD].copy_from_slice(&sum.to_le_bytes());
        self.file.write_at(&self.block, self.at)?;
        self.at += self.block.len() as u64;
        self.number += 1;
        self.block.truncate(HEAD);
        Ok(())
    }

    /// Closes the body; returns the length of the file.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        if self.block.len() > HEAD {
            self.end_block()?;
        }
        self.end_block()?;
        Ok(self.at)
    }
}

impl Write for BlockWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = HEAD + BLOCK - self.block.len();
        let taken = room.min(bytes.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == HEAD + BLOCK {
            self.end_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) struct BlockReader<'a> {
    snapshot: &'a SnapshotFile,
    at: u64,
    number: u64,
    block: Vec<u8>,
    used: usize,
    ended: bool,
    error: Option<StorageError>,
    cipher: Option<&'a FileCipher>,
}

impl<'a> BlockReader<'a> {
    pub(super) fn new(snapshot: &'a SnapshotFile, at: u64, cipher: Option<&'a FileCipher>) -> Self {
        let block = Vec::new();
        Self { snapshot, at, number: 0, block, used: 0, ended: false, error: None, cipher }
    }

    /// Reads the next block; an empty one ends the body.
    fn next_block(&mut self) -> Result<(), StorageError> {
        let SnapshotFile { path, file, len } = self.snapshot;
        let short = || StorageError::CutShort {
            path: path.clone(),
            len: *len,
            expected: self.at + HEAD as u64,
        };
        let mut head = [0u8; HEAD];
        if self.at + HEAD as u64 > *len {
            return Err(short());
        }
        file.read_at(&mut head, self.at).map_err(StorageError::io("read", path))?;
        let size = u32_at(&head, 0).unwrap_or_default() as usize;
        if size > BLOCK + self.cipher.map_or(0, |_| TAG) {
            return Err(StorageError::damaged(path, self.at, "a block is longer than blocks are"));
        }
        if self.at + (HEAD + size) as u64 > *len {
            return Err(short());
        }
        self.block.resize(size, 0);
        file.read_at(&mut self.block, self.at + HEAD as u64)
            .map_err(StorageError::io("read", path))?;
        if Some(checksum(self.number, &self.block)) != u32_at(&head, 4) {
            return Err(StorageError::damaged(
                path,
                self.at,
                "the block's checksum does not match",
            ));
        }
        if let Some(cipher) = self.cipher {
            let foreign =
                || StorageError::damaged(path, self.at, "the block is not what was encrypted here");
            cipher.unseal_block(self.number, &mut self.block).ok_or_else(foreign)?;
        }
        self.at += (HEAD + size) as u64;
        self.number += 1;
        self.used = 0;
        self.ended = self.block.is_empty();
        Ok(())
    }

    pub(super) fn take_error(&mut self) -> Option<StorageError> {
        self.error.take()
    }

    /// The decoder is done: nothing may be left.
    pub(super) fn expect_end(&mut self) -> Result<(), StorageError> {
        if !self.ended && self.used == self.block.len() {
            self.next_block()?;
        }
        if !self.ended || self.at != self.snapshot.len {
            return Err(StorageError::damaged(
                &self.snapshot.path,
                self.at,
                "data follows the end of the state",
            ));
        }
        Ok(())
    }

    pub(super) fn check_all(mut self) -> Result<(), StorageError> {
        while !self.ended {
            self.next_block()?;
        }
        self.expect_end()
    }
}

impl Read for BlockReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.used == self.block.len()
            && !self.ended
            && let Err(error) = self.next_block()
        {
            self.error = Some(error);
            return Err(io::ErrorKind::InvalidData.into());
        }
        let left = &self.block[self.used..];
        let taken = left.len().min(out.len());
        out[..taken].copy_from_slice(&left[..taken]);
        self.used += taken;
        Ok(taken)
    }
}
