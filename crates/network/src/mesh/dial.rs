//! Finding a backend that answers, for one client.
//!
//! No byte of the client is sent before a backend has accepted, so trying the
//! next one is always safe.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::time::{Instant as Deadline, sleep_until, timeout};

use super::core::{Core, Open};
use super::counters::add;
use super::endpoints::Backend;
use super::pool;
use super::preamble::{Preamble, Status};
use super::socket;
use super::table::{Suspect, Via};
use super::tls::BoxStream;

/// The way to a backend.
pub(super) enum Leg {
    Container(TcpStream),
    Worker(BoxStream),
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the worker does not answer")]
    Node(#[source] io::Error),
    #[error("the worker answered {0:?}")]
    Refused(Status),
    #[error("the container does not accept connections")]
    Container(#[source] io::Error),
    #[error("the container has no address here yet")]
    NotStarted,
}

/// Tries the backends of `port` in turn, each once at most.
pub(super) async fn find(core: &Arc<Core>, port: u16) -> Option<(Leg, Open)> {
    let deadline = Deadline::now() + core.config.limits.dial_deadline;
    let start = core.table().take_turn(port, Instant::now());
    let mut tried = HashSet::new();
    loop {
        let next = core.table().next(port, start, &tried, Instant::now());
        let backend = next?;
        if !tried.is_empty() {
            add(&core.counters.retries, 1);
        }
        tried.insert(backend.task_id.clone());
        let remote = Some(backend.node_id.as_str()).filter(|id| *id != core.config.node_id);
        let Some(attempt) = core.begin(Via::Published(port), &backend.task_id, remote) else {
            continue;
        };
        let result = tokio::select! {
            biased;
            () = attempt.tokens.stop_dialing.cancelled() => continue,
            () = sleep_until(deadline) => return None,
            result = reach(core, &backend, remote.is_some()) => result,
        };
        match result {
            Ok(leg) => {
                if let Some(open) = attempt.promote() {
                    let task = Suspect::Task(backend.task_id.clone());
                    core.table().trust(&task);
                    return Some((leg, open));
                }
            }
            Err(failure) => blame(core, &backend, &failure),
        }
    }
}

/// Connects to a container of this machine.
pub(super) async fn container(core: &Core, ip: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let dial = socket::dial_local(SocketAddr::from((ip, port)));
    timeout(core.config.limits.connect_timeout, dial).await?
}

async fn reach(core: &Core, backend: &Backend, remote: bool) -> Result<Leg, Failure> {
    if remote {
        return worker(core, backend).await.map(Leg::Worker);
    }
    let ip = core.table().local_ip(&backend.task_id);
    let ip = ip.ok_or(Failure::NotStarted)?;
    let stream = container(core, ip, backend.target_port).await;
    stream.map(Leg::Container).map_err(Failure::Container)
}

async fn worker(core: &Core, backend: &Backend) -> Result<BoxStream, Failure> {
    if let Some(stream) = core.pools.take(&backend.node_id) {
        add(&core.counters.pool_hits, 1);
        match request(core, backend, stream).await {
            // It may have died of old age or with the worker's last process,
            // which says nothing about the worker now.
            Err(Failure::Node(error)) if error.kind() != io::ErrorKind::TimedOut => {
                tracing::debug!(node_id = backend.node_id, %error, "ready connection was stale");
            }
            result => return result,
        }
    }
    add(&core.counters.pool_misses, 1);
    let stream = pool::connect(core, &backend.node_id, backend.node_mesh_addr).await;
    request(core, backend, stream.map_err(Failure::Node)?).await
}

async fn request(
    core: &Core,
    backend: &Backend,
    mut stream: BoxStream,
) -> Result<BoxStream, Failure> {
    let preamble = Preamble {
        task_id: backend.task_id.clone(),
        target_port: backend.target_port,
        version: *core.version.borrow(),
    };
    let bytes = preamble.encode().ok_or(Failure::NotStarted)?;
    let answer = pool::exchange(core, &mut stream, &bytes).await;
    match Status::decode(answer.map_err(Failure::Node)?) {
        Some(Status::Connected) => Ok(stream),
        Some(status) => Err(Failure::Refused(status)),
        None => Err(Failure::Node(io::ErrorKind::InvalidData.into())),
    }
}

fn blame(core: &Core, backend: &Backend, failure: &Failure) {
    tracing::debug!(
        task_id = backend.task_id,
        node_id = backend.node_id,
        reason = %failure,
        "backend failed, trying another"
    );
    let suspect = match failure {
        Failure::Node(_) => {
            core.pools.distrust(&backend.node_id);
            Suspect::Node(backend.node_id.clone())
        }
        _ => Suspect::Task(backend.task_id.clone()),
    };
    core.table().suspect(suspect, Instant::now());
}
