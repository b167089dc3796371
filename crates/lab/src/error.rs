//! What can go wrong in a lab.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a lab needs root (namespaces, cgroups, port 80): run it with sudo")]
    NotRoot,

    #[error("{program} is not installed: {fix}")]
    MissingProgram { program: String, fix: String },

    #[error("{what}: {value}: {fix}")]
    BadOption { what: &'static str, value: String, fix: &'static str },

    #[error("lab {name} is already up: `clusterctl lab down` removes it")]
    AlreadyUp { name: String },

    #[error("there is no lab {name} under {}: `clusterctl lab up` creates one", base.display())]
    NoSuchLab { name: String, base: PathBuf },

    #[error("lab {lab} has no node {node}: its nodes are {known}")]
    NoSuchNode { lab: String, node: String, known: String },

    #[error("{node} is {state}: {fix}")]
    WrongState { node: String, state: &'static str, fix: &'static str },

    #[error("{doing} {}", path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },

    #[error(
        "{} has version {found}, and this program knows version {known}: use the newer clusterctl \
         that made the lab",
        path.display()
    )]
    NewerState { path: PathBuf, found: u64, known: u32 },

    #[error("reading the state of the lab in {}", path.display())]
    BadState { path: PathBuf, source: serde_json::Error },

    #[error("{doing} of {object}")]
    System { doing: &'static str, object: String, source: io::Error },

    #[error("running {program}")]
    Spawn { program: String, source: io::Error },

    #[error("{program} failed ({status}): {stderr}")]
    Command { program: String, status: std::process::ExitStatus, stderr: String },

    #[error("{node} did not start: {reason}")]
    NodeInit { node: String, reason: String },

    #[error("{what} did not happen within {within:?}: {detail}")]
    TimedOut { what: String, within: Duration, detail: String },

    #[error("no cgroup hierarchy with a freezer is mounted under /sys/fs/cgroup")]
    NoCgroup,
}

impl Error {
    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { doing, path: path.into(), source }
    }

    pub(crate) fn system(
        doing: &'static str,
        object: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::System { doing, object: object.into(), source: source.into() }
    }
}
