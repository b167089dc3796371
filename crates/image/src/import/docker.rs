//! Images of a classic `docker save` archive.
//!
//! It has no OCI manifest, so one is written for it: equal archives give equal
//! manifests.

use serde::Deserialize;

use super::{Found, Staging, descriptor};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{CONFIG, LAYER, MANIFEST, Manifest, malformed};
use crate::reference::Reference;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

pub(super) fn images(staging: &Staging) -> Result<Vec<Found>> {
    let items = items(staging)?;
    if items.is_empty() {
        return Err(Error::malformed("manifest.json", "it lists no images"));
    }
    items.iter().map(|item| image(staging, item)).collect()
}

/// The tags `manifest.json` has for a configuration, when there is one.
pub(super) fn names_of(staging: &Staging, config: &Digest) -> Result<Vec<Reference>> {
    if !staging.has("manifest.json") {
        return Ok(Vec::new());
    }
    for item in items(staging)? {
        if staging.by_name(&item.config)?.digest == *config {
            return names(&item);
        }
    }
    Ok(Vec::new())
}

fn items(staging: &Staging) -> Result<Vec<Item>> {
    let bytes = staging.read_small(staging.by_name("manifest.json")?)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| malformed("manifest.json", "it is not a list of images", e))
}

fn image(staging: &Staging, item: &Item) -> Result<Found> {
    let config = staging.by_name(&item.config)?;
    let layers: Result<Vec<_>> = item
        .layers
        .iter()
        .flatten()
        .map(|name| {
            let layer = staging.by_name(name)?;
            // What it is packed with is told by its first bytes.
            Ok(descriptor(LAYER, &layer.digest, layer.size))
        })
        .collect();
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        config: descriptor(CONFIG, &config.digest, config.size),
        layers: layers?,
    };
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|e| malformed("manifest.json", "no manifest can be made from it", e))?;
    Found::new(staging, names(item)?, manifest, bytes)
}

fn names(item: &Item) -> Result<Vec<Reference>> {
    item.repo_tags.iter().flatten().map(|tag| tag.parse()).collect()
}
