//! A node's identity on disk: key, certificate chain and CA in one file that is replaced in one
//! step, so that a crash during a renewal leaves either the old identity or the new one.

mod owner;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::certificate::{self, CaDigest, Leaf};
use crate::file;
use crate::proof;
use crate::role::{Role, Subject};
use crate::secret::SecretPem;

pub use owner::Owner;

const FILE_NAME: &str = "identity.json";
const VERSION: u32 = 1;
/// A CA lives for years; more changes than this are not remembered.
const FORMER_CAS_MAX: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no identity in {}", path.display())]
    NotFound { path: PathBuf },
    #[error("reading the identity file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the identity file {} is truncated", path.display())]
    Truncated { path: PathBuf },
    #[error("the identity file {} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "the identity file {} has version {found}, and this program knows version {VERSION}: start \
         the newer program that wrote it",
        path.display()
    )]
    UnknownVersion { path: PathBuf, found: u32 },
    #[error("the key in the identity file {} is sealed, and what it was sealed with is not here", path.display())]
    Sealed { path: PathBuf },
    #[error("writing the identity file {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("encoding the identity of node {node_id}")]
    Encode {
        node_id: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the identity's certificate cannot be read")]
    Certificate(#[source] certificate::Error),
    #[error("the identity's CA certificate cannot be read")]
    CaCertificate(#[source] certificate::Error),
    #[error("the identity's certificate was issued by another CA than the one beside it")]
    ForeignCa,
    #[error("the identity's certificate is for {found}, but the file says {stated}")]
    WrongSubject { found: String, stated: String },
    #[error("the identity's private key cannot be read")]
    Key(#[source] rustls_pki_types::pem::Error),
    #[error("the identity's private key is of an unusable kind")]
    KeyKind(#[source] rustls::Error),
    #[error("the identity's private key does not belong to its certificate")]
    KeyMismatch,
    #[error(
        "the certificate of node {node_id} expired at unix time {not_after} (now {now}): join \
         again with a token, or correct this machine's clock"
    )]
    Expired { node_id: String, not_after: u64, now: u64 },
    #[error(
        "the certificate of node {node_id} is valid only from unix time {not_before} (now {now}): \
         this machine's clock is probably behind"
    )]
    NotYetValid { node_id: String, not_before: u64, now: u64 },
}

/// Who this process is. `Debug` leaves the key out.
#[derive(Clone)]
pub struct Identity {
    pub cluster_id: String,
    pub node_id: String,
    pub role: Role,
    /// Leaf first, then the root.
    pub chain_pem: String,
    pub key_pem: SecretPem,
    /// The roots this node trusts; usually one, two while the CA is being rotated.
    pub ca_pem: String,
}

impl Identity {
    /// Puts together what the CA service answered and the key that asked; checks that all of it
    /// fits.
    pub fn new(chain_pem: String, key_pem: SecretPem, ca_pem: String) -> Result<Self, Error> {
        let Subject { role, node_id, cluster_id } =
            Leaf::from_pem(&chain_pem).map_err(Error::Certificate)?.subject;
        let identity = Self { cluster_id, node_id, role, chain_pem, key_pem, ca_pem };
        identity.check_structure()?;
        Ok(identity)
    }

