//! Reading the whole state out as a file, in parts.

use std::io;

use cluster_archive::Header;
use cluster_daemon::chain;
use cluster_pb::control::v1 as pb;
use cluster_pb::control::v1::save_snapshot_response::Part;
use cluster_wire::{Code, Failure};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{ControlService, cluster_of};
use crate::clock::wall_ms;

/// Bytes of one part.
const CHUNK: usize = 256 * 1024;
/// Parts that wait for the reader; the writer waits when there are as many.
const QUEUE: usize = 4;

impl ControlService {
    /// Nothing is written here: the file is made while it is sent. One at a time; a reader that
    /// leaves ends it.
    pub(super) async fn save(
        &self,
        request: pb::SaveSnapshotRequest,
    ) -> Result<ReceiverStream<Result<pb::SaveSnapshotResponse, Status>>, Failure> {
        let view = self.context.read(request.stale).await?;
        cluster_of(&view.state)?;
        let permit =
            self.saves.clone().try_acquire_owned().map_err(|_| {
                Failure::new(Code::Busy, "this manager is saving a snapshot already")
            })?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        tracing::info!(index = view.applied_index, "a snapshot is read out");
        tokio::task::spawn_blocking(move || {
            let mut parts = Parts { sender, buffer: Vec::with_capacity(CHUNK), bytes: 0 };
            let at = (view.term, view.applied_index);
            let written = Header::of(&view.state, at, wall_ms(), env!("CARGO_PKG_VERSION"))
                .and_then(|header| cluster_archive::write(&header, &view.state, &mut parts));
            drop(permit);
            match written {
                Ok(()) => parts.end(),
                Err(error) => parts.fail(&error),
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}

struct Parts {
    sender: mpsc::Sender<Result<pb::SaveSnapshotResponse, Status>>,
    buffer: Vec<u8>,
    bytes: u64,
}

impl Parts {
    fn send(&self, part: Part) -> io::Result<()> {
        let sent = self.sender.blocking_send(Ok(pb::SaveSnapshotResponse { part: Some(part) }));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the reader has left"))
    }

    fn end(self) {
        let sum = Part::Sum(pb::SnapshotSum { bytes: self.bytes });
        // A reader that left wants no more.
        let _ = self.send(sum);
    }

    fn fail(self, error: &cluster_archive::Error) {
        let why = chain(error);
        tracing::warn!(reason = why, "a snapshot was not read out whole");
        let failure = Failure::new(Code::Internal, format!("the snapshot is not whole: {why}"));
        // As above.
        let _ = self.sender.blocking_send(Err(failure.into()));
    }
}

impl io::Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = (CHUNK - self.buffer.len()).min(bytes.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        self.bytes += taken as u64;
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.send(Part::Chunk(chunk))
    }
}
