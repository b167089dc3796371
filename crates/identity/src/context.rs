//! The context file: all that a user's client needs to find and trust one cluster.
//!
//! Which context is current, and where contexts are kept, is the client's business.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::file;
use crate::identity::{self, Identity};
use crate::secret::SecretPem;

const VERSION: u32 = 1;
const MAX_NAME: usize = 64;
const MAX_MANAGERS: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no context file {}", path.display())]
    NotFound { path: PathBuf },
    #[error("reading the context file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the context file {} is truncated", path.display())]
    Truncated { path: PathBuf },
    #[error("the context file {} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "the context file {} has version {found}, and this program knows version {VERSION}: use a \
         clusterctl as new as the managers",
        path.display()
    )]
    UnknownVersion { path: PathBuf, found: u32 },
    #[error("writing the context file {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("encoding the context {name}")]
    Encode {
        name: String,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "{name:?} is not a context name: 1 to {MAX_NAME} letters, digits, '-', '_' or '.', not \
         starting with '.' or '-'"
    )]
    BadName { name: String },
    #[error("the context {name} lists no manager addresses")]
    NoManagers { name: String },
    #[error("the context {name} lists {found} manager addresses, more than {MAX_MANAGERS}")]
    TooManyManagers { name: String, found: usize },
    #[error("the context {name} has the manager address {address:?}; expected HOST:PORT")]
    BadManager { name: String, address: String },
    #[error("the context {name} says cluster {stated}, but its certificate is for cluster {found}")]
    OtherCluster { name: String, stated: String, found: String },
    #[error("the certificate and key in the context {name} do not serve")]
    Identity {
        name: String,
        #[source]
        source: identity::Error,
    },
}

/// `Debug` leaves the key out.
#[derive(Clone)]
pub struct Context {
    pub name: String,
    pub cluster_id: String,
    /// `HOST:PORT` of managers; any of them will do.
    pub managers: Vec<String>,
    pub ca_pem: String,
    pub chain_pem: String,
    pub key_pem: SecretPem,
}

impl Context {
    pub fn new(name: &str, managers: Vec<String>, identity: &Identity) -> Result<Self, Error> {
        let context = Self {
            name: name.into(),
            cluster_id: identity.cluster_id.clone(),
            managers,
            ca_pem: identity.ca_pem.clone(),
            chain_pem: identity.chain_pem.clone(),
            key_pem: identity.key_pem.clone(),
        };
        context.check()?;
        Ok(context)
    }

    /// Reads and checks a context file. Dates are checked where the identity is used.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let owned = || path.to_owned();
        let text = file::read(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NotFound { path: owned() },
            _ => Error::Read { path: owned(), source },
        })?;
        let unreadable = |source: serde_json::Error| {
            if source.is_eof() {
                Error::Truncated { path: owned() }
            } else {
                Error::Damaged { path: owned(), source }
            }
        };
        let found = file::version(&text).map_err(unreadable)?;
        if found != VERSION {
            return Err(Error::UnknownVersion { path: owned(), found });
        }
        let stored: Stored = serde_json::from_str(&text).map_err(unreadable)?;
        let context = Self {
            name: stored.name,
            cluster_id: stored.cluster_id,
            managers: stored.managers,
            ca_pem: stored.ca,
            chain_pem: stored.certificate,
            key_pem: SecretPem::new(stored.key),
        };
        context.check()?;
        Ok(context)
    }

    /// Writes the file in one step, durable, readable by the owner only.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        self.check()?;
        let stored = Stored {
            version: VERSION,
            name: self.name.clone(),
            cluster_id: self.cluster_id.clone(),
            managers: self.managers.clone(),
            ca: self.ca_pem.clone(),
            certificate: self.chain_pem.clone(),
            key: self.key_pem.expose().to_owned(),
        };
        let mut text = serde_json::to_vec_pretty(&stored)
            .map_err(|source| Error::Encode { name: self.name.clone(), source })?;
        text.push(b'\n');
        file::replace(path, &text).map_err(|source| Error::Write { path: path.to_owned(), source })
    }

    /// The user as this cluster knows them.
    pub fn identity(&self) -> Result<Identity, Error> {
        let identity =
            Identity::new(self.chain_pem.clone(), self.key_pem.clone(), self.ca_pem.clone())
                .map_err(|source| Error::Identity { name: self.name.clone(), source })?;
        if identity.cluster_id != self.cluster_id {
            return Err(Error::OtherCluster {
                name: self.name.clone(),
                stated: self.cluster_id.clone(),
                found: identity.cluster_id,
            });
        }
        Ok(identity)
    }

    fn check(&self) -> Result<(), Error> {
        check_name(&self.name)?;
        let name = || self.name.clone();
        if self.managers.is_empty() {
            return Err(Error::NoManagers { name: name() });
        }
        if self.managers.len() > MAX_MANAGERS {
            return Err(Error::TooManyManagers { name: name(), found: self.managers.len() });
        }
        if let Some(bad) = self.managers.iter().find(|address| !crate::tls::is_address(address)) {
            return Err(Error::BadManager {
                name: name(),
                address: bad.chars().take(80).collect(),
            });
        }
        self.identity().map(drop)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.name)
            .field("cluster_id", &self.cluster_id)
            .field("managers", &self.managers)
            .finish_non_exhaustive()
    }
}

/// A context's name becomes a file name.
fn check_name(name: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty()
        || name.len() > MAX_NAME
        || name.starts_with(['.', '-'])
        || !name.chars().all(allowed)
    {
        return Err(Error::BadName { name: name.chars().take(MAX_NAME).collect() });
    }
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    name: String,
    cluster_id: String,
    managers: Vec<String>,
    ca: String,
    certificate: String,
    key: String,
}

#[cfg(test)]
mod tests;
