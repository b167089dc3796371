//! Dialling: TCP, TLS, the checks of who answered, and gRPC channels on top.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::certificate::{CaDigest, Leaf};
use crate::net::{Net, Socket};
use crate::role::{Role, node_server_name, role_server_name};
use crate::tls::connect_error::{ConnectError, find_connect_error};
use crate::tls::pinned::{PinnedVerifier, SeenCa};
use crate::tls::{Error, Protocol, TlsIdentity, is_address, provider, roots};

/// Enough for the SETTINGS frame that an HTTP/2 server sends first.
const FIRST_READ_BYTES: usize = 1024;

/// Whom to dial as whom. Cheap to clone; follows [`TlsIdentity::replace`].
#[derive(Clone, Debug)]
pub struct TlsClient {
    trust: Trust,
    net: Net,
}

#[derive(Clone, Debug)]
enum Trust {
    Member { identity: TlsIdentity, protocol: Protocol, role: Role, node_id: Option<String> },
    Pinned { config: Arc<ClientConfig>, verifier: Arc<PinnedVerifier> },
    Anonymous { config: Arc<ClientConfig>, cluster_id: String },
}

impl TlsClient {
    /// Any manager of our cluster, over gRPC.
    pub fn manager(identity: &TlsIdentity) -> Self {
        Self::member(identity, Protocol::Grpc, Role::Manager, None)
    }

    /// Exactly the manager `node_id`, over gRPC: for talk between managers, where the wrong one
    /// (an address that was given to another) must not be believed.
    pub fn manager_node(identity: &TlsIdentity, node_id: &str) -> Self {
        Self::member(identity, Protocol::Grpc, Role::Manager, Some(node_id))
    }

    /// Exactly the worker `node_id`, over the routing mesh.
    pub fn mesh(identity: &TlsIdentity, node_id: &str) -> Self {
        Self::member(identity, Protocol::Mesh, Role::Worker, Some(node_id))
    }

    /// Any worker of our cluster, over the routing mesh. Sessions are resumed per name, so
    /// [`TlsClient::mesh`] reconnects faster.
    pub fn mesh_any(identity: &TlsIdentity) -> Self {
        Self::member(identity, Protocol::Mesh, Role::Worker, None)
    }

