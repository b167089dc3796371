//! Why a connection could not be made, told apart far enough that the user knows what to do.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};

use crate::role::Role;

/// Clonable, because the HTTP/2 layer hands errors out by reference only.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{address:?} is not an address: expected HOST:PORT")]
    BadAddress { address: String },
    #[error("cannot reach {address}")]
    Unreachable {
        address: String,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("{address} did not answer within {after:?}")]
    Timeout { address: String, after: Duration },
    #[error("{address} does not speak TLS: this is not a cluster port")]
    NotTls {
        address: String,
        #[source]
        source: rustls::Error,
    },
    #[error("{address} closed the connection during the TLS handshake: is it a cluster port?")]
    Closed {
        address: String,
        #[source]
        source: Arc<io::Error>,
    },
    #[error(
        "{address} speaks another protocol: a different port of the cluster was probably meant"
    )]
    WrongProtocol { address: String },
    #[error(
        "the certificate of {address} has expired: it must be renewed, or this machine's clock is \
         ahead"
    )]
    PeerExpired {
        address: String,
        #[source]
        source: rustls::Error,
    },
    #[error(
        "the certificate of {address} is not valid yet: this machine's clock is probably behind"
    )]
    PeerNotYetValid {
        address: String,
        #[source]
        source: rustls::Error,
    },
    #[error(
        "{address} belongs to another cluster, or its CA was replaced: its certificate is not from \
         the CA that is known here"
    )]
    OtherCluster { address: String },
    #[error(
        "{address} belongs to another cluster than the join token, or its CA was replaced since the \
         token was made"
    )]
    OtherClusterThanToken { address: String },
    #[error("{address} is not {expected}")]
    WrongPeer { address: String, expected: String },
    #[error("{address} is node {node_id}, which was removed from the cluster")]
    PeerRemoved { address: String, node_id: String },
    #[error(
        "our certificate expired at unix time {not_after}: a node comes back by itself or joins again, \
         a user imports a fresh context from a manager's admin.json"
    )]
    OwnExpired { not_after: u64 },
    #[error(
        "our certificate is valid only from unix time {not_before}: this machine's clock is \
         probably behind"
    )]
    OwnNotYetValid { not_before: u64 },
    #[error(
        "{address} refused our certificate as expired or not valid yet: the clock here or there \
         is wrong, or the certificate must be renewed"
    )]
    RefusedDates { address: String },
    #[error("{address} refused our certificate: it is from another cluster")]
    RefusedForeign { address: String },
    #[error("{address} refused our certificate: a {role} is not expected there")]
    RefusedRole { address: String, role: Role },
    #[error("the TLS handshake with {address} failed")]
    Handshake {
        address: String,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("starting HTTP/2 with {address}")]
    Http2 {
        address: String,
        #[source]
        source: Arc<tonic::transport::Error>,
    },
}

impl ConnectError {
    /// Reads the cause out of what rustls reports. `expected` says in words who was meant;
    /// `pinned` whether the trust came from a join token.
    pub(crate) fn from_tls(address: &str, expected: &str, pinned: bool, error: io::Error) -> Self {
        let address = address.to_owned();
        let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        else {
            return Self::from_io(address, error);
        };
        match cause {
            rustls::Error::InvalidMessage(_) => Self::NotTls { address, source: cause.clone() },
            rustls::Error::InvalidCertificate(bad) => {
                Self::from_certificate(address, expected, pinned, bad.clone(), error)
            }
            rustls::Error::NoApplicationProtocol
            | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                Self::WrongProtocol { address }
            }
            rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => {
                Self::RefusedDates { address }
            }
            rustls::Error::AlertReceived(
                AlertDescription::UnknownCA
                | AlertDescription::DecryptError
                | AlertDescription::BadCertificate,
            ) => Self::RefusedForeign { address },
            _ => Self::Handshake { address, source: Arc::new(error) },
        }
    }

    fn from_certificate(
        address: String,
        expected: &str,
        pinned: bool,
        bad: CertificateError,
        error: io::Error,
    ) -> Self {
        match bad {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Self::PeerExpired { address, source: bad.into() }
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::PeerNotYetValid { address, source: bad.into() }
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature if pinned => {
                Self::OtherClusterThanToken { address }
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::OtherCluster { address }
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongPeer { address, expected: expected.into() }
            }
            _ => Self::Handshake { address, source: Arc::new(error) },
        }
    }

    fn from_io(address: String, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::Closed { address, source: Arc::new(error) },
            _ => Self::Handshake { address, source: Arc::new(error) },
        }
    }

    /// Whether trying again, here or at another manager, can help without anybody acting.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Timeout { .. }
                | Self::Closed { .. }
                | Self::Handshake { .. }
                | Self::Http2 { .. }
        )
    }
}

/// The [`ConnectError`] behind an error of a channel or a call, if that is what it was.
pub fn find_connect_error<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a ConnectError> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<ConnectError>())
}
