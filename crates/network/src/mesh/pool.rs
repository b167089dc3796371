//! Ready connections to the other workers, so that a client need not wait for
//! a handshake.
//!
//! One keeper task per node tops the pool up. It is also the only one that
//! ends the suspicion against a node: clients are never the probe. When a node
//! leaves the endpoints its keeper watches over the connections that still
//! drain there, and cuts them once the node stops answering.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::counters::add;
use super::endpoints::Backend;
use super::socket;
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
    let limits = &core.config.limits;
    let dial = socket::dial_peer(addr, core.config.source, limits.peer_timeout);
    let stream = timeout(limits.connect_timeout, dial).await??;
    timeout(limits.handshake_timeout, core.tls.connect(stream, node_id)).await?
}

const CHECK_EVERY: Duration = Duration::from_secs(5);

async fn keep(core: Arc<Core>, pool: Arc<Pool>) {
    let work = async {
        loop {
            top_up(&core, &pool).await;
            tokio::select! {
                () = pool.wanted.notified() => {}
                () = sleep(CHECK_EVERY) => {}
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = pool.retired.cancelled() => {}
    }
    pool.lock().clear();
    watch_drain(&core, &pool).await;
}

async fn top_up(core: &Core, pool: &Pool) {
    let limits = &core.config.limits;
    let mut pause = limits.backoff;
    while pool.count() < limits.idle_per_node {
        match connect(core, &pool.node_id, pool.addr).await {
            Ok(stream) => {
                // Before the other side loses patience.
                let expires = Instant::now() + limits.idle_timeout * 4 / 5;
                pool.lock().push(Idle { stream, expires });
                core.table().trust(&Suspect::Node(pool.node_id.clone()));
                pause = limits.backoff;
            }
            Err(error) => {
                tracing::debug!(node_id = pool.node_id, addr = %pool.addr, %error,
                    "worker cannot be reached");
                let suspect = Suspect::Node(pool.node_id.clone());
                core.table().suspect(suspect, Instant::now());
                sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
                pause = (pause * 2).min(limits.backoff * 8);
            }
        }
    }
}

/// Lets connections to a node without backends run on for as long as the node
/// answers.
async fn watch_drain(core: &Core, pool: &Pool) {
    let mut failures = 0;
    while core.table().is_node_used(&pool.node_id) && !core.pools.has(&pool.node_id) {
        tokio::select! {
            () = sleep(core.config.limits.connect_timeout) => {}
            () = core.stop.cancelled() => return,
        }
        failures = match connect(core, &pool.node_id, pool.addr).await {
            Ok(_) => 0,
            Err(_) => failures + 1,
        };
        if failures == 2 {
            tracing::info!(node_id = pool.node_id, "worker is gone, cutting connections to it");
            add(&core.counters.nodes_lost, 1);
            core.table().lose_node(&pool.node_id);
            return;
        }
    }
}
