//! What the store hands out: an image ready to be mounted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::store::lease::Lease;

/// An image whose layers are unpacked. Holding it (or a clone) keeps them:
/// garbage collection passes over what a live `Image` names.
#[derive(Debug, Clone)]
pub struct Image {
    pub reference: Reference,
    pub manifest_digest: Digest,
    pub config: ImageConfig,
    /// Overlay lower directories, lowest first.
    pub layers: Vec<PathBuf>,
    /// Digests of the layers' uncompressed archives, in the same order.
    pub diff_ids: Vec<Digest>,
    /// Unpacked bytes.
    pub size: u64,
    pub(crate) _lease: Option<Arc<Lease>>,
}

impl Image {
    /// An image without layers in any store, for runtimes that run nothing.
    #[must_use]
    pub fn detached(reference: Reference, config: ImageConfig) -> Self {
        Self {
            manifest_digest: Digest::of(reference.canonical().as_bytes()),
            reference,
            config,
            layers: Vec::new(),
            diff_ids: Vec::new(),
            size: 0,
            _lease: None,
        }
    }
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub reference: Reference,
    pub manifest_digest: Digest,
    pub diff_ids: Vec<Digest>,
    /// Unpacked bytes.
    pub size: u64,
    pub last_used: SystemTime,
}

/// One image found in an imported archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// All names it got; one made from its digest when the archive gave none.
    pub names: Vec<Reference>,
    pub digest: Digest,
}

/// What a garbage collection removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    pub references: u64,
    pub blobs: u64,
    pub layers: u64,
    pub bytes: u64,
}