    /// A joiner: no certificate yet, trusts the CA that has the digest in its token.
    pub fn pinned(ca_digest: CaDigest) -> Result<Self, Error> {
        let verifier = Arc::new(PinnedVerifier::new(ca_digest));
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| Error::Configure { node_id: "joiner".into(), source })?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![Protocol::Grpc.alpn().to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self {
            trust: Trust::Pinned { config: Arc::new(config), verifier },
            net: Net::default(),
        })
    }

    /// Any manager of our cluster, without showing a certificate: for a node whose own expired.
    pub fn anonymous(identity: &TlsIdentity) -> Result<Self, Error> {
        let loaded = identity.loaded();
        let node_id = loaded.identity.node_id.clone();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| Error::Configure { node_id, source })?
            .with_root_certificates(roots(&loaded.identity)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![Protocol::Grpc.alpn().to_vec()];
        config.resumption = Resumption::disabled();
        let cluster_id = loaded.identity.cluster_id.clone();
        let trust = Trust::Anonymous { config: Arc::new(config), cluster_id };
        Ok(Self { trust, net: identity.net().clone() })
    }

    /// The CA that a [`TlsClient::pinned`] client met; `None` before it connected.
    pub fn seen_ca(&self) -> Option<SeenCa> {
        match &self.trust {
            Trust::Pinned { verifier, .. } => verifier.seen(),
            Trust::Member { .. } | Trust::Anonymous { .. } => None,
        }
    }

    fn member(
        identity: &TlsIdentity,
        protocol: Protocol,
        role: Role,
        node_id: Option<&str>,
    ) -> Self {
        let (identity, net) = (identity.clone(), identity.net().clone());
        let node_id = node_id.map(str::to_owned);
        Self { trust: Trust::Member { identity, protocol, role, node_id }, net }
    }

    /// The same over another network.
    pub fn through(mut self, net: &Net) -> Self {
        self.net = net.clone();
        self
    }

    /// Connects to `address` (`HOST:PORT`) within `timeout`, checks included.
    ///
    /// Over gRPC this also waits for the server's first bytes: TLS 1.3 tells a client that its own
    /// certificate was refused only after the handshake looks complete.
    pub async fn dial(
        &self,
        address: &str,
        timeout: Duration,
    ) -> Result<ClientStream, ConnectError> {
        if !is_address(address) {
            return Err(ConnectError::BadAddress { address: address.chars().take(80).collect() });
        }
        let timed_out = |_| ConnectError::Timeout { address: address.into(), after: timeout };
        tokio::time::timeout(timeout, self.dial_unbounded(address)).await.map_err(timed_out)?
    }

    async fn dial_unbounded(&self, address: &str) -> Result<ClientStream, ConnectError> {
        let plan = self.plan(address)?;
        let socket = self.net.connect(address).await.map_err(|source| {
            ConnectError::Unreachable { address: address.into(), source: Arc::new(source) }
        })?;
        socket.tune();
        let failed = |error| ConnectError::from_tls(address, &plan.expected, plan.pinned, error);
        let tls =
            TlsConnector::from(plan.config).connect(plan.name, socket).await.map_err(failed)?;
        let leaf = check_peer(address, &tls, plan.role, plan.protocol, &plan.expected)?;
        if let Trust::Member { identity, .. } = &self.trust
            && identity.is_denied(&leaf.subject.node_id)
        {
            let node_id = leaf.subject.node_id;
            return Err(ConnectError::PeerRemoved { address: address.into(), node_id });
        }
        let mut stream = ClientStream { tls, first: Vec::new(), taken: 0 };
        if plan.protocol == Protocol::Grpc {
            stream.read_first().await.map_err(failed)?;
        }
        Ok(stream)
    }

    fn plan(&self, address: &str) -> Result<Plan, ConnectError> {
        let (config, name, role, protocol, expected, pinned) = match &self.trust {
            Trust::Pinned { config, .. } => {
                // The verifier decides by digest and role; this name is not looked at.
                let name = role_server_name(Role::Manager, "unknown");
                let expected = "a manager".to_owned();
                (config.clone(), name, Role::Manager, Protocol::Grpc, expected, true)
            }
            Trust::Anonymous { config, cluster_id } => {
                let name = role_server_name(Role::Manager, cluster_id);
                let expected = format!("a manager of cluster {cluster_id}");
                (config.clone(), name, Role::Manager, Protocol::Grpc, expected, false)
            }
            Trust::Member { identity, protocol, role, node_id } => {
                let loaded = identity.loaded();
                let now = crate::now_unix();
                if now > loaded.leaf.not_after {
                    return Err(ConnectError::OwnExpired { not_after: loaded.leaf.not_after });
                }
                if now < loaded.leaf.not_before {
                    return Err(ConnectError::OwnNotYetValid {
                        not_before: loaded.leaf.not_before,
                    });
                }
                let cluster_id = &loaded.identity.cluster_id;
                let (name, expected) = match node_id {
                    Some(id) => (node_server_name(id, cluster_id), format!("the {role} {id}")),
                    None => (
                        role_server_name(*role, cluster_id),
                        format!("a {role} of cluster {cluster_id}"),
                    ),
                };
                (loaded.client(*protocol), name, *role, *protocol, expected, false)
            }
        };
        let name = ServerName::try_from(name).map_err(|_| ConnectError::WrongPeer {
            address: address.into(),
            expected: expected.clone(),
        })?;
        Ok(Plan { config, name, role, protocol, expected, pinned })
    }
}

struct Plan {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    role: Role,
    protocol: Protocol,
    /// Who is meant, in words, for errors.
    expected: String,
    pinned: bool,
}

/// What a full handshake checked, again: a resumed one trusts what was checked at its start.
fn check_peer(
    address: &str,
    tls: &TlsStream<Socket>,
    role: Role,
    protocol: Protocol,
    expected: &str,
) -> Result<Leaf, ConnectError> {
    let (_, session) = tls.get_ref();
    if session.alpn_protocol() != Some(protocol.alpn()) {
        return Err(ConnectError::WrongProtocol { address: address.into() });
    }
    let leaf = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|der| Leaf::from_der(der).ok())
        .filter(|leaf| leaf.subject.role == role)
        .ok_or_else(|| ConnectError::WrongPeer {
            address: address.into(),
            expected: expected.into(),
        })?;
    if crate::now_unix() > leaf.not_after {
        return Err(ConnectError::PeerExpired {
            address: address.into(),
            source: CertificateError::Expired.into(),
        });
    }
    Ok(leaf)
}

