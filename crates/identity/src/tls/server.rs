//! Accepting: bounded concurrent handshakes, and who is at the other end.
//!
//! A stranger (garbage, plain HTTP, a client that says nothing) costs one of a bounded number of
//! slots for a bounded time and at most one log line a window; it never delays the others.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{AbortHandle, JoinError, JoinHandle, JoinSet};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::certificate::Leaf;
use crate::net::{Listener, Socket};
use crate::role::Role;
use crate::tls::gate::LogGate;
use crate::tls::{Protocol, TlsIdentity};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes under way at once. When thousands come together, few at a time are done in time, and
/// many at a time all run out of it; the others wait in the kernel's backlog.
const MAX_HANDSHAKES: usize = 256;
/// With every slot taken, the oldest handshake gives way once it is this old: honest ones take
/// milliseconds, and longer where the machine is busy with many.
const PATIENCE_WHEN_FULL: Duration = Duration::from_secs(2);
/// Finished connections that the server has not picked up yet.
const READY_CONNECTIONS: usize = 64;
/// After a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("the TLS handshake took longer than {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
    #[error("the client closed the connection during the TLS handshake")]
    Closed(#[source] io::Error),
    #[error("the client does not speak TLS")]
    NotTls(#[source] rustls::Error),
    #[error("the client's certificate was refused")]
    Certificate(#[source] rustls::Error),
    #[error("the client refused the handshake")]
    RefusedByClient(#[source] rustls::Error),
    #[error("the client's certificate has expired or names no valid subject")]
    Subject,
    #[error("the client speaks another protocol")]
    WrongProtocol,
    #[error("a client with role {0} is not expected on this port")]
    WrongRole(Role),
    #[error("node {0} was removed from the cluster")]
    Removed(String),
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
}

/// Who a connection's certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub role: Role,
    pub node_id: String,
    pub cluster_id: String,
    /// Unix seconds. Connections can outlive it; long-lived streams should look.
    pub not_after: u64,
    certificate: std::sync::Arc<[u8]>,
}

impl Peer {
    /// Whether exactly this CA (PEM) issued the certificate, whichever chain was shown with it.
    pub fn is_issued_by(&self, ca_pem: &str) -> bool {
        let roots = crate::certificate::chain_der(ca_pem).unwrap_or_default();
        let first = &roots[..roots.len().min(1)];
        crate::certificate::check_issued_by(&self.certificate, first).is_ok()
    }
}

/// In the extensions of every gRPC request that came through [`serve_tls`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    pub addr: SocketAddr,
    /// `None`: the client showed no certificate. Only joiners have a reason to.
    pub peer: Option<Peer>,
}

/// How to accept. Cheap to clone; follows [`TlsIdentity::replace`].
#[derive(Clone, Debug)]
pub struct TlsServer {
    identity: TlsIdentity,
    protocol: Protocol,
}

impl TlsServer {
    pub fn new(identity: &TlsIdentity, protocol: Protocol) -> Self {
        Self { identity: identity.clone(), protocol }
    }

    /// The handshake on one accepted connection, within its time limit.
    pub async fn accept(
        &self,
        socket: impl Into<Socket>,
        addr: SocketAddr,
    ) -> Result<TlsConn, AcceptError> {
        let socket = socket.into();
        socket.tune();
        let acceptor = TlsAcceptor::from(self.identity.loaded().server(self.protocol));
        let tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket))
            .await
            .map_err(|_| AcceptError::Timeout)?
            .map_err(handshake_error)?;
        let (_, session) = tls.get_ref();
        if session.alpn_protocol() != Some(self.protocol.alpn()) {
            return Err(AcceptError::WrongProtocol);
        }
        let peer = match session.peer_certificates().and_then(|chain| chain.first()) {
            Some(der) => Some(peer_of(der)?),
            None => None,
        };
        if self.protocol == Protocol::Mesh {
            match &peer {
                Some(peer) if self.identity.is_denied(&peer.node_id) => {
                    return Err(AcceptError::Removed(peer.node_id.clone()));
                }
                Some(peer) if peer.role == Role::Worker => {}
                Some(peer) => return Err(AcceptError::WrongRole(peer.role)),
                None => return Err(AcceptError::Subject),
            }
        }
        Ok(TlsConn { tls, info: PeerInfo { addr, peer }, _place: None, end: None })
    }
}

