//! Where things lie in the store's directory, and the only ways files get there.
//!
//! `blobs/sha256/<hex>` verified content; `layers/<diff-id hex>/{layer.json,fs/}`
//! unpacked layers; `refs.json` names; `partial/<hex>` unfinished downloads;
//! `tmp/` everything that has no final name yet. Final names appear by rename
//! after the content was synced, so they always name whole things.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, IoContext, Result};
use crate::limits::Limits;

const PARTIAL_KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
const LAYER_RECORD_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    pub(crate) limits: Limits,
    scratch_count: AtomicU64,
    _lock: Flock<File>,
}

/// What is known of an unpacked layer; `layer.json` beside its `fs`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) unpacked_bytes: u64,
    pub(crate) entries: u64,
    /// Directories (hex of the path) that had no entry of their own.
    #[serde(default)]
    pub(crate) implicit: Vec<String>,
}

impl Layout {
    pub(crate) fn open(root: &Path, limits: Limits) -> Result<Self> {
        for dir in ["", "blobs/sha256", "layers", "partial", "tmp"] {
            make_dir(&root.join(dir))?;
        }
        // Absolute, because mounts outlive the caller's working directory.
        let root = root.canonicalize().at("resolving", root)?;
        let path = root.join("lock");
        let file = File::create(&path).at("creating", &path)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| Error::errno("locking (does another worker use it?)", &path, e))?;
        let layout = Self { root, limits, scratch_count: AtomicU64::new(0), _lock: lock };
        layout.sweep_leftovers()?;
        Ok(layout)
    }

    pub(crate) fn refs(&self) -> PathBuf {
        self.root.join("refs.json")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(diff_id.hex())
    }

    /// The directory to mount.
    pub(crate) fn layer_fs(&self, diff_id: &Digest) -> PathBuf {
        self.layer(diff_id).join("fs")
    }

    pub(crate) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer(diff_id).join("layer.json").exists()
    }

    pub(crate) fn layer_record(&self, diff_id: &Digest) -> Result<LayerRecord> {
        let path = self.layer(diff_id).join("layer.json");
        let bytes = read_bounded(&path, LAYER_RECORD_BYTES_MAX)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::io("reading the layer record", &path, e.into()))
    }

    /// A fresh directory that goes away with the returned value.
    pub(crate) fn scratch(&self) -> Result<Scratch> {
        let n = self.scratch_count.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(format!("tmp/{n}"));
        make_dir(&path)?;
        Ok(Scratch { path })
    }

    /// Small content whose digest the caller has just computed.
    pub(crate) fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let scratch = self.scratch()?;
        let path = scratch.path().join("blob");
        let mut file = File::create(&path).at("creating", &path)?;
        file.write_all(bytes).at("writing", &path)?;
        drop(file);
        self.adopt_blob(digest, &path)
    }

    /// Gives a verified file its final name.
    pub(crate) fn adopt_blob(&self, digest: &Digest, from: &Path) -> Result<()> {
        let file = File::open(from).at("opening", from)?;
        file.sync_all().at("syncing", from)?;
        let to = self.blob(digest);
        fs::rename(from, &to).at("renaming into place", &to)?;
        sync_dir(&self.blobs())
    }

    /// A whole blob that must be small; `None` when it is not here.
    pub(crate) fn read_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let path = self.blob(digest);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read_bounded(&path, self.limits.document_bytes)?;
        let actual = Digest::of(&bytes);
        if actual == *digest { Ok(Some(bytes)) } else { Err(Error::Corrupt { path, actual }) }
    }

    /// Gives an unpacked layer (a directory holding `fs`) its final name.
    pub(crate) fn commit_layer(
        &self,
        diff_id: &Digest,
        from: &Path,
        record: &LayerRecord,
    ) -> Result<()> {
        let path = from.join("layer.json");
        let json = serde_json::to_vec(record)
            .map_err(|e| Error::io("encoding the layer record", &path, e.into()))?;
        fs::write(&path, json).at("writing", &path)?;
        // One sync for thousands of files; a rename alone promises nothing about
        // their content after a power loss.
        let dir = File::open(from).at("opening", from)?;
        nix::unistd::syncfs(&dir).at("syncing", from)?;
        let to = self.layer(diff_id);
        match fs::rename(from, &to) {
            Ok(()) => sync_dir(&self.layers()),
            // Somebody else was faster with the same content.
            Err(_) if self.has_layer(diff_id) => Ok(()),
            Err(e) => Err(Error::io("renaming into place", &to, e)),
        }
    }

    /// Replaces a file with new content; readers see the old or the new.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let scratch = self.scratch()?;
        let from = scratch.path().join("new");
        let mut file = File::create(&from).at("creating", &from)?;
        file.write_all(bytes).at("writing", &from)?;
        file.sync_all().at("syncing", &from)?;
        fs::rename(&from, path).at("renaming into place", path)?;
        sync_dir(&self.root)
    }

    /// Takes a path out of sight at once; its content goes with the scratch.
    pub(crate) fn discard(&self, path: &Path, scratch: &Scratch) -> Result<()> {
        let n = self.scratch_count.fetch_add(1, Ordering::Relaxed);
        fs::rename(path, scratch.path().join(n.to_string())).at("removing", path)
    }

    fn sweep_leftovers(&self) -> Result<()> {
        let tmp = self.root.join("tmp");
        for entry in fs::read_dir(&tmp).at("listing", &tmp)? {
            let path = entry.at("listing", &tmp)?.path();
            tracing::info!(path = %path.display(), "removing what an earlier run left unfinished");
            remove_any(&path).at("removing", &path)?;
        }
        let partial = self.root.join("partial");
        for entry in fs::read_dir(&partial).at("listing", &partial)? {
            let entry = entry.at("listing", &partial)?;
            let modified = entry.metadata().and_then(|m| m.modified());
            let age = modified.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
            if age.is_ok_and(|age| age > PARTIAL_KEPT_FOR) {
                remove_any(&entry.path()).at("removing", entry.path())?;
            }
        }
        Ok(())
    }
}

/// A directory under `tmp/` that is removed with everything in it on drop.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            // The next start sweeps it.
            tracing::debug!(path = %self.path.display(), %error, "scratch directory stays");
        }
    }
}

fn make_dir(path: &Path) -> Result<()> {
    // 0700: setuid programs of images must not be reachable by the host's users.
    DirBuilder::new().recursive(true).mode(0o700).create(path).at("creating", path)
}

pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let dir = File::open(path).at("opening", path)?;
    dir.sync_all().at("syncing", path)
}

pub(crate) fn remove_any(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).at("opening", path)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).at("reading", path)?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge {
            what: format!("`{}`", path.display()),
            limit,
            unit: "bytes",
        });
    }
    Ok(bytes)
}
