//! The store's handle: what callers may ask.
//!
//! Methods are asynchronous and do their file work on blocking threads. A
//! caller that goes away stops what it asked for; nothing half-done keeps a
//! final name.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, watch};

use crate::config::ConfigDocument;
use crate::digest::Digest;
use crate::error::{Error, IoContext, Result};
use crate::image::{Freed, Image, Imported, Summary};
use crate::limits::Limits;
use crate::manifest::{Descriptor, Document, pair_layers};
use crate::pull::flight::{self, Flights};
use crate::pull::options::{Auth, Progress, PullPolicy, RegistryOptions};
use crate::reference::Reference;
use crate::{export, import, unpack};

mod gc;
pub(crate) mod layout;
pub(crate) mod lease;
pub(crate) mod refs;

use layout::Layout;
use lease::{Lease, Leases};
use refs::Refs;

/// A directory of images; clones share it. One process per directory.
#[derive(Debug, Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) refs: Refs,
    pub(crate) leases: Leases,
    pub(crate) flights: Flights,
    pub(crate) blob_locks: KeyedLocks,
    layer_locks: KeyedLocks,
    /// One import at a time: two of one archive would do the work twice.
    imports: Arc<tokio::sync::Mutex<()>>,
}

impl ImageStore {
    /// Opens or creates the store at `root` and sweeps what a crash left.
    /// Blocking; call it once at start.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, Limits::default())
    }

    pub fn open_with(root: &Path, limits: Limits) -> Result<Self> {
        let layout = Layout::open(root, limits)?;
        let refs = Refs::load(&layout)?;
        let inner = Inner {
            layout,
            refs,
            leases: Leases::default(),
            flights: Flights::default(),
            blob_locks: KeyedLocks::default(),
            layer_locks: KeyedLocks::default(),
            imports: Arc::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The image if all of it is on this node.
    pub async fn resolve_local(&self, reference: &Reference) -> Result<Option<Image>> {
        self.inner.local(reference).await
    }

    /// The image, pulled first where the policy asks for it. Concurrent calls
    /// for one image share one pull and its outcome (with the options of the
    /// first); `progress` hears the latest state while it runs.
    pub async fn ensure(
        &self,
        reference: &Reference,
        policy: PullPolicy,
        options: &RegistryOptions,
        auth: Option<Auth>,
        progress: Option<watch::Sender<Progress>>,
    ) -> Result<Image> {
        if policy != PullPolicy::Always {
            match self.inner.local(reference).await {
                Ok(Some(image)) => return Ok(image),
                Ok(None) => {}
                Err(error @ Error::Corrupt { .. }) if policy == PullPolicy::Missing => {
                    tracing::warn!(image = %reference, %error, "image is pulled again");
                }
                Err(error) => return Err(error),
            }
        }
        if policy == PullPolicy::Never {
            return Err(Error::NotFound { reference: reference.to_string() });
        }
        let key = flight::Key { reference: reference.clone(), auth };
        flight::pull(&self.inner, key, options, progress).await
    }

    /// Reads an OCI or `docker save` archive; all of it or none.
    pub async fn import(&self, path: &Path) -> Result<Vec<Imported>> {
        let path = path.to_path_buf();
        let file = tokio::fs::File::open(&path).await.at("opening", &path)?;
        self.import_from(file.into_std().await).await
    }

    /// As [`Self::import`], from a stream.
    pub async fn import_from<R: Read + Send + 'static>(&self, reader: R) -> Result<Vec<Imported>> {
        let alone = Arc::clone(&self.inner.imports).lock_owned().await;
        let store = Arc::clone(&self.inner);
        let stop = StopOnDrop::default();
        let cancel = Arc::clone(&stop.0);
        blocking("importing", move || {
            let _alone = alone;
            import::archive(&store, reader, cancel)
        })
        .await
    }

    /// Writes the image as an OCI archive that `import` and Docker read; gives
    /// the writer back.
    pub async fn export<W: Write + Send + 'static>(
        &self,
        reference: &Reference,
        writer: W,
    ) -> Result<W> {
        let store = Arc::clone(&self.inner);
        let reference = reference.clone();
        blocking("exporting", move || export::archive(&store, &reference, writer)).await
    }

    pub async fn list(&self) -> Result<Vec<Summary>> {
        let store = Arc::clone(&self.inner);
        blocking("listing", move || store.summaries()).await
    }

    /// Takes the name away; the content goes with the next `gc`. `false` when
    /// there was no such name.
    pub async fn remove(&self, reference: &Reference) -> Result<bool> {
        let store = Arc::clone(&self.inner);
        let reference = reference.clone();
        blocking("removing", move || {
            let removed = store.refs.remove(&store.layout, |name, _| *name == reference)?;
            Ok(removed > 0)
        })
        .await
    }

    /// Drops names unused for `older_than`, then all content that no name, no
    /// live [`Image`], no pull and nothing in `keep` (manifest digests or diff
    /// ids) needs.
    pub async fn gc(&self, keep: &HashSet<Digest>, older_than: Duration) -> Result<Freed> {
        let store = Arc::clone(&self.inner);
        let keep = keep.clone();
        blocking("collecting garbage", move || gc::collect(&store, &keep, older_than)).await
    }
}

