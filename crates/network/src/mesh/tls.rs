//! How connections between workers are secured.
//!
//! The mesh only asks for streams whose other end is proven. [`IdentityTls`]
//! is what workers use; the trait keeps the mesh's own tests free of
//! certificates where they are not the point.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use cluster_identity::{Protocol, TlsClient, TlsIdentity, TlsServer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection after its handshake.
pub trait MeshStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> MeshStream for T {}

pub type BoxStream = Box<dyn MeshStream>;

pub type Handshake<'a> = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send + 'a>>;

/// Mutual authentication of workers.
pub trait MeshTls: Send + Sync + 'static {
    /// Connects to the mesh port `addr`. Must fail unless the peer proves to
    /// be the worker `node_id` of this cluster, and within `timeout`.
    fn connect<'a>(
        &'a self,
        addr: SocketAddr,
        node_id: &'a str,
        timeout: Duration,
    ) -> Handshake<'a>;

    /// Opens the server side. Must fail unless the peer proves to be a worker
    /// of this cluster.
    fn accept(&self, stream: TcpStream) -> Handshake<'_>;
}

/// The worker's own identity.
pub struct IdentityTls {
    identity: TlsIdentity,
    server: TlsServer,
}

impl IdentityTls {
    /// Follows later replacements of the identity.
    pub fn new(identity: &TlsIdentity) -> Self {
        IdentityTls { identity: identity.clone(), server: TlsServer::new(identity, Protocol::Mesh) }
    }
}

impl MeshTls for IdentityTls {
    fn connect<'a>(
        &'a self,
        addr: SocketAddr,
        node_id: &'a str,
        timeout: Duration,
    ) -> Handshake<'a> {
        Box::pin(async move {
            let client = TlsClient::mesh(&self.identity, node_id);
            let dialed = client.dial(&addr.to_string(), timeout).await;
            let stream = dialed.map_err(io::Error::other)?;
            Ok(Box::new(stream) as BoxStream)
        })
    }

    fn accept(&self, stream: TcpStream) -> Handshake<'_> {
        Box::pin(async move {
            let addr = stream.peer_addr()?;
            let accepted = self.server.accept(stream, addr).await;
            let stream = accepted.map_err(io::Error::other)?;
            Ok(Box::new(stream) as BoxStream)
        })
    }
}
