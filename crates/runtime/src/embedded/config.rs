//! Everything about the embedded runtime that differs between nodes.

use std::path::{Path, PathBuf};

use crate::shim::Backend;

/// Where the runtime keeps its things, all of it configuration.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// One folder per container below it; on a disk that overlay accepts as upper layer.
    pub state_dir: PathBuf,
    /// Control sockets; a short path, at most 88 bytes.
    pub run_dir: PathBuf,
    /// Absolute cgroup path below which each container gets its own, such as `/cluster/node-1`.
    pub cgroup_parent: PathBuf,
    /// The shim program; beside the current executable when `None`.
    pub shim: Option<PathBuf>,
    /// What runs containers inside the shim.
    pub backend: Backend,
    /// Containers set up at the same time.
    pub concurrent_starts: usize,
}

impl EmbeddedConfig {
    /// Defaults below one folder: state in `containers`, sockets in `run`.
    pub fn below(folder: &Path, cgroup_parent: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: folder.join("containers"),
            run_dir: folder.join("run"),
            cgroup_parent: cgroup_parent.into(),
            shim: None,
            backend: Backend::default(),
            concurrent_starts: 8,
        }
    }
}