/// A connection to a verified peer.
pub struct ClientStream {
    tls: TlsStream<Socket>,
    /// Read during [`TlsClient::dial`], not yet given to the reader.
    first: Vec<u8>,
    taken: usize,
}

impl ClientStream {
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tls.get_ref().0.peer_addr()
    }

    /// Whether the handshake was shortened by an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    async fn read_first(&mut self) -> io::Result<()> {
        let mut first = vec![0; FIRST_READ_BYTES];
        let read = self.tls.read(&mut first).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        first.truncate(read);
        self.first = first;
        Ok(())
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let waiting = self.first.len() - self.taken;
        if waiting == 0 {
            return Pin::new(&mut self.tls).poll_read(cx, buf);
        }
        let give = waiting.min(buf.remaining());
        let start = self.taken;
        buf.put_slice(&self.first[start..start + give]);
        self.taken += give;
        if self.taken == self.first.len() {
            self.first = Vec::new();
            self.taken = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
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
        ready!(Pin::new(&mut self.tls).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}

/// How a gRPC channel behaves; the defaults suit a lease of a few seconds.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// Bound on TCP, TLS and the first bytes together, for each (re)connection.
    pub connect_timeout: Duration,
    /// Bound on each call, streams included; `None` leaves it to the caller.
    pub request_timeout: Option<Duration>,
    /// HTTP/2 pings while the channel is open, in use or not.
    pub keep_alive_interval: Duration,
    /// How long a ping may stay unanswered before the connection counts as dead.
    pub keep_alive_timeout: Duration,
    /// Bytes a peer may send on one stream before we read them.
    pub stream_window: u32,
    /// Bytes a peer may send on one connection before we read them.
    pub connection_window: u32,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            request_timeout: None,
            keep_alive_interval: Duration::from_secs(2),
            keep_alive_timeout: Duration::from_secs(2),
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
        }
    }
}

impl ChannelOptions {
    fn endpoint(&self, address: &str) -> Result<Endpoint, ConnectError> {
        let bad = || ConnectError::BadAddress { address: address.chars().take(80).collect() };
        if !is_address(address) {
            return Err(bad());
        }
        let uri = Uri::builder()
            .scheme("http")
            .authority(address)
            .path_and_query("/")
            .build()
            .map_err(|_| bad())?;
        let endpoint = Endpoint::from(uri)
            .http2_keep_alive_interval(self.keep_alive_interval)
            .keep_alive_timeout(self.keep_alive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window);
        Ok(match self.request_timeout {
            Some(timeout) => endpoint.timeout(timeout),
            None => endpoint,
        })
    }
}

/// A gRPC channel to `address` (`HOST:PORT`), connected; reconnects by itself when it breaks.
pub async fn connect(
    address: &str,
    client: &TlsClient,
    options: &ChannelOptions,
) -> Result<Channel, ConnectError> {
    let endpoint = options.endpoint(address)?;
    endpoint.connect_with_connector(connector(address, client, options)).await.map_err(|error| {
        find_connect_error(&error).cloned().unwrap_or_else(|| ConnectError::Http2 {
            address: address.into(),
            source: Arc::new(error),
        })
    })
}

/// As [`connect`], but dials at the first call. [`find_connect_error`] reads the cause out of a
/// failed call's status.
pub fn connect_lazy(
    address: &str,
    client: &TlsClient,
    options: &ChannelOptions,
) -> Result<Channel, ConnectError> {
    let endpoint = options.endpoint(address)?;
    Ok(endpoint.connect_with_connector_lazy(connector(address, client, options)))
}

fn connector(
    address: &str,
    client: &TlsClient,
    options: &ChannelOptions,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<ClientStream>,
    Error = ConnectError,
    Future = impl Future<Output = Result<TokioIo<ClientStream>, ConnectError>> + Send + use<>,
> + Send
+ use<> {
    let (address, client): (Arc<str>, _) = (address.into(), client.clone());
    let timeout = options.connect_timeout;
    tower::service_fn(move |_: Uri| {
        let (address, client) = (address.clone(), client.clone());
        async move { client.dial(&address, timeout).await.map(TokioIo::new) }
    })
}
