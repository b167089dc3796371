//! An encrypted snapshot seen as one in the clear, decrypted block by block as it is read.
//!
//! All blocks but the last two are full, so offsets of one map to the other by arithmetic.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::SnapshotFile;
use super::blocks::{BLOCK, HEAD, checksum};
use crate::raft::cipher::{FileCipher, TAG};
use crate::raft::disk::DiskFile;
use crate::raft::error::StorageError;

const PLAIN: u64 = (HEAD + BLOCK) as u64;
const SEALED: u64 = PLAIN + TAG as u64;

struct View {
    /// The header that a file in the clear has.
    header: Vec<u8>,
    sealed: SnapshotFile,
    /// Where its blocks start.
    start: u64,
    cipher: FileCipher,
    len: u64,
    /// The block that was read last, with the head it has in the clear.
    last: Mutex<Option<(u64, Vec<u8>)>>,
}

pub(super) fn view(
    sealed: SnapshotFile,
    header: Vec<u8>,
    start: u64,
    cipher: FileCipher,
) -> Result<SnapshotFile, StorageError> {
    let (head, tag) = (HEAD as u64, TAG as u64);
    let short = || StorageError::CutShort {
        path: sealed.path.clone(),
        len: sealed.len,
        expected: start + head + tag,
    };
    let blocks = sealed.len.checked_sub(start + head + tag).ok_or_else(short)?;
    let (full, rest) = (blocks / SEALED, blocks % SEALED);
    let rest = if rest == 0 { 0 } else { rest.checked_sub(tag).ok_or_else(short)? };
    let len = header.len() as u64 + full * PLAIN + rest + head;
    let path = sealed.path.clone();
    let view = View { header, sealed, start, cipher, len, last: Mutex::new(None) };
    Ok(SnapshotFile { path, file: Arc::new(view), len })
}

impl View {
    /// Block `number` as it is in the clear, head included.
    fn block(&self, number: u64) -> io::Result<Vec<u8>> {
        let at = self.start + number * SEALED;
        let end = self.sealed.len.min(at + SEALED);
        let bad =
            |what| io::Error::other(StorageError::damaged(&self.sealed.path, at, what).chain());
        let mut head = [0; HEAD];
        self.sealed.file.read_at(&mut head, at)?;
        let size = u64::from(u32::from_le_bytes([head[0], head[1], head[2], head[3]]));
        if at + HEAD as u64 + size > end {
            return Err(bad("a block is longer than blocks are"));
        }
        let mut body = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.sealed.file.read_at(&mut body, at + HEAD as u64)?;
        self.cipher
            .unseal_block(number, &mut body)
            .ok_or_else(|| bad("the block is not what was encrypted here"))?;
        let mut plain = Vec::with_capacity(HEAD + body.len());
        plain
            .extend_from_slice(&u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes());
        plain.extend_from_slice(&checksum(number, &body).to_le_bytes());
        plain.extend_from_slice(&body);
        Ok(plain)
    }

    /// Copies what is at `offset`, up to the end of the header or of a block.
    fn read_some(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let copy = |from: &[u8], at: u64, out: &mut [u8]| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let Some(left) = from.get(at..).filter(|left| !left.is_empty()) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let taken = left.len().min(out.len());
            out[..taken].copy_from_slice(&left[..taken]);
            Ok(taken)
        };
        let Some(at) = offset.checked_sub(self.header.len() as u64) else {
            return copy(&self.header, offset, out);
        };
        // The last block, the empty one, follows one that may be short.
        let number = (at / PLAIN).min(self.blocks() - 1);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut within = at - number * PLAIN;
        let mut number = number;
        if last.as_ref().is_none_or(|(known, _)| *known != number) {
            *last = Some((number, self.block(number)?));
        }
        let size = last.as_ref().map_or(0, |(_, block)| block.len() as u64);
        if within >= size {
            within -= size;
            number += 1;
            return copy(&self.end_block(number)?, within, out);
        }
        match &*last {
            Some((_, block)) => copy(block, within, out),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Blocks that are found by multiples of the block size.
    fn blocks(&self) -> u64 {
        let body = self.sealed.len - self.start - (HEAD + TAG) as u64;
        body.div_ceil(SEALED).max(1)
    }

    /// The closing block stands right behind the last one with data.
    fn end_block(&self, number: u64) -> io::Result<Vec<u8>> {
        let at = self.sealed.len - (HEAD + TAG) as u64;
        let mut body = vec![0; TAG];
        self.sealed.file.read_at(&mut body, at + HEAD as u64)?;
        let foreign = || {
            let what = "the block is not what was encrypted here";
            io::Error::other(StorageError::damaged(&self.sealed.path, at, what).chain())
        };
        self.cipher.unseal_block(number, &mut body).ok_or_else(foreign)?;
        let mut plain = vec![0; 4];
        plain.extend_from_slice(&checksum(number, &body).to_le_bytes());
        Ok(plain)
    }
}

impl DiskFile for View {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            done += self.read_some(&mut buffer[done..], offset + done as u64)?;
        }
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len)
    }
}
