//! Bringing an image here from a registry.
//!
//! *Flow:* manifest (an index is resolved to this node's platform), then
//! configuration, then layers, a few at a time, each downloaded and unpacked;
//! the name is written last. *Guarantees:* every document and blob has the
//! digest by which it was asked for; a failed pull leaves verified blobs that
//! the next one uses and that garbage collection takes otherwise.

use std::path::Path;
use std::sync::Arc;

use futures::stream::{StreamExt, TryStreamExt};
use tokio::sync::watch;

use crate::config::ConfigDocument;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::manifest::{Descriptor, Document, Manifest, pair_layers};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::lease::Lease;
use crate::store::{Inner, blocking};
use crate::unpack;

mod download;
pub(crate) mod flight;
pub mod options;
mod registry;

use options::{Auth, Phase, Progress, RegistryOptions};
use registry::Registry;

const PARALLEL_MAX: usize = 16;

/// One pull. Dropping the future stops it.
pub(crate) struct Pull {
    store: Arc<Inner>,
    reference: Reference,
    registry: Registry,
    parallel: usize,
    lease: Arc<Lease>,
    progress: watch::Sender<Progress>,
}

impl Pull {
    pub(crate) async fn run(
        store: Arc<Inner>,
        reference: Reference,
        options: RegistryOptions,
        auth: Option<Auth>,
        progress: watch::Sender<Progress>,
    ) -> Result<Image> {
        let registry = Registry::connect(&reference, &options, auth).await?;
        let pull = Self {
            lease: Arc::new(store.leases.lease()),
            parallel: options.parallel.clamp(1, PARALLEL_MAX),
            store,
            reference,
            registry,
            progress,
        };
        pull.all().await
    }

    async fn all(self) -> Result<Image> {
        let (manifest, digest, bytes) = self.manifest().await?;
        self.progress.send_modify(|p| {
            p.phase = Phase::Pulling;
            p.layers_total = u32::try_from(manifest.layers.len()).unwrap_or(u32::MAX);
            let sizes = manifest.layers.iter().chain([&manifest.config]).map(|d| d.size);
            p.bytes_total = sizes.fold(0, u64::saturating_add);
        });
        let config = self.config(&manifest).await?;
        let name = self.reference.to_string();
        let layers_max = self.store.layout.limits.layers;
        let layers = pair_layers(&manifest, &config, &name, layers_max)?;
        // Owned, because borrowed items keep the future from being `Send`.
        let pull = &self;
        futures::stream::iter(layers.clone())
            .map(|(blob, diff_id)| async move { pull.layer(&blob, &diff_id).await })
            .buffer_unordered(self.parallel)
            .try_collect::<()>()
            .await?;
        let diff_ids: Vec<Digest> = layers.into_iter().map(|(_, id)| id).collect();
        self.name(digest, bytes, diff_ids).await?;
        self.progress.send_modify(|p| p.phase = Phase::Done);
        let reference = &self.reference;
        tracing::info!(image = %reference, "image pulled");
        self.store
            .local(reference)
            .await?
            .ok_or_else(|| Error::NotFound { reference: reference.to_string() })
    }

    /// The manifest for this node's platform, with its digest and bytes.
    async fn manifest(&self) -> Result<(Manifest, Digest, Vec<u8>)> {
        let image = self.reference.to_string();
        let pinned = self.reference.digest();
        let bytes = self.document(pinned).await?;
        let entry = match Document::parse(&bytes, &image)? {
            Document::Manifest(manifest) => {
                return Ok((manifest, Digest::of(&bytes), bytes));
            }
            Document::Index(index) => index.choose(&Platform::host(), &image)?.clone(),
        };
        let bytes = self.document(Some(&entry.digest)).await?;
        match Document::parse(&bytes, &image)? {
            Document::Manifest(manifest) => Ok((manifest, entry.digest, bytes)),
            Document::Index(_) => {
                let reason = "its index points to another index";
                Err(Error::malformed(image, reason))
            }
        }
    }

