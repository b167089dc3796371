//! The certificate authority: makes the root, signs requests, and makes requests.
//!
//! The CA decides what a certificate says; of a request it takes the public key only.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};

use crate::certificate::{self, CaDigest};
use crate::identity::{self, Identity};
use crate::role::{Subject, is_label, node_server_name, role_server_name};
use crate::secret::SecretPem;

/// How long a node's or user's certificate lives unless the caller says otherwise.
pub const DEFAULT_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);

const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Tolerates clocks that are behind the signer's.
pub(crate) const BACKDATE: Duration = Duration::from_secs(3600);
/// A P-256 request is under 1 KiB; anything much larger is not one.
const MAX_CSR_BYTES: usize = 16 * 1024;
/// An uncompressed P-256 point.
const P256_POINT_BYTES: usize = 65;
/// 9999-12-31T23:59:59Z: the last date that a certificate can state.
const MAX_UNIX: u64 = 253_402_300_799;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{id:?} cannot be used as a {what}: only lower-case letters and digits are allowed")]
    BadId { what: &'static str, id: String },
    #[error("creating the cluster's CA")]
    Create(#[source] rcgen::Error),
    #[error("reading the CA certificate")]
    RootCertificate(#[source] certificate::Error),
    #[error("reading the CA certificate: it is not a CA of a cluster")]
    NotRoot,
    #[error("reading the CA key")]
    RootKey(#[source] rcgen::Error),
    #[error("the CA key does not belong to the CA certificate")]
    RootMismatch,
    #[error("the certificate request is {bytes} bytes long, more than {MAX_CSR_BYTES}")]
    RequestTooLarge { bytes: usize },
    #[error("the certificate request is not valid or not signed by its own key")]
    BadRequest(#[source] rcgen::Error),
    #[error("the certificate request is not PEM")]
    RequestNotPem(#[source] pem::PemError),
    #[error("the certificate request has a key that is not ECDSA P-256")]
    WrongKeyKind,
    #[error("signing a certificate for node {node_id}")]
    Sign {
        node_id: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("a certificate for cluster {asked} was asked of the CA of cluster {ours}")]
    OtherCluster { asked: String, ours: String },
    #[error("issuing an identity for node {node_id}")]
    Issue {
        node_id: String,
        #[source]
        source: Box<identity::Error>,
    },
    #[error("making a key pair")]
    KeyPair(#[source] rcgen::Error),
}

/// The cluster's root of trust with its private key.
pub struct Ca {
    cluster_id: String,
    common_name: String,
    cert_der: Vec<u8>,
    cert_pem: String,
    key_pem: SecretPem,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Makes a new root, valid for 20 years from `now_unix` (backdated like every certificate).
    pub fn create(cluster_id: &str, now_unix: u64) -> Result<Self, Error> {
        check_label("cluster id", cluster_id)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::Create)?;
        // A cluster may have one CA after the other; their names tell them apart.
        let common_name = format!("cluster {cluster_id} CA {:08x}", rand::random::<u32>());
        // One below: the next CA, which this one may sign too.
        let params = root_params(cluster_id, &common_name, 1, now_unix);
        let root = params.self_signed(&key).map_err(Error::Create)?;
        Ok(Self {
            cluster_id: cluster_id.into(),
            common_name,
            cert_pem: certificate::certificate_pem(root.der()),
            cert_der: root.der().to_vec(),
            key_pem: SecretPem::new(key.serialize_pem()),
            issuer: Issuer::new(params, key),
        })
    }

    /// Restores a CA and checks that key and certificate belong together.
    pub fn from_pem(cert_pem: &str, key_pem: &SecretPem) -> Result<Self, Error> {
        let root = certificate::chain_der(cert_pem).map_err(Error::RootCertificate)?.remove(0);
        let parsed = certificate::parse(&root).map_err(Error::RootCertificate)?;
        let cluster_id = parsed
            .subject()
            .iter_organization()
            .next()
            .and_then(|name| name.as_str().ok())
            .filter(|id| is_label(id) && parsed.is_ca())
            .ok_or(Error::NotRoot)?
            .to_owned();
        let common_name = parsed.subject().iter_common_name().next();
        let common_name = common_name.and_then(|name| name.as_str().ok()).ok_or(Error::NotRoot)?;
        let common_name = common_name.to_owned();
        let key = KeyPair::from_pem(key_pem.expose()).map_err(Error::RootKey)?;
        if *parsed.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err(Error::RootMismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(Error::RootKey)?;
        Ok(Self {
            cluster_id,
            common_name,
            cert_pem: certificate::certificate_pem(&root),
            cert_der: root.to_vec(),
            key_pem: key_pem.clone(),
            issuer,
        })
    }

    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    pub fn key_pem(&self) -> &SecretPem {
        &self.key_pem
    }

    /// What join tokens pin.
    pub fn digest(&self) -> CaDigest {
        CaDigest::of_der(&self.cert_der)
    }

    /// The certificate of `next` as if this CA had issued it (PEM): whoever trusts this CA and is
    /// shown that too trusts what `next` signs.
    pub fn cross_sign(&self, next: &Ca, now_unix: u64) -> Result<String, Error> {
        if next.cluster_id != self.cluster_id {
            let (asked, ours) = (next.cluster_id.clone(), self.cluster_id.clone());
            return Err(Error::OtherCluster { asked, ours });
        }
        let params = root_params(&next.cluster_id, &next.common_name, 0, now_unix);
        let cross = params.signed_by(next.issuer.key(), &self.issuer).map_err(Error::Create)?;
        Ok(certificate::certificate_pem(cross.der()))
    }

    /// Signs `csr` (PEM or DER) for `subject`; returns leaf and root as a PEM chain.
    ///
    /// The request must be signed by its own key (proof of possession); every name and extension
    /// it asks for is ignored.
    pub fn sign(
        &self,
        csr: &[u8],
        subject: &Subject,
        now_unix: u64,
        validity: Duration,
    ) -> Result<String, Error> {
        check_label("node id", &subject.node_id)?;
        if subject.cluster_id != self.cluster_id {
            return Err(Error::OtherCluster {
                asked: subject.cluster_id.clone(),
                ours: self.cluster_id.clone(),
            });
        }
        let public_key = parse_request(csr)?.public_key;
        let failed = |source| Error::Sign { node_id: subject.node_id.clone(), source };
        let params = leaf_params(subject, now_unix, validity).map_err(failed)?;
        let leaf = params.signed_by(&public_key, &self.issuer).map_err(failed)?;
        Ok(format!("{}{}", certificate::certificate_pem(leaf.der()), self.cert_pem))
    }
}

impl Ca {
    /// Key, request and certificate in one go: for the first manager and the first administrator,
    /// who are made where the CA is.
    pub fn issue(
        &self,
        subject: &Subject,
        now_unix: u64,
        validity: Duration,
    ) -> Result<Identity, Error> {
        let KeyAndCsr { key_pem, csr_pem } = KeyAndCsr::generate()?;
        let chain_pem = self.sign(csr_pem.as_bytes(), subject, now_unix, validity)?;
        Identity::new(chain_pem, key_pem, self.cert_pem.clone()).map_err(|source| Error::Issue {
            node_id: subject.node_id.clone(),
            source: Box::new(source),
        })
    }
}

/// A fresh private key and the request to have its public half certified.
pub struct KeyAndCsr {
    pub key_pem: SecretPem,
    pub csr_pem: String,
}

impl KeyAndCsr {
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::KeyPair)?;
        let mut params = CertificateParams::default();
        // The CA states the subject; an empty one here cannot suggest otherwise.
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key).map_err(Error::KeyPair)?;
        Ok(Self {
            key_pem: SecretPem::new(key.serialize_pem()),
            csr_pem: csr.pem().map_err(Error::KeyPair)?,
        })
    }
}

fn parse_request(csr: &[u8]) -> Result<CertificateSigningRequestParams, Error> {
    if csr.len() > MAX_CSR_BYTES {
        return Err(Error::RequestTooLarge { bytes: csr.len() });
    }
    let der = if csr.trim_ascii_start().starts_with(b"-----BEGIN") {
        pem::parse(csr).map_err(Error::RequestNotPem)?.into_contents()
    } else {
        csr.to_vec()
    };
    let request =
        CertificateSigningRequestParams::from_der(&der.into()).map_err(Error::BadRequest)?;
    let key = &request.public_key;
    if key.algorithm() != &PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != P256_POINT_BYTES {
        return Err(Error::WrongKeyKind);
    }
    Ok(request)
}

fn root_params(cluster_id: &str, common_name: &str, below: u8, now_unix: u64) -> CertificateParams {
    let mut params = base_params(now_unix, ROOT_VALIDITY);
    params.distinguished_name.push(DnType::OrganizationName, cluster_id);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(
    subject: &Subject,
    now_unix: u64,
    validity: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = base_params(now_unix, validity);
    let name = &mut params.distinguished_name;
    name.push(DnType::OrganizationName, subject.cluster_id.as_str());
    name.push(DnType::OrganizationalUnitName, subject.role.as_str());
    name.push(DnType::CommonName, subject.node_id.as_str());
    params.subject_alt_names = vec![
        SanType::DnsName(role_server_name(subject.role, &subject.cluster_id).try_into()?),
        SanType::DnsName(node_server_name(&subject.node_id, &subject.cluster_id).try_into()?),
    ];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A manager is a client of other managers, and a worker a server in the routing mesh.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn base_params(now_unix: u64, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let date = |seconds: u64| epoch + Duration::from_secs(seconds.min(MAX_UNIX));
    params.not_before = date(now_unix.saturating_sub(BACKDATE.as_secs()));
    params.not_after = date(now_unix.saturating_add(validity.as_secs()));
    params.distinguished_name = DistinguishedName::new();
    // rcgen's default derives the serial from the key, so a renewal with the same key would repeat.
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn check_label(what: &'static str, id: &str) -> Result<(), Error> {
    if is_label(id) {
        return Ok(());
    }
    Err(Error::BadId { what, id: id.chars().take(64).collect() })
}

#[cfg(test)]
mod tests;
