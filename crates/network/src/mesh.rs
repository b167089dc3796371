//! The routing mesh: every worker accepts connections on every published port
//! and carries them to a task, wherever it runs.
//!
//! Entirely in user space and without privileges beyond opening the ports. A
//! container of this machine is dialled directly, any other through the mesh
//! port of its worker over mutual TLS. What to do comes in as whole snapshots
//! ([`Mesh::apply`]); which containers run here, and at which address, comes
//! in by [`Mesh::set_local`]. Health, placement and the order of removal are
//! decided elsewhere.
//!
//! Guarantees: once [`Mesh::apply`] has returned, no new connection goes to a
//! backend the snapshot does not list, neither from clients nor from other
//! workers; connections that were open run on until they end by themselves,
//! their container goes ([`Mesh::remove_local`]) or their node vanishes.

mod config;
mod core;
mod counters;
mod dial;
mod endpoints;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod host;
mod listener;
mod peer;
mod pool;
mod preamble;
mod relay;
mod socket;
mod table;
mod tls;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::DropGuard;

pub use config::{Error, HostPortError, Limits, MeshConfig, MeshStatus, PortStatus};
pub use counters::CountersSnapshot;
pub use endpoints::{Backend, Endpoints, PublishedPort};
pub use host::HostPort;
pub use tls::{BoxStream, Handshake, IdentityTls, MeshStream, MeshTls};

use self::core::Core;
use self::listener::{Leads, Listener};

/// A running mesh; clones share it. It stops, connections included, when the
/// last one is dropped.
#[derive(Clone)]
pub struct Mesh(Arc<Running>);

struct Running {
    core: Arc<Core>,
    mesh_addr: SocketAddr,
    listeners: Mutex<BTreeMap<u16, Listener>>,
    /// Ports of this machine only, by the task they lead to.
    host: Mutex<HashMap<String, Vec<Listener>>>,
    /// One snapshot at a time.
    applying: tokio::sync::Mutex<()>,
    _stop: DropGuard,
}

impl Mesh {
    /// Opens the mesh port in the network namespace of the calling thread.
    pub async fn start(config: MeshConfig, tls: Arc<dyn MeshTls>) -> Result<Self, Error> {
        let addr = config.mesh_addr;
        let listener = socket::listen(addr, config.limits.backlog)
            .map_err(|source| Error::Bind { addr, source })?;
        let bound = listener.local_addr();
        let mesh_addr = bound.map_err(|source| Error::Bind { addr, source })?;
        let core = Core::new(config, tls);
        core.serving.spawn(peer::run(core.clone(), listener));
        Ok(Mesh(Arc::new(Running {
            _stop: core.stop.clone().drop_guard(),
            core,
            mesh_addr,
            listeners: Mutex::default(),
            host: Mutex::default(),
            applying: tokio::sync::Mutex::default(),
        })))
    }

    /// Puts a snapshot in effect and returns the version that is in effect
    /// then: the snapshot's, or a newer one if the snapshot was older.
    ///
    /// *Guarantees* what the module says about removed backends; a port no
    /// longer published is closed. A port that cannot be opened does not fail
    /// the call, see [`Mesh::status`]. Idempotent, and safe to stop waiting
    /// for: applying again completes it.
    pub async fn apply(&self, snapshot: Arc<Endpoints>) -> u64 {
        let core = &self.0.core;
        let _one_at_a_time = self.0.applying.lock().await;
        let (published, nodes) = {
            let mut table = core.table();
            if !table.replace(&snapshot) {
                return table.version;
            }
            (table.published(), table.nodes())
        };
        let closed: Vec<Listener> = {
            let mut listeners = self.0.listeners();
            let all = std::mem::take(&mut *listeners).into_iter();
            let (kept, closed) = all.partition(|(port, _)| published.contains(port));
            *listeners = kept;
            let closed: BTreeMap<u16, Listener> = closed;
            closed.into_values().collect()
        };
        for listener in closed {
            listener.stop().await;
        }
        for port in published {
            let mut listeners = self.0.listeners();
            listeners.entry(port).or_insert_with(|| Listener::start(core, port, Leads::Balanced));
        }
        core.pools.follow(core, &nodes);
        core.until(|table| !table.has_stale_dials()).await;
        core.version.send_replace(snapshot.version);
        snapshot.version
    }

