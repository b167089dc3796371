//! Manifests and indexes, as far as we read and write them.
//!
//! Docker's and OCI's documents have the same shape under different media
//! types; what a document is, is told by its fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::ConfigDocument;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::platform::Platform;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

const ATTESTATION: &str = "vnd.docker.reference.type";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Provenance stored beside images under a platform that does not exist.
    pub(crate) fn is_attestation(&self) -> bool {
        self.annotation(ATTESTATION).is_some()
            || self.platform.as_ref().is_some_and(|p| p.os == "unknown")
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Self> {
        let value: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|e| malformed(what, "it is not JSON", e))?;
        if value.get("schemaVersion").and_then(serde_json::Value::as_u64) == Some(1) {
            return Err(Error::malformed(
                what,
                "it has the old schema 1: push the image again with a current tool",
            ));
        }
        if value.get("manifests").is_some() {
            serde_json::from_value(value)
                .map(Self::Index)
                .map_err(|e| malformed(what, "it is not an image index", e))
        } else {
            serde_json::from_value(value)
                .map(Self::Manifest)
                .map_err(|e| malformed(what, "it is not an image manifest", e))
        }
    }
}

impl Index {
    /// The entry for `wanted`; an error names what there is instead.
    pub(crate) fn choose(&self, wanted: &Platform, image: &str) -> Result<&Descriptor> {
        let images = || self.manifests.iter().filter(|d| !d.is_attestation());
        if let Some(found) = images().find(|d| d.platform.as_ref() == Some(wanted)) {
            return Ok(found);
        }
        // An entry that does not say is judged by its configuration later.
        if let Some(unsaid) = images().find(|d| d.platform.is_none()) {
            return Ok(unsaid);
        }
        let mut found: Vec<String> = images()
            .filter_map(|d| d.platform.as_ref().map(Platform::to_string))
            .take(16)
            .collect();
        found.dedup();
        Err(Error::WrongPlatform {
            image: image.to_owned(),
            wanted: wanted.clone(),
            found: if found.is_empty() {
                "no platform at all".to_owned()
            } else {
                found.join(", ")
            },
        })
    }
}

/// Pairs each layer's blob with the digest of its uncompressed archive.
pub(crate) fn pair_layers(
    manifest: &Manifest,
    config: &ConfigDocument,
    image: &str,
    layers_max: usize,
) -> Result<Vec<(Descriptor, Digest)>> {
    let diff_ids = config.diff_ids();
    if manifest.layers.len() > layers_max {
        return Err(Error::TooLarge {
            what: format!("the list of layers of `{image}`"),
            limit: layers_max as u64,
            unit: "layers",
        });
    }
    if manifest.layers.len() != diff_ids.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        return Err(Error::malformed(
            image,
            format!("the manifest lists {layers} layers, the configuration {ids}"),
        ));
    }
    let layers = manifest.layers.iter().cloned();
    Ok(layers.zip(diff_ids.iter().cloned()).collect())
}

pub(crate) fn malformed(what: &str, reason: &str, source: serde_json::Error) -> Error {
    Error::MalformedArchive {
        entry: what.to_owned(),
        reason: reason.to_owned(),
        source: Some(Arc::new(source)),
    }
}
