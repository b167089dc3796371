//! What a lab remembers between commands: `lab.json` in its folder.
//!
//! The folder is readable by root alone, since it holds keys and join tokens. Whoever changes the
//! lab holds the lock `lab.lock` meanwhile and reads the state afresh under it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::lab::Role;
use crate::process::{Identity, wait_for};
use crate::switch::{Cut, Shaped};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub version: u32,
    pub name: String,
    /// Set when `up` has finished; a state without it is a half-built lab.
    pub complete: bool,
    pub helper: PathBuf,
    pub bin_dir: PathBuf,
    pub client: Ipv4Addr,
    pub nodes: Vec<Node>,
    pub cuts: Vec<Cut>,
    pub forwarders: Vec<Identity>,
    /// Links that misbehave, and the processes that see to it, by node.
    #[serde(default)]
    pub shapes: Vec<Shaped>,
    #[serde(default)]
    pub relays: BTreeMap<String, Identity>,
    /// Bytes of each node's data folder; none: it lies on the machine's disk.
    #[serde(default)]
    pub disk: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    pub name: String,
    pub role: Role,
    pub address: Ipv4Addr,
    /// The daemon's command line.
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    /// The first process of the node's PID namespace; none while the node is off.
    pub init: Option<Identity>,
}

impl Node {
    /// The first process, when it lives.
    pub fn running(&self) -> Option<Identity> {
        self.init.filter(|init| init.alive())
    }
}

impl State {
    pub const VERSION: u32 = 1;

    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).ok_or_else(|| self.unknown(name))
    }

    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        let unknown = self.unknown(name);
        self.nodes.iter_mut().find(|node| node.name == name).ok_or(unknown)
    }

    fn unknown(&self, name: &str) -> Error {
        let known: Vec<_> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        Error::NoSuchNode { lab: self.name.clone(), node: name.to_owned(), known: known.join(", ") }
    }
}

/// The files of one lab.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub path: PathBuf,
}

impl Folder {
    pub fn node(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn data(&self, name: &str) -> PathBuf {
        self.node(name).join("data")
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.node(name).join("agent.log")
    }

    pub fn hosts(&self) -> PathBuf {
        self.path.join("hosts")
    }

    /// The context for the machine: managers by their forwarded loopback ports.
    pub fn context(&self) -> PathBuf {
        self.path.join("context.json")
    }

    /// The context for `client`: managers by their own addresses.
    pub fn client_context(&self) -> PathBuf {
        self.path.join("client-context.json")
    }

    fn state(&self) -> PathBuf {
        self.path.join("lab.json")
    }

    /// Taken for as long as the value lives.
    pub fn lock(&self) -> Result<Flock<File>> {
        let path = self.path.join("lab.lock");
        let file = self.open_lock(&path)?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| Error::file("locking", path, errno.into()))
    }

    /// The lock for removal: `None` when whoever holds it does not let go in time, since a lab
    /// that hangs while it is built must be removable.
    pub fn lock_within(&self, patience: Duration) -> Result<Option<Flock<File>>> {
        let path = self.path.join("lab.lock");
        let mut file = Some(self.open_lock(&path)?);
        let taken = wait_for(patience, || {
            match Flock::lock(file.take()?, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => Some(lock),
                Err((again, _)) => {
                    file = Some(again);
                    None
                }
            }
        });
        Ok(taken)
    }

    fn open_lock(&self, path: &Path) -> Result<File> {
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path);
        file.map_err(|source| Error::file("opening", path, source))
    }

    /// `None` where there is no lab.
    pub fn load(&self) -> Result<Option<State>> {
        let path = self.state();
        match fs::read(&path) {
            Ok(bytes) => read(&path, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::file("reading", path, source)),
        }
    }

    pub fn save(&self, state: &State) -> Result<()> {
        let path = self.state();
        let text = serde_json::to_vec_pretty(state)
            .map_err(|source| Error::BadState { path: path.clone(), source })?;
        write_private(&path, &text)
    }
}

/// Replaces a file that only root may read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    let written =
        File::options().create(true).truncate(true).write(true).mode(0o600).open(&partial);
    written
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|source| Error::file("writing", path, source))
}

/// The version is told first: a newer release may have written fields of other shapes.
fn read(path: &Path, bytes: &[u8]) -> Result<State> {
    let bad = |source| Error::BadState { path: path.to_path_buf(), source };
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(bad)?;
    if let Some(found) = value["version"].as_u64().filter(|found| *found > State::VERSION.into()) {
        let path = path.to_path_buf();
        return Err(Error::NewerState { path, found, known: State::VERSION });
    }
    serde_json::from_value(value).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_newer_release_is_refused_by_name() {
        let error = read(Path::new("/labs/x/lab.json"), br#"{"version": 2, "other": 1}"#);
        let text = error.unwrap_err().to_string();
        for part in ["/labs/x/lab.json", "version 2", "newer"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
