//! What fuzz targets call of this crate beside its public functions: documents and layers. The
//! module exists under the feature `fuzzing` alone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::config::ConfigDocument;
use crate::digest::Digest;
use crate::error::IoContext;
use crate::limits::Limits;
use crate::manifest::{Document, pair_layers};
use crate::platform::Platform;
use crate::unpack;
use crate::{ImageConfig, Result};

/// Reads two documents of a registry or an archive: a manifest or index, and a configuration.
pub fn documents(manifest: &[u8], config: &[u8]) -> Option<ImageConfig> {
    let platform = Platform::host();
    let document = Document::parse(manifest, "manifest");
    if let Ok(Document::Index(index)) = &document {
        let _ = index.choose(&platform, "image");
    }
    let config = ConfigDocument::parse(config, "config").ok()?;
    let _ = config.require(&platform, "image");
    if let Ok(Document::Manifest(manifest)) = &document {
        let _ = pair_layers(manifest, &config, "image", Limits::default().layers);
    }
    let config = config.into_config();
    if let Some(check) = &config.healthcheck {
        let _ = check.command();
    }
    Some(config)
}

/// Unpacks a layer into an empty folder, whatever its digests: packed bytes as they came, and the
/// archive in them cut from any claim.
pub fn layer(packed: &Path, into: &Path, limits: Limits) -> Result<()> {
    let bytes = std::fs::read(packed).at("reading", packed)?;
    let blob = Digest::of(&bytes);
    // The digest of what is inside is not known; its mismatch is the last thing to be found.
    let layer = unpack::Layer { packed, blob: &blob, diff_id: &blob };
    let cancel = Arc::new(AtomicBool::new(false));
    unpack::layer(&layer, into, limits, cancel).map(|_| ())
}