    /// Reads the identity kept in `dir` and checks everything about it, dates included.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let identity = Self::load_any_age(dir)?;
        identity.check_dates(crate::now_unix())?;
        Ok(identity)
    }

    /// As [`Identity::load`], but lets an expired certificate pass: for a manager that can sign
    /// its own next one.
    pub fn load_any_age(dir: &Path) -> Result<Self, Error> {
        Self::load_sealed(dir, |_| None)
    }

    /// As [`Identity::load_any_age`]; a sealed key is given to `open`.
    pub fn load_sealed(
        dir: &Path,
        open: impl FnOnce(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let path = Self::path(dir);
        let text = file::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NotFound { path: path.clone() },
            _ => Error::Read { path: path.clone(), source },
        })?;
        let unreadable = |source: serde_json::Error| {
            if source.is_eof() {
                Error::Truncated { path: path.clone() }
            } else {
                Error::Damaged { path: path.clone(), source }
            }
        };
        let found = file::version(&text).map_err(unreadable)?;
        if found != VERSION {
            return Err(Error::UnknownVersion { path, found });
        }
        let stored: Stored = serde_json::from_str(&text).map_err(unreadable)?;
        let key = match stored.sealed_key {
            Some(sealed) => open(&sealed).ok_or_else(|| Error::Sealed { path: path.clone() })?,
            None => stored.key,
        };
        let identity = Self {
            cluster_id: stored.cluster_id,
            node_id: stored.node_id,
            role: stored.role,
            chain_pem: stored.certificate,
            key_pem: SecretPem::new(key),
            ca_pem: stored.ca,
        };
        identity.check_structure()?;
        Ok(identity)
    }

    /// Replaces the identity kept in `dir`: one step, durable, readable by the owner only.
    pub fn store(&self, dir: &Path) -> Result<(), Error> {
        self.store_with(dir, self.key_pem.expose().to_owned(), None)
    }

    /// As [`Identity::store`], with the key as `seal` makes it.
    pub fn store_sealed(&self, dir: &Path, seal: impl FnOnce(&str) -> String) -> Result<(), Error> {
        self.store_with(dir, String::new(), Some(seal(self.key_pem.expose())))
    }

    fn store_with(&self, dir: &Path, key: String, sealed: Option<String>) -> Result<(), Error> {
        let path = Self::path(dir);
        // Those that are trusted now follow from `ca`.
        let now: Vec<String> = self.ca_digests().iter().map(ToString::to_string).collect();
        let mut former_cas = self.former_cas(&path);
        former_cas.retain(|digest| !now.contains(digest));
        let stored = Stored {
            version: VERSION,
            cluster_id: self.cluster_id.clone(),
            node_id: self.node_id.clone(),
            role: self.role,
            ca: self.ca_pem.clone(),
            certificate: self.chain_pem.clone(),
            key,
            sealed_key: sealed,
            former_cas,
        };
        let text = serde_json::to_vec_pretty(&stored)
            .map_err(|source| Error::Encode { node_id: self.node_id.clone(), source })?;
        file::replace(&path, &text).map_err(|source| Error::Write { path, source })
    }

    /// Digests of all CAs that this folder's node trusted before or trusts now, the latest first.
    /// A join token of any of them is of this cluster.
    fn former_cas(&self, path: &Path) -> Vec<String> {
        let kept =
            file::read(path).ok().and_then(|text| serde_json::from_str::<Stored>(&text).ok());
        let of = |pem: &str| -> Vec<String> {
            let chain = certificate::chain_der(pem).unwrap_or_default();
            chain.iter().map(|der| CaDigest::of_der(der).to_string()).collect()
        };
        let mut all = of(&self.ca_pem);
        if let Some(kept) = kept.filter(|kept| kept.cluster_id == self.cluster_id) {
            for digest in of(&kept.ca).into_iter().chain(kept.former_cas) {
                if !all.contains(&digest) {
                    all.push(digest);
                }
            }
        }
        all.truncate(FORMER_CAS_MAX);
        all
    }

    /// Whether the identity kept in `dir` trusts, or once trusted, the CA of this digest.
    pub fn knew_ca(&self, dir: &Path, digest: &CaDigest) -> bool {
        self.former_cas(&Self::path(dir)).contains(&digest.to_string())
    }

    /// Where [`Identity::store`] keeps it.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(FILE_NAME)
    }

    pub fn subject(&self) -> Subject {
        Subject {
            role: self.role,
            node_id: self.node_id.clone(),
            cluster_id: self.cluster_id.clone(),
        }
    }

    /// Whether exactly this CA (PEM; the first one) issued the certificate.
    pub fn is_issued_by(&self, ca_pem: &str) -> bool {
        let chain = certificate::chain_der(&self.chain_pem).unwrap_or_default();
        let roots = certificate::chain_der(ca_pem).unwrap_or_default();
        chain.first().zip(roots.first()).is_some_and(|(leaf, root)| {
            certificate::check_issued_by(leaf, std::slice::from_ref(root)).is_ok()
        })
    }

    /// Digests of the CAs that are trusted, in their order.
    pub fn ca_digests(&self) -> Vec<CaDigest> {
        let chain = certificate::chain_der(&self.ca_pem).unwrap_or_default();
        chain.iter().map(|der| CaDigest::of_der(der)).collect()
    }

    /// Signs a message with the private key; [`Leaf::verify`] checks it.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        proof::sign(self.key_pem.expose(), message).ok_or(Error::KeyMismatch)
    }

    pub fn leaf(&self) -> Result<Leaf, Error> {
        Leaf::from_pem(&self.chain_pem).map_err(Error::Certificate)
    }

    /// Unix seconds.
    pub fn not_after(&self) -> Result<u64, Error> {
        Ok(self.leaf()?.not_after)
    }

    pub fn check_dates(&self, now: u64) -> Result<(), Error> {
        let Leaf { not_before, not_after, .. } = self.leaf()?;
        let node_id = self.node_id.clone();
        if now > not_after {
            return Err(Error::Expired { node_id, not_after, now });
        }
        if now < not_before {
            return Err(Error::NotYetValid { node_id, not_before, now });
        }
        Ok(())
    }

    /// Everything that does not depend on the time: any flipped bit in the file ends here.
    fn check_structure(&self) -> Result<(), Error> {
        let chain = certificate::chain_der(&self.chain_pem).map_err(Error::Certificate)?;
        let roots = certificate::chain_der(&self.ca_pem).map_err(Error::CaCertificate)?;
        let leaf = Leaf::from_der(&chain[0]).map_err(Error::Certificate)?;
        if leaf.subject != self.subject() {
            return Err(Error::WrongSubject {
                found: describe(&leaf.subject),
                stated: describe(&self.subject()),
            });
        }
        certificate::check_issued_by(&chain[0], &roots).map_err(|error| match error {
            certificate::Error::Foreign => Error::ForeignCa,
            other => Error::CaCertificate(other),
        })?;
        self.certified_key().map(drop)
    }

    pub(crate) fn certified_key(&self) -> Result<rustls::sign::CertifiedKey, Error> {
        let chain = certificate::chain_der(&self.chain_pem).map_err(Error::Certificate)?;
        let key =
            PrivateKeyDer::from_pem_slice(self.key_pem.expose().as_bytes()).map_err(Error::Key)?;
        let provider = rustls::crypto::ring::default_provider();
        rustls::sign::CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Error::KeyMismatch,
            other => Error::KeyKind(other),
        })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("cluster_id", &self.cluster_id)
            .field("node_id", &self.node_id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    cluster_id: String,
    node_id: String,
    role: Role,
    ca: String,
    certificate: String,
    key: String,
    /// Instead of `key`, on a locked manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed_key: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former_cas: Vec<String>,
}

fn describe(subject: &Subject) -> String {
    let Subject { role, node_id, cluster_id } = subject;
    format!("{role} {node_id} of cluster {cluster_id}")
}

#[cfg(test)]
mod tests;
