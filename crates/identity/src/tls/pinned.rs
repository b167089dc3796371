//! The joiner's check of a manager: it knows no CA yet, only the digest in its token.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::{CaDigest, Leaf, certificate_pem};
use crate::role::{Role, role_server_name};
use crate::tls::provider;

/// The CA that a joiner found behind the digest in its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenCa {
    pub ca_pem: String,
    pub cluster_id: String,
}

/// Accepts a chain whose root has the pinned digest and whose leaf is a manager in its dates.
#[derive(Debug)]
pub(crate) struct PinnedVerifier {
    digest: CaDigest,
    algorithms: WebPkiSupportedAlgorithms,
    seen: Mutex<Option<SeenCa>>,
}

impl PinnedVerifier {
    pub(crate) fn new(digest: CaDigest) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { digest, algorithms, seen: Mutex::new(None) }
    }

    pub(crate) fn seen(&self) -> Option<SeenCa> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = intermediates
            .iter()
            .find(|certificate| CaDigest::of_der(certificate) == self.digest)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let leaf = Leaf::from_der(end_entity).map_err(other)?;
        // The joiner cannot know the cluster's id; the leaf states it, and the chain that ends in
        // the pinned root vouches for the leaf.
        let name = role_server_name(Role::Manager, &leaf.subject.cluster_id);
        let name = ServerName::try_from(name).map_err(other)?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(other)?
            .verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)?;
        let seen = SeenCa { ca_pem: certificate_pem(root), cluster_id: leaf.subject.cluster_id };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}
