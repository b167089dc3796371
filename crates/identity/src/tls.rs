//! TLS for every connection of the product: one identity, swappable while connections are open.
//!
//! TLS 1.3 only, ring only, both ends ours. What a configuration trusts is the CA beside the
//! identity and nothing else; the machine's own trust store is never read. Replacing the identity
//! rebuilds the configurations, tickets included, so nothing outlives the trust it was made under.
//! Connections that are open when it happens go on.

pub(crate) mod client;
pub(crate) mod connect_error;
pub(crate) mod gate;
pub(crate) mod patience;
pub(crate) mod pinned;
pub(crate) mod server;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::certificate::{self, Leaf};
use crate::identity::{self, Identity};
use crate::net::Net;

/// How many peers a client remembers a session of.
const RESUMABLE_PEERS: usize = 512;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the identity cannot be used for TLS")]
    Identity(#[from] identity::Error),
    #[error("the CA certificate cannot be used for TLS")]
    Root(#[source] certificate::Error),
    #[error("configuring TLS for node {node_id}")]
    Configure {
        node_id: String,
        #[source]
        source: rustls::Error,
    },
    #[error("configuring the check of client certificates for node {node_id}")]
    Verifier {
        node_id: String,
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
    #[error("replacing the identity of node {ours}: the new one is for {found}")]
    OtherSubject { ours: String, found: String },
}

/// What is spoken inside TLS. Agreed by ALPN, so that a gRPC client that dials a mesh port (or the
/// other way round) is told so instead of reading noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC. Clients without a certificate are let in (as nobody): joiners have none yet.
    Grpc,
    /// The routing mesh between workers. Only workers are let in.
    Mesh,
}

impl Protocol {
    pub(crate) const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Grpc => b"h2",
            Self::Mesh => b"cluster-mesh/1",
        }
    }
}

/// The identity that TLS uses now. Clones share it: [`TlsIdentity::replace`] reaches them all.
#[derive(Clone)]
pub struct TlsIdentity {
    current: Arc<RwLock<Arc<Loaded>>>,
    denied: Arc<RwLock<HashSet<String>>>,
    net: Net,
}

impl TlsIdentity {
    pub fn new(identity: Identity) -> Result<Self, Error> {
        let current = Arc::new(RwLock::new(Arc::new(Loaded::new(identity)?)));
        Ok(Self { current, denied: Arc::default(), net: Net::default() })
    }

    /// Connections as this identity are made over `net`.
    pub fn over(mut self, net: &Net) -> Self {
        self.net = net.clone();
        self
    }

    /// Where its connections are made.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Uses `identity` for every handshake from now on. It must be the same node's.
    pub fn replace(&self, identity: Identity) -> Result<(), Error> {
        let ours = self.identity();
        if ours.subject() != identity.subject() {
            return Err(Error::OtherSubject {
                ours: ours.node_id.clone(),
                found: format!("{} {}", identity.role, identity.node_id),
            });
        }
        let loaded = Arc::new(Loaded::new(identity)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// The nodes that were removed: from now on none of them is believed when it is dialled, nor let
    /// in on a mesh port. On gRPC ports a removed node is told so by who serves it.
    pub fn deny(&self, nodes: HashSet<String>) {
        *self.denied.write().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    pub fn is_denied(&self, node_id: &str) -> bool {
        self.denied.read().unwrap_or_else(PoisonError::into_inner).contains(node_id)
    }

    pub fn identity(&self) -> Arc<Identity> {
        self.loaded().identity.clone()
    }

    /// The dates and subject of the certificate in use.
    pub fn leaf(&self) -> Leaf {
        self.loaded().leaf.clone()
    }

    pub(crate) fn loaded(&self) -> Arc<Loaded> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.loaded().identity, f)
    }
}

/// An identity with the configurations made from it.
pub(crate) struct Loaded {
    pub(crate) identity: Arc<Identity>,
    pub(crate) leaf: Leaf,
    grpc: Configs,
    mesh: Configs,
}

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Loaded {
    fn new(identity: Identity) -> Result<Self, Error> {
        let leaf = identity.leaf()?;
        let roots = Arc::new(roots(&identity)?);
        let key = Arc::new(SingleCertAndKey::from(identity.certified_key()?));
        Ok(Self {
            leaf,
            grpc: Configs::new(Protocol::Grpc, &identity.node_id, &roots, &key)?,
            mesh: Configs::new(Protocol::Mesh, &identity.node_id, &roots, &key)?,
            identity: Arc::new(identity),
        })
    }

    pub(crate) fn server(&self, protocol: Protocol) -> Arc<ServerConfig> {
        self.configs(protocol).server.clone()
    }

    pub(crate) fn client(&self, protocol: Protocol) -> Arc<ClientConfig> {
        self.configs(protocol).client.clone()
    }

    fn configs(&self, protocol: Protocol) -> &Configs {
        match protocol {
            Protocol::Grpc => &self.grpc,
            Protocol::Mesh => &self.mesh,
        }
    }
}

impl Configs {
    fn new(
        protocol: Protocol,
        node_id: &str,
        roots: &Arc<RootCertStore>,
        key: &Arc<SingleCertAndKey>,
    ) -> Result<Self, Error> {
        let configure = |source| Error::Configure { node_id: node_id.into(), source };
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
        let verifier = match protocol {
            Protocol::Grpc => verifier.allow_unauthenticated(),
            Protocol::Mesh => verifier,
        };
        let verifier = verifier
            .build()
            .map_err(|source| Error::Verifier { node_id: node_id.into(), source })?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(configure)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(key.clone());
        server.alpn_protocols = vec![protocol.alpn().to_vec()];
        // Stateless tickets: resuming costs the server no memory per client.
        server.ticketer = rustls::crypto::ring::Ticketer::new().map_err(configure)?;
        server.send_tls13_tickets = match protocol {
            Protocol::Grpc => 1,
            Protocol::Mesh => 2,
        };

        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(configure)?
            .with_root_certificates(roots.clone())
            .with_client_cert_resolver(key.clone());
        client.alpn_protocols = vec![protocol.alpn().to_vec()];
        client.resumption = Resumption::in_memory_sessions(RESUMABLE_PEERS);
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(identity: &Identity) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for root in certificate::chain_der(&identity.ca_pem).map_err(Error::Root)? {
        roots
            .add(root)
            .map_err(|source| Error::Configure { node_id: identity.node_id.clone(), source })?;
    }
    Ok(roots)
}

/// `HOST:PORT` with a port other than 0; whether the host exists is found out by dialling.
pub(crate) fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = match bracketed {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    host_fits
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|p| p != 0)
}
