//! Bringing images here from an archive: OCI layouts and `docker save`.
//!
//! The archive is read once into scratch files under names of ours, then
//! understood, then every layer is unpacked and verified, and only then does
//! anything get a final name; the image names come last, all in one write.

use std::io::Read;
use std::path::PathBuf;

use crate::config::ConfigDocument;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::Imported;
use crate::manifest::{Descriptor, Manifest, pair_layers};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::layout::{LayerRecord, Scratch};
use crate::store::lease::Lease;
use crate::store::{Inner, unpack_into};
use crate::unpack;
use crate::unpack::stream::Cancel;

mod docker;
mod oci;
mod staging;

use staging::Staging;

/// An image found in the archive, not yet checked against its layers.
struct Found {
    names: Vec<Reference>,
    digest: Digest,
    bytes: Vec<u8>,
    manifest: Manifest,
    config: ConfigDocument,
}

/// An unpacked layer waiting for its name.
struct Ready {
    diff_id: Digest,
    dir: PathBuf,
    record: LayerRecord,
}

pub(crate) fn archive<R: Read + 'static>(
    store: &Inner,
    reader: R,
    cancel: Cancel,
) -> Result<Vec<Imported>> {
    let scratch = store.layout.scratch()?;
    let limits = store.layout.limits;
    let staging = Staging::read(reader, scratch.path(), limits, &cancel)?;
    let found = if staging.has("index.json") {
        oci::images(&staging)?
    } else if staging.has("manifest.json") {
        docker::images(&staging)?
    } else {
        return Err(Error::malformed(
            "index.json",
            "neither it nor manifest.json is in the archive; make one with `docker save`, \
             `skopeo copy … oci-archive:FILE` or `podman save --format oci-archive`",
        ));
    };
    let lease = store.leases.lease();
    let mut ready = Vec::new();
    for image in &found {
        unpack_layers(store, &staging, image, &scratch, &cancel, &mut ready)?;
    }
    commit(store, &staging, &found, ready, &lease)
}

fn unpack_layers(
    store: &Inner,
    staging: &Staging,
    image: &Found,
    scratch: &Scratch,
    cancel: &Cancel,
    ready: &mut Vec<Ready>,
) -> Result<()> {
    let name = image.title();
    let layers_max = store.layout.limits.layers;
    let layers = pair_layers(&image.manifest, &image.config, &name, layers_max)?;
    for (blob, diff_id) in layers {
        let file = staging.by_digest(&blob)?;
        let here = store.layout.has_layer(&diff_id) || ready.iter().any(|r| r.diff_id == diff_id);
        if here {
            continue;
        }
        let layer = unpack::Layer { packed: &file.path, blob: &blob.digest, diff_id: &diff_id };
        let cancel = Cancel::clone(cancel);
        let (dir, record) = unpack_into(&layer, scratch.path(), store.layout.limits, cancel)?;
        ready.push(Ready { diff_id, dir, record });
    }
    Ok(())
}

fn commit(
    store: &Inner,
    staging: &Staging,
    found: &[Found],
    ready: Vec<Ready>,
    lease: &Lease,
) -> Result<Vec<Imported>> {
    let layout = &store.layout;
    for image in found {
        lease.add(&image.digest);
        image.config.diff_ids().iter().for_each(|id| lease.add(id));
        let blobs = image.manifest.layers.iter().chain([&image.manifest.config]);
        for blob in blobs {
            lease.add(&blob.digest);
            let staged = staging.by_digest(blob)?;
            // Two images of the archive may share it; the first took it away.
            if staged.path.exists() {
                layout.adopt_blob(&blob.digest, &staged.path)?;
            }
        }
        layout.put_blob(&image.digest, &image.bytes)?;
    }
    for layer in ready {
        layout.commit_layer(&layer.diff_id, &layer.dir, &layer.record)?;
    }
    for image in found {
        // Present when unpacking was planned, but garbage collection may have
        // been faster than the lease.
        if let Some(gone) = image.config.diff_ids().iter().find(|id| !layout.has_layer(id)) {
            tracing::debug!(diff_id = %gone, "layer went away meanwhile, unpacked on first use");
            continue;
        }
        unpack::adopt::implicit_dirs(layout, image.config.diff_ids())?;
    }
    let names =
        found.iter().flat_map(|image| image.names.iter().map(move |name| (name, &image.digest)));
    store.refs.insert(layout, names)?;
    Ok(found
        .iter()
        .map(|image| Imported { names: image.names.clone(), digest: image.digest.clone() })
        .collect())
}

impl Found {
    /// Reads the configuration and refuses what this node cannot run.
    fn new(
        staging: &Staging,
        mut names: Vec<Reference>,
        manifest: Manifest,
        bytes: Vec<u8>,
    ) -> Result<Self> {
        let digest = Digest::of(&bytes);
        if names.is_empty() {
            names.push(Reference::unnamed(&digest));
        }
        let config = staging.document(&manifest.config)?;
        let config = ConfigDocument::parse(&config, &manifest.config.digest.to_string())?;
        let found = Self { names, digest, bytes, manifest, config };
        found.config.require(&Platform::host(), &found.title())?;
        for layer in &found.manifest.layers {
            staging.by_digest(layer)?;
        }
        Ok(found)
    }

    fn title(&self) -> String {
        let first = self.names.first().map(Reference::to_string);
        first.unwrap_or_else(|| self.digest.to_string())
    }
}

/// A descriptor for content whose digest we computed.
fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.clone(),
        size,
        platform: None,
        annotations: None,
    }
}
