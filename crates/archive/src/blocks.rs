//! The body of a file: blocks of `length | checksum | bytes`, closed by an empty one. The checksum
//! covers the block's number too, so that blocks cannot change places.

use std::io::{self, Read, Write};

use crate::Error;

/// Payload of a block.
const BLOCK: usize = 256 * 1024;
pub(crate) const HEAD: usize = 8;

pub(crate) fn checksum(number: u64, bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&number.to_le_bytes());
    sum.update(bytes);
    sum.finalize()
}

pub(crate) fn reading(source: io::Error) -> Error {
    Error::Io { doing: "read the snapshot", source }
}

/// Reads until the buffer is full or the input ends; how much there was.
pub(crate) fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match input.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

pub(crate) struct BlockWriter<W> {
    out: W,
    number: u64,
    /// Head and payload of the block being filled.
    block: Vec<u8>,
}

impl<W: Write> BlockWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, number: 0, block: vec![0; HEAD] }
    }

    fn end_block(&mut self) -> io::Result<()> {
        let payload = &self.block[HEAD..];
        let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let sum = checksum(self.number, payload);
        self.block[..4].copy_from_slice(&len.to_le_bytes());
        self.block[4..HEAD].copy_from_slice(&sum.to_le_bytes());
        self.out.write_all(&self.block)?;
        self.number += 1;
        self.block.truncate(HEAD);
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        if self.block.len() > HEAD {
            self.end_block()?;
        }
        self.end_block()?;
        self.out.flush()
    }
}

impl<W: Write> Write for BlockWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = (HEAD + BLOCK - self.block.len()).min(bytes.len());
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

pub(crate) struct BlockReader<R> {
    input: R,
    at: u64,
    number: u64,
    block: Vec<u8>,
    used: usize,
    ended: bool,
    error: Option<Error>,
}

impl<R: Read> BlockReader<R> {
    pub(crate) fn new(input: R, at: u64) -> Self {
        Self { input, at, number: 0, block: Vec::new(), used: 0, ended: false, error: None }
    }

    /// Reads the next block; an empty one ends the body.
    fn next_block(&mut self) -> Result<(), Error> {
        let mut head = [0; HEAD];
        self.take(&mut head)?;
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (size, stated) = (number(0) as usize, number(4));
        let damaged = |what| Error::Damaged { offset: self.at, what };
        if size > BLOCK {
            return Err(damaged("a block is longer than blocks are"));
        }
        let mut block = std::mem::take(&mut self.block);
        block.resize(size, 0);
        self.take(&mut block)?;
        if checksum(self.number, &block) != stated {
            return Err(Error::Damaged {
                offset: self.at,
                what: "a block's checksum does not match",
            });
        }
        self.at += (HEAD + size) as u64;
        self.number += 1;
        self.used = 0;
        self.ended = size == 0;
        self.block = block;
        Ok(())
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        let got = fill(&mut self.input, buffer).map_err(reading)?;
        if got < buffer.len() {
            return Err(Error::CutShort { offset: self.at });
        }
        Ok(())
    }

    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    /// The decoder is done: nothing may be left.
    pub(crate) fn expect_end(&mut self) -> Result<(), Error> {
        if !self.ended && self.used == self.block.len() {
            self.next_block()?;
        }
        let more = fill(&mut self.input, &mut [0]).map_err(reading)?;
        if !self.ended || more > 0 {
            return Err(Error::Damaged {
                offset: self.at,
                what: "data follows the end of the state",
            });
        }
        Ok(())
    }
}

impl<R: Read> Read for BlockReader<R> {
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
