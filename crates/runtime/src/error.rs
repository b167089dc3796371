//! What can go wrong, by what the caller can do about it.

use std::path::PathBuf;

use crate::spec::{ContainerId, InvalidSpec};

/// Result of a runtime call.
pub type Result<T> = std::result::Result<T, Error>;

/// What a refusal says of a command that is not there.
pub(crate) const NOT_IN_IMAGE: &str = "is not in the image, or not in its PATH";
/// What it says of one that is there in vain.
pub(crate) const NOT_EXECUTABLE: &str = "may not be executed by the container's user";

/// A failed runtime call. Only [`Error::is_permanent`] failures make a retry pointless.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec can never be served.
    #[error("container {id} cannot be created")]
    Invalid {
        /// The container.
        id: ContainerId,
        /// Which field and why.
        #[source]
        source: InvalidSpec,
    },
    /// A container of this id exists with another spec.
    #[error("container {id} already exists with a different spec")]
    Conflict {
        /// The container.
        id: ContainerId,
    },
    /// There is no such container.
    #[error("container {id} does not exist")]
    NotFound {
        /// The container.
        id: ContainerId,
    },
    /// The container is in a state in which the call makes no sense.
    #[error("container {id} is {state}, so it cannot {action}")]
    WrongState {
        /// The container.
        id: ContainerId,
        /// Its state, in a word.
        state: &'static str,
        /// What was asked.
        action: &'static str,
    },
    /// The container could not be set up or its command not be executed.
    #[error("container {id}: {action} failed: {reason}")]
    Refused {
        /// The container.
        id: ContainerId,
        /// What was asked.
        action: &'static str,
        /// What the shim or the runtime behind it said.
        reason: String,
    },
    /// The shim did not answer as it should.
    #[error("talk to the shim of container {id} ({action})")]
    Shim {
        /// The container.
        id: ContainerId,
        /// What was asked.
        action: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file operation on the node failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// This runtime cannot do that.
    #[error("the {runtime} runtime does not support {what}")]
    Unsupported {
        /// Which runtime.
        runtime: &'static str,
        /// What was asked.
        what: &'static str,
    },
    /// The runtime is shutting down or a task of it was cancelled.
    #[error("the runtime was shut down while it was to {action}")]
    ShutDown {
        /// What was asked.
        action: &'static str,
    },
}

impl Error {
    /// Trying again without changing anything cannot help.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Invalid { .. } | Self::Conflict { .. } | Self::Unsupported { .. })
    }

    /// The container has no such command, or its user may not execute it: no fault of the node.
    pub fn blames_command(&self) -> bool {
        let Self::Refused { reason, .. } = self else { return false };
        // The last two are runc's words for the same.
        let texts =
            [NOT_IN_IMAGE, NOT_EXECUTABLE, "executable file not found", ": permission denied"];
        texts.iter().any(|text| reason.contains(text))
    }
}
