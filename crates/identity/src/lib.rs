//! Who is who in a cluster: the built-in certificate authority, join tokens, certificates with
//! roles in them, the files that keep them, and TLS connections that use them.
//!
//! Every connection of the product goes through [`TlsServer`] and [`TlsClient`]; there is no
//! plain-text variant. A peer's role comes from its certificate and from nowhere else.
//!
//! What never lives here: who may call which RPC (the manager's role table), where tokens and the
//! CA key are kept (replicated state), and any decision about *which* node gets a certificate.
//! The crate depends on none of ours, so ids are plain strings.

mod base32;
mod ca;
mod certificate;
mod context;
mod file;
#[cfg(test)]
mod golden;
mod identity;
pub mod net;
mod proof;
mod renewal;
mod role;
mod secret;
#[cfg(test)]
mod testing;
mod tls;
mod token;
mod unlock;

pub use ca::{Ca, DEFAULT_VALIDITY, Error as CaError, KeyAndCsr};
pub use certificate::{CaDigest, Error as CertificateError, Leaf};
pub use context::{Context, Error as ContextError};
pub use identity::{Error as IdentityError, Identity, Owner};
pub use renewal::renew_at;
pub use role::{Role, Subject, UnknownRole, node_server_name, role_server_name};
pub use secret::SecretPem;
pub use tls::client::{ChannelOptions, ClientStream, TlsClient, connect, connect_lazy};
pub use tls::connect_error::{ConnectError, find_connect_error};
pub use tls::gate::LogGate;
pub use tls::patience::Patience;
pub use tls::pinned::SeenCa;
pub use tls::server::{
    AcceptError, Peer, PeerInfo, TlsConn, TlsIncoming, TlsServer, serve_tls, serve_tls_until,
};
pub use tls::{Error as TlsError, Protocol, TlsIdentity};
pub use token::{Error as TokenError, JoinSecret, JoinToken};
pub use unlock::{Error as UnlockError, UnlockKey};

/// Seconds since 1970, the unit of every certificate date in this crate.
pub fn now_unix() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