/// The documents of a stored image.
pub(crate) struct Documents {
    pub(crate) bytes: Vec<u8>,
    pub(crate) config_descriptor: Descriptor,
    pub(crate) config: ConfigDocument,
    /// Blob and diff id of each layer, lowest first.
    pub(crate) layers: Vec<(Descriptor, Digest)>,
}

impl Inner {
    /// The image under a name, unpacking again what is only packed here.
    pub(crate) async fn local(self: &Arc<Self>, reference: &Reference) -> Result<Option<Image>> {
        let store = Arc::clone(self);
        let name = reference.clone();
        let found = blocking("looking up the image", move || {
            let Some(manifest) = store.refs.lookup(&store.layout, &name) else {
                return Ok(None);
            };
            let lease = store.leases.lease();
            lease.add(&manifest);
            let documents = store.documents(&manifest, Some(&lease))?;
            let missing: Vec<_> = match &documents {
                Some(documents) => documents
                    .layers
                    .iter()
                    .filter(|(_, diff_id)| !store.layout.has_layer(diff_id))
                    .cloned()
                    .collect(),
                None => Vec::new(),
            };
            Ok(documents.map(|documents| (manifest, documents, lease, missing)))
        });
        let Some((manifest, documents, lease, missing)) = found.await? else {
            return Ok(None);
        };
        for (blob, diff_id) in &missing {
            if !self.layout.blob(&blob.digest).exists() {
                return Ok(None);
            }
            self.unpack_layer(&blob.digest, diff_id).await?;
        }
        let store = Arc::clone(self);
        let reference = reference.clone();
        let image = blocking("assembling the image", move || {
            if !missing.is_empty() {
                let diff_ids: Vec<_> = documents.diff_ids();
                unpack::adopt::implicit_dirs(&store.layout, &diff_ids)?;
            }
            store.image(reference, manifest, documents, lease)
        });
        image.await.map(Some)
    }

    /// Manifest and configuration, verified; `None` when either is not here.
    pub(crate) fn documents(
        &self,
        manifest: &Digest,
        lease: Option<&Lease>,
    ) -> Result<Option<Documents>> {
        let Some(bytes) = self.layout.read_blob(manifest)? else {
            return Ok(None);
        };
        let name = manifest.to_string();
        let Document::Manifest(parsed) = Document::parse(&bytes, &name)? else {
            return Ok(None);
        };
        if let Some(lease) = lease {
            lease.add(&parsed.config.digest);
        }
        let Some(config) = self.layout.read_blob(&parsed.config.digest)? else {
            return Ok(None);
        };
        let config = ConfigDocument::parse(&config, &name)?;
        let layers = pair_layers(&parsed, &config, &name, self.layout.limits.layers)?;
        if let Some(lease) = lease {
            for (blob, diff_id) in &layers {
                lease.add(&blob.digest);
                lease.add(diff_id);
            }
        }
        Ok(Some(Documents { bytes, config_descriptor: parsed.config, config, layers }))
    }