    /// A manifest or index, by digest where one is known.
    async fn document(&self, expected: Option<&Digest>) -> Result<Vec<u8>> {
        let bytes = self.registry.manifest(expected).await?;
        let limit = self.store.layout.limits.document_bytes;
        let what = || format!("the manifest of `{}`", self.reference);
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge { what: what(), limit, unit: "bytes" });
        }
        let actual = Digest::of(&bytes);
        match expected {
            Some(expected) if *expected != actual => Err(Error::DigestMismatch {
                what: what(),
                expected: expected.to_string(),
                actual: actual.to_string(),
            }),
            _ => Ok(bytes),
        }
    }

    async fn config(&self, manifest: &Manifest) -> Result<ConfigDocument> {
        let limit = self.store.layout.limits.document_bytes;
        let image = self.reference.to_string();
        if manifest.config.size > limit {
            return Err(Error::TooLarge {
                what: format!("the configuration of `{image}`"),
                limit,
                unit: "bytes",
            });
        }
        self.blob(&manifest.config).await?;
        match self.read_config(&manifest.config.digest).await {
            Err(Error::Corrupt { path, .. }) => {
                self.replace_blob(&path, &manifest.config).await?;
                self.read_config(&manifest.config.digest).await
            }
            done => done,
        }
    }

    async fn read_config(&self, digest: &Digest) -> Result<ConfigDocument> {
        let store = Arc::clone(&self.store);
        let digest = digest.clone();
        let image = self.reference.to_string();
        blocking("reading the configuration", move || {
            let bytes = store.layout.read_blob(&digest)?;
            let config = ConfigDocument::parse(&bytes.unwrap_or_default(), &image)?;
            config.require(&Platform::host(), &image)?;
            Ok(config)
        })
        .await
    }

    async fn layer(&self, blob: &Descriptor, diff_id: &Digest) -> Result<()> {
        self.lease.add(diff_id);
        self.blob(blob).await?;
        match self.store.unpack_layer(&blob.digest, diff_id).await {
            Err(Error::Corrupt { path, .. }) => {
                self.replace_blob(&path, blob).await?;
                self.store.unpack_layer(&blob.digest, diff_id).await?;
            }
            done => done?,
        }
        self.progress.send_modify(|p| p.layers_done += 1);
        Ok(())
    }

    /// A blob of an earlier pull went bad on our disk; the registry has another.
    async fn replace_blob(&self, path: &Path, blob: &Descriptor) -> Result<()> {
        tracing::warn!(path = %path.display(), "blob is corrupt, loading it again");
        self.store.drop_blob(&blob.digest).await?;
        self.blob(blob).await
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<()> {
        self.lease.add(&descriptor.digest);
        let _one = self.store.blob_locks.lock(&descriptor.digest).await;
        if self.store.layout.blob(&descriptor.digest).exists() {
            self.progress
                .send_modify(|p| p.bytes_done = p.bytes_done.saturating_add(descriptor.size));
            return Ok(());
        }
        let count = |bytes: i64| {
            self.progress.send_modify(|p| p.bytes_done = p.bytes_done.saturating_add_signed(bytes));
        };
        download::blob(&self.store.layout, &self.registry, descriptor, &count).await
    }

    /// Everything is here: the image gets its name.
    async fn name(&self, digest: Digest, bytes: Vec<u8>, diff_ids: Vec<Digest>) -> Result<()> {
        self.lease.add(&digest);
        let store = Arc::clone(&self.store);
        let reference = self.reference.clone();
        blocking("naming the image", move || {
            store.layout.put_blob(&digest, &bytes)?;
            unpack::adopt::implicit_dirs(&store.layout, &diff_ids)?;
            store.refs.insert(&store.layout, [(&reference, &digest)])
        })
        .await
    }
}
