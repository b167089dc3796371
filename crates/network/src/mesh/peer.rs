//! The mesh port: requests of other workers for containers here.
//!
//! Nothing is believed before the handshake, and after it only what our own
//! snapshot confirms: the task runs here and that port of it is published.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::core::{Core, Open};
use super::counters::add;
use super::listener::accept_each;
use super::preamble::{LEN, PING, Preamble, Status};
use super::socket::guard_peer;
use super::table::Via;
use super::tls::BoxStream;
use super::{dial, relay};

pub(super) async fn run(core: Arc<Core>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(core.config.limits.mesh_connections));
    let accept = accept_each(&listener, &permits, |stream, permit| {
        let (serving, core) = (&core.serving, core.clone());
        serving.spawn(async move {
            tokio::select! {
                () = core.stop.cancelled() => {}
                served = serve(&core, stream) => if let Err(error) = served {
                    tracing::debug!(%error, "connection on the mesh port ended early");
                }
            }
            drop(permit);
        });
    });
    tokio::select! {
        () = core.closing.cancelled() => {}
        () = accept => {}
    }
}

async fn serve(core: &Arc<Core>, stream: TcpStream) -> io::Result<()> {
    let limits = &core.config.limits;
    guard_peer(&stream, limits.peer_timeout)?;
    let handshake = timeout(limits.handshake_timeout, core.tls.accept(stream));
    let shaken = tokio::select! {
        () = core.closing.cancelled() => return Ok(()),
        shaken = handshake => shaken,
    };
    let mut worker = match shaken.map_err(io::Error::from).and_then(|done| done) {
        Ok(worker) => worker,
        Err(error) => {
            add(&core.counters.rejected, 1);
            return Err(error);
        }
    };
    // A request that was not accepted yet is the other worker's to send elsewhere.
    let preamble = tokio::select! {
        () = core.closing.cancelled() => return Ok(()),
        preamble = read_preamble(core, &mut worker) => preamble?,
    };
    let Some(preamble) = preamble else { return Ok(()) };
    let (status, connected) = match connect(core, &preamble).await {
        Ok(connected) => (Status::Connected, Some(connected)),
        Err(status) => (status, None),
    };
    reply(&mut worker, status).await?;
    let Some((container, open)) = connected else {
        add(&core.counters.refused, 1);
        tracing::debug!(task_id = preamble.task_id, ?status, "another worker's request refused");
        return worker.shutdown().await;
    };
    add(&core.counters.served, 1);
    relay::peer(core, worker, container, &open.cut).await;
    Ok(())
}

/// Answers pings until a request comes; `None` when the other worker closes a
/// connection it did not need.
async fn read_preamble(core: &Core, worker: &mut BoxStream) -> io::Result<Option<Preamble>> {
    let limits = &core.config.limits;
    let since = Instant::now();
    while since.elapsed() < limits.idle_timeout {
        let mut bytes = [0; LEN];
        let Ok(first) = timeout(limits.idle_timeout, worker.read(&mut bytes)).await else {
            break;
        };
        let read = first?;
        if read == 0 {
            break;
        }
        timeout(limits.reply_timeout, worker.read_exact(&mut bytes[read..])).await??;
        if bytes == PING {
            reply(worker, Status::Connected).await?;
            continue;
        }
        let decoded = Preamble::decode(&bytes);
        if decoded.is_none() {
            add(&core.counters.rejected, 1);
        }
        return decoded.map(Some).ok_or(io::ErrorKind::InvalidData.into());
    }
    Ok(None)
}

async fn reply(worker: &mut BoxStream, status: Status) -> io::Result<()> {
    worker.write_u8(status as u8).await?;
    worker.flush().await
}

async fn connect(core: &Arc<Core>, preamble: &Preamble) -> Result<(TcpStream, Open), Status> {
    // The other worker may have heard of a new task before we did.
    let mut version = core.version.subscribe();
    let reached = version.wait_for(|version| *version >= preamble.version);
    let _ = timeout(core.config.limits.catch_up, reached).await;
    let via = Via::Peer(preamble.target_port);
    let ip = core.table().local_ip(&preamble.task_id);
    let ip = ip.ok_or(Status::NotHere)?;
    let attempt = core.begin(via, &preamble.task_id, None).ok_or(Status::NotHere)?;
    let container = tokio::select! {
        biased;
        () = attempt.tokens.stop_dialing.cancelled() => return Err(Status::NotHere),
        dialed = dial::container(core, ip, preamble.target_port) => dialed,
    };
    let container = container.map_err(|_| Status::Unreachable)?;
    let open = attempt.promote().ok_or(Status::NotHere)?;
    Ok((container, open))
}