/// A resumed session brings the certificate it began with, so the dates are checked here again.
fn peer_of(der: &[u8]) -> Result<Peer, AcceptError> {
    let leaf = Leaf::from_der(der).map_err(|_| AcceptError::Subject)?;
    if !leaf.is_valid_at(crate::now_unix()) {
        return Err(AcceptError::Subject);
    }
    let subject = leaf.subject;
    Ok(Peer {
        role: subject.role,
        node_id: subject.node_id,
        cluster_id: subject.cluster_id,
        not_after: leaf.not_after,
        certificate: der.into(),
    })
}

fn handshake_error(error: io::Error) -> AcceptError {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned();
    match cause {
        Some(cause @ rustls::Error::InvalidMessage(_)) => AcceptError::NotTls(cause),
        Some(
            cause @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented),
        ) => AcceptError::Certificate(cause),
        Some(cause @ rustls::Error::AlertReceived(_)) => AcceptError::RefusedByClient(cause),
        Some(rustls::Error::NoApplicationProtocol) => AcceptError::WrongProtocol,
        _ if matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        ) =>
        {
            AcceptError::Closed(error)
        }
        _ => AcceptError::Handshake(error),
    }
}

/// An accepted connection.
pub struct TlsConn {
    tls: TlsStream<Socket>,
    info: PeerInfo,
    _place: Option<OwnedSemaphorePermit>,
    /// From then on it breaks.
    end: Option<Pin<Box<Sleep>>>,
}

impl TlsConn {
    pub fn info(&self) -> &PeerInfo {
        &self.info
    }

    /// Keeps a place among a bounded number of connections for as long as this one is open.
    pub fn holding(mut self, place: OwnedSemaphorePermit) -> Self {
        self._place = Some(place);
        self
    }

    /// For a server on another runtime than the one that shook hands: that runtime notices what comes in.
    ///
    /// # Errors
    ///
    /// The connection is of no more use.
    pub fn on(mut self, runtime: &Handle) -> io::Result<Self> {
        self.tls.get_mut().0.move_to(runtime)?;
        Ok(self)
    }

    /// Breaks after so long, whatever goes on: reads fail.
    pub fn breaking_after(mut self, stay: Duration) -> Self {
        self.end = Some(Box::pin(tokio::time::sleep(stay)));
        self
    }
}

