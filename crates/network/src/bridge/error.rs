//! What can go wrong with the bridge, and how an I/O error becomes that.

use std::io;
use std::path::PathBuf;

use super::{ConfigError, Subnet};

/// Why the network of this machine or of a container could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the bridge configuration is not usable")]
    Config(#[from] ConfigError),
    #[error("cannot set up the bridge {bridge}: {step}")]
    Bridge {
        bridge: String,
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("a network device named {0} exists and is not a bridge; choose another bridge name")]
    NameTaken(String),
    #[error(
        "the container subnet {subnet} is already routed to the device {device}; \
         choose another subnet"
    )]
    SubnetTaken { subnet: Subnet, device: String },
    #[error("`{0}` cannot name a container network: 1 to 64 letters, digits, - and _")]
    BadId(String),
    #[error("the container subnet {0} has no free address left")]
    Exhausted(Subnet),
    #[error("cannot attach container {id}: {step}")]
    Attach {
        id: String,
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot detach container {id}: {step}")]
    Detach {
        id: String,
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot look through {dir} for container networks")]
    Scan {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the network step for {0} was interrupted")]
    Interrupted(String),
}

pub(super) fn at_bridge(bridge: &str, step: &'static str) -> impl FnOnce(io::Error) -> Error {
    let bridge = bridge.to_owned();
    move |source| Error::Bridge { bridge, step, source }
}

pub(super) fn at_attach(id: &str, step: &'static str) -> impl FnOnce(io::Error) -> Error {
    let id = id.to_owned();
    move |source| Error::Attach { id, step, source }
}

pub(super) fn at_detach(id: &str, step: &'static str) -> impl FnOnce(io::Error) -> Error {
    let id = id.to_owned();
    move |source| Error::Detach { id, step, source }
}
