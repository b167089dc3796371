//! What can go wrong with virtual machines.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {value}: {fix}")]
    BadOption { what: &'static str, value: String, fix: String },

    #[error("no lab of virtual machines is up: `cargo xtask vm-lab up` starts one")]
    NotUp,

    #[error(
        "the lab that is up has {found}, and {wanted} is asked for: `cargo xtask vm-lab down` first"
    )]
    OtherSize { found: String, wanted: String },

    #[error(
        "another lab of virtual machines is up, with its files in {}: `cargo xtask vm-lab down` in its clone first",
        owner.display()
    )]
    OtherLab { owner: PathBuf },

    #[error("another vm-lab command is at work on {}: wait for it", path.display())]
    Busy { path: PathBuf },

    #[error("there is no machine {name}: the machines are {known}")]
    NoSuchMachine { name: String, known: String },

    #[error("{machine} is off: `cargo xtask vm-lab start {machine}`")]
    Off { machine: String },

    #[error("{doing} {}", path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },

    #[error("reading {}", path.display())]
    BadState { path: PathBuf, source: serde_json::Error },

    #[error("{doing}")]
    System { doing: String, source: io::Error },

    #[error("running {program}")]
    Spawn { program: String, source: io::Error },

    #[error("`{shown}` failed ({status}): {said}")]
    Command { shown: String, status: ExitStatus, said: String },

    #[error("{machine}: `{shown}` failed ({status}): {said}")]
    Remote { machine: String, shown: String, status: ExitStatus, said: String },

    #[error("{machine}: qemu ended at once: {said}")]
    Qemu { machine: String, said: String },

    #[error("{machine}: qemu's control socket: {reason}")]
    Control { machine: String, reason: String },

    #[error("{what} did not happen within {} s: {detail}", within.as_secs())]
    TimedOut { what: String, within: Duration, detail: String },
}

impl Error {
    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { doing, path: path.into(), source }
    }

    pub(crate) fn system(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { doing: doing.into(), source: source.into() }
    }
}
