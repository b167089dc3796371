//! What carries the bytes of a connection: TCP, or a network that a test puts in its place.
//!
//! Only the transport can be exchanged, never TLS: whatever travels below, peers prove who they
//! are. Addresses are names to this module; a network of a test gives them its own meaning.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;

/// Connections that may wait to be accepted; the kernel's own bound (`net.core.somaxconn`, mostly
/// 4096) holds where it is lower. One too many is dropped and tried again by its kernel a second
/// later, so all workers of a lost manager must find room at another.
const BACKLOG: u32 = 8192;

/// A connected stream of bytes.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Bytes for T {}

/// A network other than the machine's own.
pub trait Network: Send + Sync + 'static {
    /// Connects to `address` (`HOST:PORT`).
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Socket>>;

    /// Starts to listen.
    fn listen(&self, address: SocketAddr) -> io::Result<Listener>;
}

/// What accepts on such a network.
pub trait Accept: Send + 'static {
    /// The next connection and where it comes from.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Socket, SocketAddr)>>;
}

/// Where connections are made and taken. The default is the machine's TCP.
#[derive(Clone, Default)]
pub struct Net(Option<Arc<dyn Network>>);

impl Net {
    /// Everything over `network` instead of TCP.
    pub fn over(network: Arc<dyn Network>) -> Self {
        Self(Some(network))
    }

    /// Connects to `address` (`HOST:PORT`), without TLS: good for seeing that somebody is there.
    pub async fn connect(&self, address: &str) -> io::Result<Socket> {
        match &self.0 {
            Some(network) => network.connect(address).await,
            None => Ok(TcpStream::connect(address).await?.into()),
        }
    }

    /// Starts to listen on `address`.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        match &self.0 {
            Some(network) => network.listen(address),
            None => Ok(tcp(address)?.into()),
        }
    }
}

/// Binds as [`TcpListener::bind`] does, with more room for connections that wait to be accepted.
fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "another network" } else { "TCP" })
    }
}

/// Takes connections.
pub struct Listener(Taking);

enum Taking {
    Tcp(TcpListener),
    Other(Box<dyn Accept>),
}

impl Listener {
    /// A listener of a [`Network`].
    pub fn other(accept: Box<dyn Accept>) -> Self {
        Self(Taking::Other(accept))
    }

    pub(crate) async fn accept(&mut self) -> io::Result<(Socket, SocketAddr)> {
        match &mut self.0 {
            Taking::Tcp(listener) => {
                let (tcp, from) = listener.accept().await?;
                Ok((tcp.into(), from))
            }
            Taking::Other(listener) => listener.accept().await,
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self(Taking::Tcp(listener))
    }
}

/// One end of a connection, before TLS.
pub struct Socket(Carrier);

enum Carrier {
    Tcp(TcpStream),
    Other { bytes: Box<dyn Bytes>, peer: SocketAddr },
}

impl Socket {
    /// A connection of a [`Network`] to `peer`.
    pub fn other(bytes: Box<dyn Bytes>, peer: SocketAddr) -> Self {
        Self(Carrier::Other { bytes, peer })
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Carrier::Tcp(tcp) => tcp.peer_addr(),
            Carrier::Other { peer, .. } => Ok(*peer),
        }
    }

    /// From now on `runtime` notices what happens to it, instead of the one it was made on: that may
    /// be too busy to look.
    pub(crate) fn move_to(&mut self, runtime: &Handle) -> io::Result<()> {
        let Carrier::Tcp(tcp) = &mut self.0 else { return Ok(()) };
        let _there = runtime.enter();
        let peer = tcp.peer_addr()?;
        // Takes its place meanwhile, and for good if the move fails.
        let between = Carrier::Other { bytes: Box::new(tokio::io::empty()), peer };
        if let Carrier::Tcp(tcp) = std::mem::replace(&mut self.0, between) {
            self.0 = Carrier::Tcp(TcpStream::from_std(tcp.into_std()?)?);
        }
        Ok(())
    }

    /// Small messages at once, and a dead peer noticed even on an idle connection. Best effort: a
    /// socket that refuses an option still works.
    pub(crate) fn tune(&self) {
        let Carrier::Tcp(tcp) = &self.0 else { return };
        let _ = tcp.set_nodelay(true);
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5))
            .with_retries(3);
        let _ = SockRef::from(tcp).set_tcp_keepalive(&keepalive);
    }
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Self {
        Self(Carrier::Tcp(tcp))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Carrier::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Carrier::Other { bytes, .. } => Pin::new(bytes).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Carrier::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Carrier::Other { bytes: other, .. } => Pin::new(other).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Carrier::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Carrier::Other { bytes, .. } => Pin::new(bytes).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Carrier::Tcp(tcp) => tcp.is_write_vectored(),
            Carrier::Other { bytes, .. } => bytes.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Carrier::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Carrier::Other { bytes, .. } => Pin::new(bytes).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Carrier::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Carrier::Other { bytes, .. } => Pin::new(bytes).poll_shutdown(cx),
        }
    }
}
