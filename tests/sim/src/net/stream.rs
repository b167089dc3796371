//! One end of a connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Piece, WINDOW, Wires};

/// Reads from one pipe and writes to the other.
pub(super) struct Stream {
    wires: Wires,
    reads: u64,
    writes: u64,
    shut: bool,
}

impl Stream {
    pub(super) fn new(wires: Wires, reads: u64, writes: u64) -> Self {
        Self { wires, reads, writes, shut: false }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.wires.lock();
        let Some(pipe) = inner.pipes.get_mut(&self.reads) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.unread.is_empty() {
            if pipe.ended {
                return Poll::Ready(Ok(()));
            }
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = buf.remaining().min(pipe.unread.len());
        let (first, second) = pipe.unread.as_slices();
        let split = count.min(first.len());
        buf.put_slice(&first[..split]);
        buf.put_slice(&second[..count - split]);
        pipe.unread.drain(..count);
        if let Some(writer) = pipe.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.wires.lock();
        let Some(pipe) = inner.pipes.get_mut(&self.writes) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if pipe.reset || self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW.saturating_sub(pipe.flying + pipe.unread.len());
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = room.min(bytes.len());
        inner.send(self.writes, Piece::Bytes(bytes[..count].to_vec()));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            self.shut = true;
            self.wires.lock().send(self.writes, Piece::End);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.wires.lock();
        let unread = inner.pipes.get(&self.reads).is_some_and(|pipe| !pipe.unread.is_empty());
        let silent = inner.pipes.get(&self.writes).is_none_or(|pipe| pipe.writer_gone);
        if !self.shut && !silent {
            // As the kernel does: bytes that nobody read make it a reset.
            inner.send(self.writes, if unread { Piece::Reset } else { Piece::End });
        }
        if let Some(pipe) = inner.pipes.get_mut(&self.reads) {
            pipe.reader_gone = true;
            pipe.reader = None;
            pipe.unread.clear();
            if let Some(writer) = pipe.writer.take() {
                writer.wake();
            }
        }
        if let Some(pipe) = inner.pipes.get_mut(&self.writes) {
            pipe.writer_gone = true;
            pipe.writer = None;
        }
    }
}
