//! Settings of the mesh, what it reports about itself, and its errors.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Who this worker is and where it listens.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    pub node_id: String,
    /// Address the published ports are opened on, usually 0.0.0.0.
    pub publish_addr: IpAddr,
    /// Where other workers reach this one.
    pub mesh_addr: SocketAddr,
    pub limits: Limits,
}

/// Bounds; the defaults suit a machine, tests shorten them.
#[derive(Debug, Clone)]
pub struct Limits {
    pub connections_per_port: usize,
    /// Connections other workers may hold to us, idle ones included.
    pub mesh_connections: usize,
    pub backlog: u32,
    /// Each direction of each connection has one buffer of this size.
    pub buffer_bytes: usize,
    /// For reaching a container; twice that for another worker, with the
    /// handshake.
    pub connect_timeout: Duration,
    /// For a handshake another worker began.
    pub handshake_timeout: Duration,
    /// How long the other worker may take to reach its container.
    pub reply_timeout: Duration,
    /// All attempts for one client together.
    pub dial_deadline: Duration,
    /// How long a connection that has sent no request yet is kept, on the
    /// side that accepted it; the side that opened it gives up earlier.
    pub idle_timeout: Duration,
    /// Ready connections kept per other worker.
    pub idle_per_node: usize,
    /// First pause after a failure; doubles up to eight times as much.
    pub backoff: Duration,
    /// How often another worker is asked whether it is there.
    pub ping_every: Duration,
    /// After this long without an answer connections to a worker are cut.
    pub peer_timeout: Duration,
    /// How long to wait for our own snapshot when another worker is ahead.
    pub catch_up: Duration,
}

impl MeshConfig {
    pub fn new(node_id: impl Into<String>, mesh_addr: SocketAddr) -> Self {
        MeshConfig {
            node_id: node_id.into(),
            publish_addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            mesh_addr,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_per_port: 10_000,
            mesh_connections: 20_000,
            backlog: 1024,
            buffer_bytes: 16 * 1024,
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(3),
            reply_timeout: Duration::from_millis(1500),
            dial_deadline: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            idle_per_node: 3,
            backoff: Duration::from_millis(500),
            ping_every: Duration::from_secs(1),
            peer_timeout: Duration::from_secs(5),
            catch_up: Duration::from_millis(500),
        }
    }
}

/// What the mesh does at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshStatus {
    /// Version of the snapshot in effect.
    pub version: u64,
    /// By port number, ascending.
    pub ports: Vec<PortStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortStatus {
    pub published: u16,
    pub service_name: String,
    pub backends: usize,
    /// Why the port is not open, with the address; it is tried again.
    pub error: Option<String>,
}

/// Why the mesh did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen for other workers on {addr}")]
    Bind {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// A port of this machine that a task needs and that cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "host port {port} cannot be opened on this node: {reason}; end what uses it, or publish another \
     port of the host"
)]
pub struct HostPortError {
    pub port: u16,
    pub reason: String,
}