    /// The container of `task_id` runs here and has this address.
    pub fn set_local(&self, task_id: &str, ip: Ipv4Addr) {
        self.0.core.table().set_local(task_id, ip);
    }

    /// The container is gone; what is still connected to it is cut.
    pub fn remove_local(&self, task_id: &str) {
        self.0.core.table().remove_local(task_id);
    }

    /// Opens ports of this machine that lead to the task's container while it runs here. All or
    /// none, unless `insist`: then a port that cannot be opened is tried again until it can.
    pub async fn open_host(
        &self,
        task_id: &str,
        ports: &[HostPort],
        insist: bool,
    ) -> Result<(), HostPortError> {
        let open = |port: &HostPort| {
            let leads = Leads::Task { task_id: task_id.to_owned(), target: port.target };
            Listener::start(&self.0.core, port.published, leads)
        };
        let opened: Vec<Listener> = ports.iter().map(open).collect();
        let failed = ports.iter().zip(&opened).find_map(|(port, listener)| {
            let reason = listener.error().filter(|_| !insist)?;
            Some(HostPortError { port: port.published, reason })
        });
        if let Some(failed) = failed {
            for listener in opened {
                listener.stop().await;
            }
            return Err(failed);
        }
        let before = self.0.host().insert(task_id.to_owned(), opened);
        for listener in before.into_iter().flatten() {
            listener.stop().await;
        }
        Ok(())
    }

    /// Closes them: nothing new comes when this returns. Open connections go on.
    pub async fn close_host(&self, task_id: &str) {
        let listeners = self.0.host().remove(task_id);
        for listener in listeners.into_iter().flatten() {
            listener.stop().await;
        }
    }

    /// Cuts all connections to a worker that is known to be lost, instead of
    /// waiting until it is noticed here.
    pub fn node_gone(&self, node_id: &str) {
        self.0.core.table().lose_node(node_id);
    }

    /// Connections through this worker to the task, from clients and from
    /// other workers.
    pub fn open_connections(&self, task_id: &str) -> usize {
        self.0.core.table().open(task_id)
    }

    /// Waits until no connection to the task is open or being made here. Put a
    /// deadline on it: clients may stay for ever.
    pub async fn drained(&self, task_id: &str) {
        self.0.core.until(|table| table.is_idle(task_id)).await;
    }

    /// Takes in nothing new from here on, neither from clients nor from other workers, and waits
    /// until nothing is open. Put a deadline on it: clients may stay for ever.
    pub async fn leave(&self) {
        let core = &self.0.core;
        core.closing.cancel();
        // Not the counts of the table: what was just accepted has no task yet.
        core.serving.close();
        core.serving.wait().await;
    }

    pub fn status(&self) -> MeshStatus {
        let errors: Vec<_> = {
            let listeners = self.0.listeners();
            let each = listeners.iter();
            each.map(|(port, listener)| (*port, listener.error())).collect()
        };
        let table = self.0.core.table();
        let ports = errors.into_iter().filter_map(|(published, error)| {
            let (service_name, backends) = table.service_of(published)?;
            Some(PortStatus { published, service_name: service_name.to_owned(), backends, error })
        });
        MeshStatus { ports: ports.collect(), version: *self.0.core.version.borrow() }
    }

    /// Where other workers reach this one; tells the port when the kernel chose.
    pub fn mesh_addr(&self) -> SocketAddr {
        self.0.mesh_addr
    }

    pub fn counters(&self) -> CountersSnapshot {
        self.0.core.counters.snapshot()
    }
}

impl Running {
    fn host(&self) -> MutexGuard<'_, HashMap<String, Vec<Listener>>> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listeners(&self) -> MutexGuard<'_, BTreeMap<u16, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