impl Connected for TlsConn {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for TlsConn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// Accepts and shakes hands in the background until the returned stream is dropped.
///
/// For `Server::serve_with_incoming` and `_shutdown`. The stream never yields an error: a failed
/// accept or handshake is logged (rate bounded) and the next connection follows.
pub fn serve_tls(listener: impl Into<Listener>, server: TlsServer) -> TlsIncoming {
    serve_bounded(listener.into(), server, MAX_HANDSHAKES, std::future::pending())
}

/// As [`serve_tls`], until `closing` completes: then new connections are refused, those whose
/// handshake is under way still come, and after the last of them the stream ends.
pub fn serve_tls_until(
    listener: impl Into<Listener>,
    server: TlsServer,
    closing: impl Future<Output = ()> + Send + 'static,
) -> TlsIncoming {
    serve_bounded(listener.into(), server, MAX_HANDSHAKES, closing)
}

pub(crate) fn serve_bounded(
    listener: Listener,
    server: TlsServer,
    max_handshakes: usize,
    closing: impl Future<Output = ()> + Send + 'static,
) -> TlsIncoming {
    let (ready, connections) = mpsc::channel(READY_CONNECTIONS);
    let accepting = Accepting {
        server,
        ready,
        max_handshakes,
        handshakes: JoinSet::new(),
        oldest_first: VecDeque::new(),
        refused: LogGate::default(),
        failed: LogGate::default(),
    };
    TlsIncoming { connections, task: tokio::spawn(accepting.run(listener, closing)) }
}

/// Connections that have completed their handshake. Dropping it stops accepting.
pub struct TlsIncoming {
    connections: mpsc::Receiver<TlsConn>,
    task: JoinHandle<()>,
}

impl Stream for TlsIncoming {
    type Item = io::Result<TlsConn>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

impl Drop for TlsIncoming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The next connection; none ever comes to a closed listener.
async fn accept(listener: Option<&mut Listener>) -> io::Result<(Socket, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

type Handshake = Result<(), (SocketAddr, AcceptError)>;

struct Accepting {
    server: TlsServer,
    ready: mpsc::Sender<TlsConn>,
    max_handshakes: usize,
    handshakes: JoinSet<Handshake>,
    oldest_first: VecDeque<(Instant, AbortHandle)>,
    refused: LogGate,
    failed: LogGate,
}

impl Accepting {
    async fn run(mut self, listener: Listener, closing: impl Future<Output = ()>) {
        let mut closing = std::pin::pin!(closing);
        let mut listener = Some(listener);
        while listener.is_some() || !self.handshakes.is_empty() {
            let full = self.handshakes.len() >= self.max_handshakes;
            let evict_at = self.evict_at();
            tokio::select! {
                Some(done) = self.handshakes.join_next() => self.note(done),
                () = &mut closing, if listener.is_some() => listener = None,
                accepted = accept(listener.as_mut()), if !full => match accepted {
                    Ok((socket, addr)) => self.start(socket, addr),
                    Err(error) => {
                        if let Some(suppressed) = self.failed.pass(Instant::now()) {
                            tracing::warn!(%error, suppressed, "accepting a connection failed");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = tokio::time::sleep_until(evict_at.into()), if full => {
                    if let Some((_, oldest)) = self.oldest_first.pop_front() {
                        oldest.abort();
                    }
                }
            }
        }
    }

    fn start(&mut self, socket: Socket, addr: SocketAddr) {
        let (server, ready) = (self.server.clone(), self.ready.clone());
        let handshake = self.handshakes.spawn(async move {
            let connection = server.accept(socket, addr).await.map_err(|error| (addr, error))?;
            // A closed receiver means that the server is going away, and this task with it.
            let _ = ready.send(connection).await;
            Ok(())
        });
        if self.oldest_first.len() >= 2 * self.max_handshakes {
            self.oldest_first.retain(|(_, handshake)| !handshake.is_finished());
        }
        self.oldest_first.push_back((Instant::now(), handshake));
    }

    /// When the oldest handshake still under way may be given up for a new one.
    fn evict_at(&mut self) -> Instant {
        while self.oldest_first.front().is_some_and(|(_, handshake)| handshake.is_finished()) {
            self.oldest_first.pop_front();
        }
        let started = self.oldest_first.front().map_or_else(Instant::now, |(started, _)| *started);
        started + PATIENCE_WHEN_FULL
    }

    fn note(&mut self, done: Result<Handshake, JoinError>) {
        let Ok(Err((addr, error))) = done else { return };
        // A port probe connects and leaves; that is nobody's concern.
        if matches!(error, AcceptError::Closed(_)) {
            tracing::debug!(%addr, error = &error as &dyn std::error::Error, "connection closed early");
            return;
        }
        match self.refused.pass(Instant::now()) {
            Some(suppressed) => tracing::warn!(
                %addr, suppressed, error = &error as &dyn std::error::Error, "connection refused"
            ),
            None => tracing::debug!(
                %addr, error = &error as &dyn std::error::Error, "connection refused"
            ),
        }
    }
}
