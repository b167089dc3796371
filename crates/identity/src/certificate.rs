//! Reading certificates: PEM bundles, subject, dates, digest, and "was this signed by that CA".

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::base32;
use crate::proof;
use crate::role::{Role, Subject};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reading a certificate: the text is not PEM")]
    NotPem(#[source] pem::PemError),
    #[error("reading a certificate: there is no CERTIFICATE block")]
    Empty,
    #[error("reading a certificate: the encoding is damaged")]
    Damaged,
    #[error("reading a certificate: its subject has no valid {0}")]
    Subject(&'static str),
    #[error("checking a certificate: it was not issued by this cluster's CA")]
    Foreign,
    #[error("checking a certificate: who shows it does not hold its key")]
    NotHolder,
}

/// What a leaf certificate says about its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub subject: Subject,
    /// Unix seconds.
    pub not_before: u64,
    /// Unix seconds.
    pub not_after: u64,
}

impl Leaf {
    /// Reads the first certificate of a PEM chain.
    pub fn from_pem(chain_pem: &str) -> Result<Self, Error> {
        let chain = chain_der(chain_pem)?;
        Self::from_der(chain.first().ok_or(Error::Empty)?)
    }

    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let certificate = parse(der)?;
        let name = certificate.subject();
        let role = only(name.iter_organizational_unit()).ok_or(Error::Subject("OU (role)"))?;
        Ok(Self {
            subject: Subject {
                role: Role::from_str(role).map_err(|_| Error::Subject("OU (role)"))?,
                node_id: only(name.iter_common_name())
                    .ok_or(Error::Subject("CN (node id)"))?
                    .into(),
                cluster_id: only(name.iter_organization())
                    .ok_or(Error::Subject("O (cluster id)"))?
                    .into(),
            },
            not_before: seconds(certificate.validity().not_before.timestamp()),
            not_after: seconds(certificate.validity().not_after.timestamp()),
        })
    }

    /// Reads the first certificate of a PEM chain, if one of these CAs (PEM) issued it and the
    /// holder of its key signed `message`. Dates are not looked at.
    pub fn verify(
        chain_pem: &str,
        cas_pem: &str,
        message: &[u8],
        signature: &[u8],
    ) -> Result<Self, Error> {
        let chain = chain_der(chain_pem)?;
        let der = chain.first().ok_or(Error::Empty)?;
        check_issued_by(der, &chain_der(cas_pem)?)?;
        let key = parse(der)?.public_key().subject_public_key.data.to_vec();
        if !proof::is_signed(&key, message, signature) {
            return Err(Error::NotHolder);
        }
        Self::from_der(der)
    }

    /// When the first certificate of `pem`, of whatever kind, ends: unix seconds.
    pub fn not_after_of(pem: &str) -> Result<u64, Error> {
        let chain = chain_der(pem)?;
        let first = parse(chain.first().ok_or(Error::Empty)?)?;
        Ok(seconds(first.validity().not_after.timestamp()))
    }

    pub fn is_valid_at(&self, now_unix: u64) -> bool {
        (self.not_before..=self.not_after).contains(&now_unix)
    }
}

/// SHA-256 of the CA root's DER: what a join token pins.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaDigest(pub(crate) [u8; 32]);

impl CaDigest {
    pub fn of_der(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The digest of the first certificate in `pem`.
    pub fn of_pem(pem: &str) -> Result<Self, Error> {
        Ok(Self::of_der(chain_der(pem)?.first().ok_or(Error::Empty)?))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32::encode(&self.0))
    }
}

impl fmt::Debug for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaDigest({self})")
    }
}

/// Every CERTIFICATE block of `pem`, in order.
pub(crate) fn chain_der(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let blocks = pem::parse_many(pem).map_err(Error::NotPem)?;
    let chain: Vec<_> = blocks
        .into_iter()
        .filter(|block| block.tag() == "CERTIFICATE")
        .map(|block| CertificateDer::from(block.into_contents()))
        .collect();
    if chain.is_empty() { Err(Error::Empty) } else { Ok(chain) }
}

pub(crate) fn certificate_pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}

/// Checks the signature of `leaf` against each of `roots`; dates are not looked at.
pub(crate) fn check_issued_by(leaf: &[u8], roots: &[CertificateDer<'_>]) -> Result<(), Error> {
    let leaf = parse(leaf)?;
    for root in roots {
        let root = parse(root)?;
        if leaf.issuer() == root.subject() && leaf.verify_signature(Some(root.public_key())).is_ok()
        {
            return Ok(());
        }
    }
    Err(Error::Foreign)
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Error::Damaged),
    }
}

/// The single value of a name attribute; two would be ambiguous and are refused.
fn only<'a>(
    mut values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Option<&'a str> {
    let first = values.next()?.as_str().ok()?;
    values.next().is_none().then_some(first)
}

fn seconds(timestamp: i64) -> u64 {
    u64::try_from(timestamp).unwrap_or(0)
}
