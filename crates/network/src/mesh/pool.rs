//! Ready connections to the other workers, so that a client need not wait for
//! a handshake.
//!
//! One keeper task per node tops the pool up and asks every second whether the
//! node is there. It alone ends the suspicion against a node, so clients are
//! never the probe, and it cuts the connections to a node that has been silent
//! for too long: the kernel would take minutes to notice a machine without
//! power, and never notices a frozen process. When a node leaves the endpoints
//! its keeper watches over the connections that still drain there.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::counters::add;
use super::endpoints::Backend;
use super::preamble::{LEN, PING};
use super::table::Suspect;
use super::tls::BoxStream;

#[derive(Default)]
pub(super) struct Pools(Mutex<HashMap<String, Arc<Pool>>>);

struct Pool {
    node_id: String,
    addr: SocketAddr,
    idle: Mutex<Vec<Idle>>,
    wanted: Notify,
    /// The node has no backends any more.
    retired: CancellationToken,
}

struct Idle {
    stream: BoxStream,
    expires: Instant,
}

impl Pools {
    /// Follows a new snapshot: starts keepers for new nodes, retires others.
    pub fn follow(&self, core: &Arc<Core>, nodes: &HashMap<String, Arc<Backend>>) {
        let mut pools = self.lock();
        pools.retain(|id, pool| {
            let keep = nodes.get(id).is_some_and(|b| b.node_mesh_addr == pool.addr);
            if !keep {
                pool.retired.cancel();
            }
            keep
        });
        for (id, backend) in nodes {
            if *id == core.config.node_id || pools.contains_key(id) {
                continue;
            }
            let pool = Arc::new(Pool {
                node_id: id.clone(),
                addr: backend.node_mesh_addr,
                idle: Mutex::default(),
                wanted: Notify::new(),
                retired: core.stop.child_token(),
            });
            pools.insert(id.clone(), pool.clone());
            tokio::spawn(keep(core.clone(), pool));
        }
    }

    /// A connection that is ready and, as far as one can see, alive.
    pub fn take(&self, node_id: &str) -> Option<BoxStream> {
        let pool = self.lock().get(node_id).cloned()?;
        let taken = pool.pop();
        pool.wanted.notify_one();
        taken
    }

    /// Throws ready connections away, so that the keeper looks anew whether
    /// the node answers.
    pub fn distrust(&self, node_id: &str) {
        if let Some(pool) = self.lock().get(node_id).cloned() {
            pool.lock().clear();
            pool.wanted.notify_one();
        }
    }

    fn has(&self, node_id: &str) -> bool {
        self.lock().contains_key(node_id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Pool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<BoxStream> {
        let mut idle = self.lock();
        while let Some(mut one) = idle.pop() {
            if one.is_usable(Instant::now()) {
                return Some(one.stream);
            }
        }
        None
    }

    fn oldest(&self) -> Option<Idle> {
        let mut idle = self.lock();
        (!idle.is_empty()).then(|| idle.remove(0))
    }

    /// How many are ready, after throwing out what is stale.
    fn count(&self) -> usize {
        let mut idle = self.lock();
        let now = Instant::now();
        idle.retain_mut(|one| one.is_usable(now));
        idle.len()
    }
}

impl Idle {
    /// The other side speaks only when asked, so anything to read means that
    /// it closed.
    fn is_usable(&mut self, now: Instant) -> bool {
        now < self.expires && self.stream.read_u8().now_or_never().is_none()
    }
}

/// Makes a new connection to a worker, handshake included.
pub(super) async fn connect(core: &Core, node_id: &str, addr: SocketAddr) -> io::Result<BoxStream> {
    let limit = core.config.limits.connect_timeout * 2;
    timeout(limit, core.tls.connect(addr, node_id, limit)).await?
}

/// Sends one request on a ready connection and returns the status byte.
pub(super) async fn exchange(
    core: &Core,
    stream: &mut BoxStream,
    request: &[u8; LEN],
) -> io::Result<u8> {
    let exchange = async {
        stream.write_all(request).await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    timeout(core.config.limits.reply_timeout, exchange).await?
}

async fn keep(core: Arc<Core>, pool: Arc<Pool>) {
    tokio::select! {
        () = keep_ready(&core, &pool) => {}
        () = pool.retired.cancelled() => {}
    }
    pool.lock().clear();
    watch_drain(&core, &pool).await;
}

async fn keep_ready(core: &Core, pool: &Pool) {
    let limits = &core.config.limits;
    let mut pause = limits.backoff;
    let mut silence = Silence::default();
    loop {
        match look_after(core, pool).await {
            Ok(()) => {
                core.table().trust(&Suspect::Node(pool.node_id.clone()));
                (pause, silence) = (limits.backoff, Silence::default());
                tokio::select! {
                    () = pool.wanted.notified() => {}
                    () = sleep(limits.ping_every) => {}
                }
            }
            Err(error) => {
                tracing::debug!(node_id = pool.node_id, addr = %pool.addr, %error,
                    "worker does not answer");
                pool.lock().clear();
                let suspect = Suspect::Node(pool.node_id.clone());
                core.table().suspect(suspect, Instant::now());
                silence.goes_on(core, pool);
                sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
                pause = (pause * 2).min(limits.backoff * 8);
            }
        }
    }
}

/// Asks whether the node is there and fills the pool; an error means that the
/// node does not answer.
async fn look_after(core: &Core, pool: &Pool) -> io::Result<()> {
    let limits = &core.config.limits;
    if pool.count() == limits.idle_per_node
        && let Some(mut one) = pool.oldest()
    {
        match exchange(core, &mut one.stream, &PING).await {
            Ok(_) => pool.lock().push(one),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
            // Closed by the other side, which a new connection explains.
            Err(_) => {}
        }
    }
    while pool.count() < limits.idle_per_node {
        let stream = connect(core, &pool.node_id, pool.addr).await?;
        // Before the other side loses patience.
        let expires = Instant::now() + limits.idle_timeout * 4 / 5;
        pool.lock().push(Idle { stream, expires });
    }
    Ok(())
}

/// How long a node has not answered.
#[derive(Default)]
struct Silence {
    since: Option<Instant>,
    is_cut: bool,
}

impl Silence {
    /// Cuts the node's connections once it lasts too long.
    fn goes_on(&mut self, core: &Core, pool: &Pool) {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !self.is_cut && since.elapsed() >= core.config.limits.peer_timeout {
            self.is_cut = true;
            tracing::info!(node_id = pool.node_id, "worker is silent, cutting connections to it");
            add(&core.counters.nodes_lost, 1);
            core.table().lose_node(&pool.node_id);
        }
    }
}

/// Lets connections to a node without backends run on for as long as the node
/// answers; a node that left and is silent is not waited for.
async fn watch_drain(core: &Core, pool: &Pool) {
    let mut silence = Silence::default();
    let mut failures = 0;
    while core.table().is_node_used(&pool.node_id) && !core.pools.has(&pool.node_id) {
        match connect(core, &pool.node_id, pool.addr).await {
            Ok(_) => (failures, silence) = (0, Silence::default()),
            Err(_) => {
                failures += 1;
                if failures == 2 {
                    silence.since = Instant::now().checked_sub(core.config.limits.peer_timeout);
                }
                silence.goes_on(core, pool);
            }
        }
        tokio::select! {
            () = sleep(core.config.limits.ping_every) => {}
            () = core.stop.cancelled() => return,
        }
    }
}
