//! One port that clients reach: open it, or keep trying, and hand them on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::counters::add;
use super::socket::{self, guard_client, reset_on_close};
use super::{dial, host, relay};

/// Where a port leads.
#[derive(Debug, Clone)]
pub(super) enum Leads {
    /// To the backends of a published port, in turn.
    Balanced,
    /// To this port of one task here.
    Task { task_id: String, target: u16 },
}

/// A port for as long as clients may use it. Connections outlive it.
pub(super) struct Listener {
    cancel: CancellationToken,
    task: JoinHandle<()>,
    error: Arc<Mutex<Option<String>>>,
}

impl Listener {
    /// The first try to open the port is over when this returns.
    pub fn start(core: &Arc<Core>, port: u16, leads: Leads) -> Self {
        let cancel = core.closing.child_token();
        let error = Arc::new(Mutex::new(None));
        let first = match cancel.is_cancelled() {
            false => open(core, port, &error),
            true => None,
        };
        let task = core.serving.spawn({
            let (core, cancel, error) = (core.clone(), cancel.clone(), error.clone());
            async move {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => {}
                    () = run(&core, port, &leads, first, &error) => {}
                }
            }
        });
        Listener { cancel, task, error }
    }

    /// The port is closed when this returns.
    pub async fn stop(self) {
        self.cancel.cancel();
        let _ = self.task.await;
    }

    pub fn error(&self) -> Option<String> {
        let error = self.error.lock();
        error.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn open(core: &Core, port: u16, error: &Mutex<Option<String>>) -> Option<TcpListener> {
    let addr = SocketAddr::new(core.config.publish_addr, port);
    let opened = socket::listen(addr, core.config.limits.backlog);
    let mut error = error.lock().unwrap_or_else(PoisonError::into_inner);
    match opened {
        Ok(listener) => {
            *error = None;
            Some(listener)
        }
        Err(reason) => {
            if error.is_none() {
                tracing::warn!(port, reason = %reason, "port cannot be opened");
            }
            *error = Some(reason.to_string());
            None
        }
    }
}

async fn run(
    core: &Arc<Core>,
    port: u16,
    leads: &Leads,
    first: Option<TcpListener>,
    error: &Mutex<Option<String>>,
) {
    let mut pause = core.config.limits.backoff;
    let mut opened = first;
    let listener = loop {
        if let Some(listener) = opened {
            break listener;
        }
        sleep(pause).await;
        pause = (pause * 2).min(core.config.limits.backoff * 8);
        opened = open(core, port, error);
    };
    let permits = Arc::new(Semaphore::new(core.config.limits.connections_per_port));
    accept_each(&listener, &permits, |client, permit| {
        add(&core.counters.accepted, 1);
        let (serving, core, leads) = (&core.serving, core.clone(), leads.clone());
        serving.spawn(async move {
            match leads {
                Leads::Balanced => serve(&core, port, client).await,
                Leads::Task { task_id, target } => {
                    host::serve(&core, &task_id, target, client).await;
                }
            }
            drop(permit);
        });
    })
    .await;
}

/// Accepts for ever. Whoever comes beyond the bound waits in the kernel's
/// backlog.
pub(super) async fn accept_each(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    mut handle: impl FnMut(TcpStream, tokio::sync::OwnedSemaphorePermit),
) {
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => handle(stream, permit),
            Err(error) => {
                // Out of file descriptors or a client that left at once.
                tracing::debug!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

async fn serve(core: &Arc<Core>, port: u16, client: TcpStream) {
    let _ = guard_client(&client);
    let Some((leg, open)) = dial::find(core, port).await else {
        add(&core.counters.failed, 1);
        reset_on_close(&client);
        return;
    };
    add(&core.counters.connected, 1);
    relay::client(core, client, leg, &open.cut).await;
}
