//! The folder of one container: names of its files, and how they are written so that a reader never
//! sees half of one.
//!
//! | name | what |
//! |---|---|
//! | `spec.json` | the spec as the caller gave it; without it the folder belongs to no one |
//! | `config.json` | OCI runtime spec made from it, the bundle is the folder itself |
//! | `state.json` | [`Record`]: first process, shim, times |
//! | `exit.json` | [`Exit`](crate::Exit), durable before anybody is told |
//! | `log`, `log.1` … | output |
//! | `out`, `err` | FIFOs; opened for reading and writing on both sides, so a writer survives the reader |
//! | `m`, `up`, `wk`, `l` | merged root, overlay's upper and work folders, short names of the layers |
//! | `rt` | libcontainer's or runc's own state |
//! | `lock` | held by the living shim |
//! | `attempt` | which start of a shim is the valid one; a late one of a dead agent finds another |
//! | `shim.log` | the shim's last words |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::process::ProcessId;
use crate::shim::Backend;

/// Largest state file read back; more is not ours.
const MAX_FILE: u64 = 64 << 20;

/// What the shim writes down once the container is set up, and again once it is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// First process of the container.
    pub init: ProcessId,
    /// The shim that wrote this.
    pub shim_pid: u32,
    /// What it was created with; an adopting shim goes on with it.
    pub backend: Backend,
    /// Name under which the backend knows it; new for every attempt.
    pub runtime_id: String,
    /// Cgroup path in every hierarchy.
    pub cgroup: PathBuf,
    /// When it was created.
    pub created_unix_ms: u64,
    /// When its command was executed.
    pub started_unix_ms: Option<u64>,
}

/// Paths in a container's folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Names the folder; nothing is created.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file or folder in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// See the module's table.
    pub fn spec(&self) -> PathBuf {
        self.join("spec.json")
    }

    /// See the module's table.
    pub fn state(&self) -> PathBuf {
        self.join("state.json")
    }

    /// See the module's table.
    pub fn exit(&self) -> PathBuf {
        self.join("exit.json")
    }

    /// See the module's table.
    pub fn lock(&self) -> PathBuf {
        self.join("lock")
    }

    /// See the module's table.
    pub fn attempt(&self) -> PathBuf {
        self.join("attempt")
    }

    /// The current log file, or the n-th older one.
    pub fn log(&self, age: u32) -> PathBuf {
        if age == 0 { self.join("log") } else { self.join(&format!("log.{age}")) }
    }
}

/// Reads a JSON file; absent is `None`, unreadable is an error.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large to be ours"));
    }
    let text = fs::read(path)?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Replaces a JSON file as a whole; `durable` also survives a power loss.
pub fn write_json<T: Serialize>(path: &Path, value: &T, durable: bool) -> io::Result<()> {
    let text = serde_json::to_vec(value).map_err(io::Error::other)?;
    let temporary = path.with_extension("tmp");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&text)?;
    if durable {
        file.sync_data()?;
    }
    drop(file);
    fs::rename(&temporary, path)?;
    if durable && let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}
