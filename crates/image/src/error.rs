//! Everything that can go wrong between a reference and a directory of files.
//!
//! One variant per failure class, so that a caller can show it, map it to a
//! stable code and decide whether trying again could help. Errors are `Clone`
//! because several tasks may wait for one pull and each gets its outcome.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::platform::Platform;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A cause that several waiters may hold.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("`{text}` is not an image reference: {reason}")]
    InvalidReference { text: String, reason: &'static str },

    /// Not here, and nobody was asked (policy `Never`) or the name was removed.
    #[error(
        "image `{reference}` is not on this node: load it with `image load`, or let it be pulled"
    )]
    NotFound { reference: String },

    /// The registry answered, and has no such name or tag.
    #[error(
        "registry `{registry}` has no image `{reference}`: check the name and tag, push it there, \
         or load it on the nodes with `image load`"
    )]
    NotInRegistry { reference: String, registry: String },

    #[error(
        "image `{reference}` is not on this node and registry `{registry}` cannot be reached \
         ({reason}): load it with `image load`, or check the registry's address"
    )]
    RegistryUnreachable {
        reference: String,
        registry: String,
        reason: String,
        #[source]
        source: Option<Cause>,
    },

    #[error(
        "registry `{registry}` refuses access to `{reference}`: the credentials are missing, \
         wrong, or do not allow pulling it"
    )]
    Unauthorized {
        reference: String,
        registry: String,
        #[source]
        source: Option<Cause>,
    },

    /// The registry is there but its answer is not one a registry should give.
    #[error("registry `{registry}` failed while {action} for `{reference}`")]
    Registry {
        reference: String,
        registry: String,
        action: &'static str,
        permanent: bool,
        #[source]
        source: Cause,
    },

    #[error("{what} has the digest {actual}, but {expected} was promised: it is corrupt or forged")]
    DigestMismatch { what: String, expected: String, actual: String },

    /// A file of our own store no longer holds what its name says.
    #[error(
        "`{}` in the image store is corrupt: its content has the digest {actual}",
        path.display()
    )]
    Corrupt { path: PathBuf, actual: Digest },

    #[error("image `{image}` is for {found}, this node needs {wanted}")]
    WrongPlatform { image: String, wanted: Platform, found: String },

    #[error("malformed archive at entry `{entry}`: {reason}")]
    MalformedArchive {
        entry: String,
        reason: String,
        #[source]
        source: Option<Cause>,
    },

    #[error("unsafe path in archive, entry `{entry}`: {reason}")]
    UnsafePath { entry: String, reason: &'static str },

    #[error("{what} is too large: more than {limit} {unit}")]
    TooLarge { what: String, limit: u64, unit: &'static str },

    #[error("{action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },

    /// A worker thread of the store ended without an answer.
    #[error("image work was interrupted while {action}")]
    Interrupted { action: &'static str },
}

impl Error {
    /// Whether the same call would fail again until somebody changes something:
    /// the spec, the archive, the credentials or the registry's content.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::InvalidReference { .. }
            | Self::NotFound { .. }
            | Self::NotInRegistry { .. }
            | Self::Unauthorized { .. }
            | Self::WrongPlatform { .. }
            | Self::MalformedArchive { .. }
            | Self::UnsafePath { .. }
            | Self::TooLarge { .. }
            | Self::DigestMismatch { .. } => true,
            Self::Registry { permanent, .. } => *permanent,
            Self::RegistryUnreachable { .. }
            | Self::Corrupt { .. }
            | Self::Io { .. }
            | Self::Interrupted { .. } => false,
        }
    }

    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { action, path: path.as_ref().to_path_buf(), source: Arc::new(source) }
    }

    pub(crate) fn errno(action: &'static str, path: impl AsRef<Path>, e: nix::Error) -> Self {
        Self::io(action, path, io::Error::from(e))
    }

    pub(crate) fn malformed(entry: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::MalformedArchive { entry: entry.into(), reason: reason.into(), source: None }
    }
}

/// Adds what was being done, and to which path, to a bare I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| Error::io(action, path, e))
    }
}

impl<T> IoContext<T> for nix::Result<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| Error::errno(action, path, e))
    }
}
