//! What can go wrong with the files of a manager, in words an operator can act on.
//!
//! Every variant names the file. None is retried: a manager that cannot trust or extend its
//! files stops, and the others go on without it.

use std::io;
use std::path::{Path, PathBuf};

use cluster_model::{ClusterId, NodeId};

/// A failure of the log or snapshot files.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Bytes that were once written durably are not what was written.
    #[error("{} is damaged at offset {offset}: {what}", path.display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// Where the first bad record or block starts.
        offset: u64,
        /// What did not hold.
        what: &'static str,
    },
    /// A file is shorter than it was made.
    #[error("{} was cut short: it holds {len} of {expected} bytes", path.display())]
    CutShort {
        /// The short file.
        path: PathBuf,
        /// Its length now.
        len: u64,
        /// Its length when it was made.
        expected: u64,
    },
    /// A file that must exist does not.
    #[error("{} is missing, and later parts of the log exist", path.display())]
    Missing {
        /// The absent file.
        path: PathBuf,
    },
    /// A newer release wrote this file.
    #[error(
        "{} is from a newer version (format {found}, this program knows up to {known}); start the newer program",
        path.display()
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The format version it carries.
        found: u32,
        /// The newest format version this program reads.
        known: u32,
    },
    /// A newer release proposed this command.
    #[error(
        "the command at log index {index} is from a newer version (command set {found}, this \
         program knows up to {known}); start the newer program on this manager, the others go on \
         meanwhile"
    )]
    NewerCommand {
        /// Where in the log it is.
        index: u64,
        /// The set it belongs to.
        found: u8,
        /// The newest set this program understands.
        known: u8,
    },
    /// The file was written by a member of another cluster.
    #[error(
        "{} belongs to another cluster ({}, expected {}); use the data folder of this cluster",
        path.display(), ClusterId(*found), ClusterId(*expected)
    )]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// The cluster it names.
        found: u64,
        /// The cluster this manager is a member of.
        expected: u64,
    },
    /// The file was written by another manager of the same cluster.
    #[error(
        "{} belongs to another manager ({}, this is {}); two managers must not share files",
        path.display(), NodeId(*found), NodeId(*expected)
    )]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// The manager it names.
        found: u64,
        /// This manager.
        expected: u64,
    },
    /// Another process holds the folder.
    #[error("{} is in use by another process; one data folder serves one manager", path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// The log stopped after an earlier failure, repeated here.
    #[error("the log of this manager has stopped: {reason}")]
    Stopped {
        /// The first failure, with its causes.
        reason: String,
    },
    /// The data key of an encrypted file is not there.
    #[error(
        "{} is encrypted with data key {key_id:016x}, which keys.json of the data folder does not \
         hold; put that file back, or join again with an empty data folder",
        path.display()
    )]
    NoKey {
        /// The encrypted file.
        path: PathBuf,
        /// The key it names.
        key_id: u64,
    },
    /// A payload cannot be read by this program.
    #[error("cannot read {what} at log index {index}")]
    Payload {
        /// What was being read.
        what: &'static str,
        /// The log index it belongs to.
        index: u64,
        /// Why not.
        source: super::codec::CodecError,
    },
}

impl StorageError {
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, what: &'static str) -> Self {
        Self::Damaged { path: path.to_path_buf(), offset, what }
    }

    /// The message with all its causes on one line, for places that keep only text.
    pub fn chain(&self) -> String {
        cluster_daemon::chain(self)
    }
}

impl From<StorageError> for io::Error {
    fn from(error: StorageError) -> Self {
        Self::other(error.chain())
    }
}
