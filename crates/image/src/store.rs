//! The store's handle: what callers may ask.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::digest::Digest;
use crate::error::Result;
use crate::image::{Freed, Image, Imported, Summary};
use crate::limits::Limits;
use crate::pull::options::{Auth, Progress, PullPolicy, RegistryOptions};
use crate::reference::Reference;

pub(crate) mod lease;

/// A directory of images; clones share it. One process per directory.
#[derive(Debug, Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {}

impl ImageStore {
    /// Opens or creates the store at `root` and sweeps what a crash left.
    /// Blocking; call it once at start.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, Limits::default())
    }

    pub fn open_with(_root: &Path, _limits: Limits) -> Result<Self> {
        todo!()
    }

    /// The image if all of it is on this node.
    pub async fn resolve_local(&self, _reference: &Reference) -> Result<Option<Image>> {
        todo!()
    }

    /// The image, pulled first where the policy asks for it. Concurrent calls
    /// for one image share one pull and its outcome.
    pub async fn ensure(
        &self,
        _reference: &Reference,
        _policy: PullPolicy,
        _options: &RegistryOptions,
        _auth: Option<Auth>,
        _progress: Option<watch::Sender<Progress>>,
    ) -> Result<Image> {
        todo!()
    }

    /// Reads an OCI or `docker save` archive; all of it or none.
    pub async fn import(&self, _path: &Path) -> Result<Vec<Imported>> {
        todo!()
    }

    pub async fn import_from<R: Read + Send + 'static>(&self, _reader: R) -> Result<Vec<Imported>> {
        todo!()
    }

    /// Writes the image as an OCI archive that `import` and Docker read; gives
    /// the writer back.
    pub async fn export<W: Write + Send + 'static>(
        &self,
        _reference: &Reference,
        _writer: W,
    ) -> Result<W> {
        todo!()
    }

    pub async fn list(&self) -> Result<Vec<Summary>> {
        todo!()
    }

    /// Takes the name away; the content goes with the next `gc`. `false` when
    /// there was no such name.
    pub async fn remove(&self, _reference: &Reference) -> Result<bool> {
        todo!()
    }

    /// Drops names unused for `older_than`, then all content that no name, no
    /// lease and nothing in `keep` (manifest digests or diff ids) needs.
    pub async fn gc(&self, _keep: &HashSet<Digest>, _older_than: Duration) -> Result<Freed> {
        let _ = &self.inner;
        todo!()
    }
}
