//! What a caller asks for: the container to create.
//!
//! Plain data, serialisable because the shim reads it back from disk. Nothing here touches the
//! system; checks that need no system are in [`ContainerSpec::validate`].

mod validate;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::signal::Signal;

/// Longest accepted container id; with the run folder it has to stay far below a socket path.
pub const MAX_ID_LEN: usize = 64;

/// Smallest memory limit: below it the kernel kills the container while it is being set up.
pub const MIN_MEMORY_BYTES: u64 = 4 << 20;

/// Name of a container on this node, chosen by the caller (the task id), so that every call can be
/// repeated. Letters, digits, `_`, `-` and `.`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks the text and wraps it.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidSpec> {
        let text = text.into();
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if text.len() > MAX_ID_LEN || !starts_well || !text.chars().all(plain) {
            return Err(InvalidSpec::new(
                "id",
                format!("`{text}` is not 1-{MAX_ID_LEN} letters, digits, `_`, `-`, `.`"),
            ));
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        Self::new(text)
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidSpec;

    fn try_from(text: String) -> Result<Self, InvalidSpec> {
        Self::new(text)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// A field of a spec that cannot be served, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidSpec {
    /// Path of the field, such as `mounts[1].target`.
    pub field: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl InvalidSpec {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// An unpacked image: overlay layers and the defaults its config names.
///
/// The caller keeps the layer folders alive for as long as the container exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRoot {
    /// Name shown to people; not interpreted.
    pub name: String,
    /// Folders of the unpacked layers, lowest first, at least one.
    pub layers: Vec<PathBuf>,
    /// `Entrypoint` of the image config.
    pub entrypoint: Vec<String>,
    /// `Cmd` of the image config.
    pub cmd: Vec<String>,
    /// `Env` of the image config, each `NAME=value`.
    pub env: Vec<String>,
    /// `WorkingDir` of the image config.
    pub workdir: Option<PathBuf>,
    /// `User` of the image config.
    pub user: Option<String>,
    /// `StopSignal` of the image config.
    pub stop_signal: Option<Signal>,
}

impl From<&cluster_image::Image> for ImageRoot {
    /// Keep the image (its lease) for as long as the container exists.
    fn from(image: &cluster_image::Image) -> Self {
        let config = &image.config;
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Self {
            name: image.reference.to_string(),
            layers: image.layers.clone(),
            entrypoint: config.entrypoint.clone(),
            cmd: config.cmd.clone(),
            env: config.env.clone(),
            workdir: text(&config.working_dir).map(PathBuf::from),
            user: text(&config.user),
            // An image that names a signal nobody knows is stopped like any other.
            stop_signal: config.stop_signal.as_deref().and_then(|name| name.parse().ok()),
        }
    }
}

/// Something mounted into the container. Targets are absolute paths inside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A file or folder of the host. It must exist. Also the way to hand in `/etc/hosts`,
    /// `/etc/resolv.conf` and `/etc/hostname`.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Absolute path in the container; created when absent.
        target: PathBuf,
        /// Mounted read-only.
        ro: bool,
    },
    /// A folder the caller manages as a volume; created empty when absent.
    Volume {
        /// Absolute path on the host.
        host_path: PathBuf,
        /// Absolute path in the container; created when absent.
        target: PathBuf,
        /// Mounted read-only.
        ro: bool,
    },
    /// Memory that vanishes with the container.
    Tmpfs {
        /// Absolute path in the container; created when absent.
        target: PathBuf,
        /// Upper bound in bytes; the kernel's default (half of the memory) when `None`.
        size: Option<u64>,
        /// Mode of the folder, `0o1777` when `None`.
        mode: Option<u32>,
    },
}

impl Mount {
    /// Where it appears in the container.
    pub fn target(&self) -> &Path {
        match self {
            Self::Bind { target, .. }
            | Self::Volume { target, .. }
            | Self::Tmpfs { target, .. } => target,
        }
    }
}

/// Upper bounds on what the container may use; `None` means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Billionths of one CPU per second: 500_000_000 is half a core.
    pub cpu_nanos: Option<u64>,
    /// Memory without swap, in bytes, at least [`MIN_MEMORY_BYTES`].
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// How much output is kept beside the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRotation {
    /// A file is rotated once it grew past this.
    pub max_bytes: u64,
    /// Files kept, the current one included, at least 1.
    pub max_files: u32,
}

impl Default for LogRotation {
    fn default() -> Self {
        Self { max_bytes: 10 << 20, max_files: 3 }
    }
}

/// One container. `Debug` shows names of environment variables, never their values.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Chosen by the caller; the key of every later call.
    pub id: ContainerId,
    /// What it runs from.
    pub image: ImageRoot,
    /// Replaces the image's entrypoint; the image's `Cmd` is then dropped, as Docker does.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's `Cmd`.
    pub args: Option<Vec<String>>,
    /// Added to the image's environment, later entries win.
    pub env: Vec<(String, String)>,
    /// Replaces the image's working folder; created when absent.
    pub workdir: Option<PathBuf>,
    /// `uid|name[:gid|group]`, names looked up in the image's passwd and group files.
    pub user: Option<String>,
    /// Host name, the id when `None`.
    pub hostname: Option<String>,
    /// In the order they are to be mounted.
    pub mounts: Vec<Mount>,
    /// Resource limits.
    pub limits: Limits,
    /// Nothing but mounts is writable.
    pub read_only_root: bool,
    /// Kept with the container and given back by `inspect` and `list`.
    pub labels: BTreeMap<String, String>,
    /// Network namespace to join; a fresh one with nothing but loopback when `None`.
    pub netns: Option<PathBuf>,
    /// Signal that `stop` callers should send; the image's, then SIGTERM, when `None`.
    pub stop_signal: Option<Signal>,
    /// Log files kept.
    pub log: LogRotation,
}

impl ContainerSpec {
    /// A spec that runs `image` as its config says, with no limits.
    pub fn new(id: ContainerId, image: ImageRoot) -> Self {
        Self {
            id,
            image,
            entrypoint: None,
            args: None,
            env: Vec::new(),
            workdir: None,
            user: None,
            hostname: None,
            mounts: Vec::new(),
            limits: Limits::default(),
            read_only_root: false,
            labels: BTreeMap::new(),
            netns: None,
            stop_signal: None,
            log: LogRotation::default(),
        }
    }

    /// The command line after overrides.
    pub fn command(&self) -> Vec<String> {
        let (entrypoint, default_args) = match &self.entrypoint {
            Some(given) => (given, &[][..]),
            None => (&self.image.entrypoint, &self.image.cmd[..]),
        };
        let args = self.args.as_deref().unwrap_or(default_args);
        entrypoint.iter().chain(args).cloned().collect()
    }

    /// Signal that asks this container to stop.
    pub fn effective_stop_signal(&self) -> Signal {
        self.stop_signal.or(self.image.stop_signal).unwrap_or(Signal::TERM)
    }
}

impl fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ContainerSpec")
            .field("id", &self.id)
            .field("image", &self.image.name)
            .field("env", &names)
            .field("mounts", &self.mounts)
            .field("limits", &self.limits)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}
