//! How connections between workers are secured.
//!
//! The mesh only asks for streams whose other end is proven; certificates and
//! their renewal stay with whoever implements [`MeshTls`].

use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection after its handshake.
pub trait MeshStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> MeshStream for T {}

pub type BoxStream = Box<dyn MeshStream>;

pub type Handshake<'a> = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send + 'a>>;

/// Mutual authentication of workers.
pub trait MeshTls: Send + Sync + 'static {
    /// Opens the client side. Must fail unless the peer proves to be the
    /// worker `node_id` of this cluster.
    fn connect<'a>(&'a self, stream: TcpStream, node_id: &'a str) -> Handshake<'a>;

    /// Opens the server side. Must fail unless the peer proves to be a worker
    /// of this cluster.
    fn accept<'a>(&'a self, stream: TcpStream) -> Handshake<'a>;
}