    fn image(
        &self,
        reference: Reference,
        manifest_digest: Digest,
        documents: Documents,
        lease: Lease,
    ) -> Result<Image> {
        let diff_ids = documents.diff_ids();
        Ok(Image {
            reference,
            manifest_digest,
            layers: diff_ids.iter().map(|id| self.layout.layer_fs(id)).collect(),
            size: self.unpacked_bytes(&diff_ids)?,
            diff_ids,
            config: documents.config.into_config(),
            _lease: Some(Arc::new(lease)),
        })
    }

    fn unpacked_bytes(&self, diff_ids: &[Digest]) -> Result<u64> {
        let mut total: u64 = 0;
        for diff_id in diff_ids {
            total = total.saturating_add(self.layout.layer_record(diff_id)?.unpacked_bytes);
        }
        Ok(total)
    }

    fn summaries(&self) -> Result<Vec<Summary>> {
        let mut summaries = Vec::new();
        for (reference, entry) in self.refs.all() {
            // One bad image does not hide the others.
            let documents = self.documents(&entry.manifest, None).unwrap_or_else(|error| {
                tracing::warn!(image = %reference, %error, "image cannot be read");
                None
            });
            let diff_ids = documents.map(|d| d.diff_ids()).unwrap_or_default();
            summaries.push(Summary {
                reference,
                last_used: entry.last_used(),
                manifest_digest: entry.manifest,
                // A layer may be gone; the listing still shows the name.
                size: self.unpacked_bytes(&diff_ids).unwrap_or_default(),
                diff_ids,
            });
        }
        Ok(summaries)
    }

    /// Unpacks a blob that is here, unless its layer already is. The caller
    /// holds a lease on both.
    pub(crate) async fn unpack_layer(
        self: &Arc<Self>,
        blob: &Digest,
        diff_id: &Digest,
    ) -> Result<()> {
        let alone = self.layer_locks.lock(diff_id).await;
        let store = Arc::clone(self);
        let (blob, diff_id) = (blob.clone(), diff_id.clone());
        let stop = StopOnDrop::default();
        let cancel = Arc::clone(&stop.0);
        blocking("unpacking", move || {
            let _alone = alone;
            if store.layout.has_layer(&diff_id) {
                return Ok(());
            }
            let scratch = store.layout.scratch()?;
            let layer =
                unpack::Layer { packed: &store.layout.blob(&blob), blob: &blob, diff_id: &diff_id };
            let (dir, record) = unpack_into(&layer, scratch.path(), store.layout.limits, cancel)?;
            store.layout.commit_layer(&diff_id, &dir, &record)
        })
        .await
    }

    /// Throws away a blob that went bad.
    pub(crate) async fn drop_blob(self: &Arc<Self>, digest: &Digest) -> Result<()> {
        let store = Arc::clone(self);
        let path = self.layout.blob(digest);
        blocking("removing a corrupt blob", move || {
            let scratch = store.layout.scratch()?;
            store.layout.discard(&path, &scratch)
        })
        .await
    }
}

impl Documents {
    pub(crate) fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|(_, id)| id.clone()).collect()
    }
}

/// Unpacks to `<scratch>/<diff-id>/fs`; gives the directory to commit.
pub(crate) fn unpack_into(
    layer: &unpack::Layer<'_>,
    scratch: &Path,
    limits: Limits,
    cancel: Arc<AtomicBool>,
) -> Result<(std::path::PathBuf, layout::LayerRecord)> {
    let dir = scratch.join(layer.diff_id.hex());
    let fs = dir.join("fs");
    std::fs::create_dir_all(&fs).at("creating", &fs)?;
    let record = unpack::layer(layer, &fs, limits, cancel)?;
    Ok((dir, record))
}

/// Tells a blocking thread that nobody waits for it any more.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One holder per digest at a time.
#[derive(Debug, Default)]
pub(crate) struct KeyedLocks(Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>);

impl KeyedLocks {
    pub(crate) async fn lock(&self, key: &Digest) -> OwnedMutexGuard<()> {
        let lock = {
            // Weak entries stay valid whatever panicked elsewhere.
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match locks.get(key).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    locks.retain(|_, lock| lock.strong_count() > 0);
                    let lock = Arc::new(tokio::sync::Mutex::new(()));
                    locks.insert(key.clone(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}

pub(crate) async fn blocking<T, F>(action: &'static str, work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Interrupted { action }),
    }
}
