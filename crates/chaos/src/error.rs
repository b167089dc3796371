//! Why a run could not be carried out. What it finds is no error but an objection.

use std::io;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Lab(#[from] cluster_lab::Error),
    #[error("reading the client's context")]
    Context(#[from] cluster_identity::ContextError),
    #[error("using the client's certificate")]
    Tls(#[from] cluster_identity::TlsError),
    #[error("starting the clients")]
    Runtime { source: io::Error },
    #[error("{doing}: {reason}")]
    Talk { doing: &'static str, reason: String },
    #[error("{doing} {}", path.display())]
    File { doing: &'static str, path: std::path::PathBuf, source: io::Error },
    #[error("{node} is {state}: a run begins with every node up; start or heal it first")]
    NotUp { node: String, state: String },
    #[error("{problem}")]
    Impossible { problem: String },
}

impl Error {
    pub(crate) fn file(doing: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Self::File { doing, path: path.to_owned(), source }
    }
}
