//! Copying bytes both ways until both sides are done.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::counters::add;
use super::dial::Leg;
use super::socket::reset_on_close;

/// Between a client on a published port and a backend.
pub(super) async fn client(
    core: &Arc<Core>,
    mut client: TcpStream,
    leg: Leg,
    cut: &CancellationToken,
) {
    let result = match leg {
        Leg::Container(mut container) => {
            let result = copy(core, &mut client, &mut container, cut).await;
            if result.is_err() {
                reset_on_close(&container);
            }
            result
        }
        // Dropped without a farewell the other worker knows it was cut.
        Leg::Worker(mut worker) => copy(core, &mut client, &mut worker, cut).await,
    };
    match result {
        Ok((sent, received)) => {
            add(&core.counters.bytes_in, sent);
            add(&core.counters.bytes_out, received);
        }
        Err(error) => {
            tracing::trace!(%error, "connection broke");
            reset_on_close(&client);
        }
    }
}

/// Between another worker and a container here.
pub(super) async fn peer(
    core: &Arc<Core>,
    mut worker: impl AsyncRead + AsyncWrite + Unpin,
    mut container: TcpStream,
    cut: &CancellationToken,
) {
    if let Err(error) = copy(core, &mut worker, &mut container, cut).await {
        tracing::trace!(%error, "connection of another worker broke");
        reset_on_close(&container);
    }
}

/// Passes the end of each direction on by itself; an error ends both.
async fn copy<A, B>(
    core: &Core,
    a: &mut A,
    b: &mut B,
    cut: &CancellationToken,
) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    let size = core.config.limits.buffer_bytes;
    tokio::select! {
        result = copy_bidirectional_with_sizes(a, b, size, size) => result,
        () = cut.cancelled() => {
            add(&core.counters.aborted, 1);
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }
}
