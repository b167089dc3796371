//! Images of an OCI layout, also the kind newer `docker save`s write.

use super::docker;
use super::{Found, Staging};
use crate::error::{Error, Result};
use crate::manifest::{Descriptor, Document, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;

const FULL_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

pub(super) fn images(staging: &Staging) -> Result<Vec<Found>> {
    let bytes = staging.read_small(staging.by_name("index.json")?)?;
    let Document::Index(index) = Document::parse(&bytes, "index.json")? else {
        return Err(Error::malformed("index.json", "it lists no manifests"));
    };
    let mut found: Vec<Found> = Vec::new();
    let mut other_platform = None;
    for entry in index.manifests.iter().filter(|d| !d.is_attestation()) {
        let image = match image(staging, entry) {
            Ok(image) => image,
            // One name may be listed once per platform; ours may come later.
            Err(e @ Error::WrongPlatform { .. }) => {
                other_platform.get_or_insert(e);
                continue;
            }
            Err(e) => return Err(e),
        };
        match found.iter_mut().find(|f| f.digest == image.digest) {
            // One entry per name.
            Some(same) => same.add_names(image.names),
            None => found.push(image),
        }
    }
    match (found.is_empty(), other_platform) {
        (true, Some(e)) => Err(e),
        (true, None) => Err(Error::malformed("index.json", "it lists no images")),
        (false, _) => Ok(found),
    }
}

fn image(staging: &Staging, entry: &Descriptor) -> Result<Found> {
    let (manifest, bytes) = manifest(staging, entry)?;
    let mut names = names(entry)?;
    if names.is_empty() {
        names = docker::names_of(staging, &manifest.config.digest)?;
    }
    Found::new(staging, names, manifest, bytes)
}

fn manifest(staging: &Staging, entry: &Descriptor) -> Result<(Manifest, Vec<u8>)> {
    let shown = entry.digest.to_string();
    let wanted = Platform::host();
    if let Some(platform) = entry.platform.as_ref().filter(|p| **p != wanted) {
        return Err(Error::WrongPlatform {
            image: title(entry),
            found: platform.to_string(),
            wanted,
        });
    }
    let bytes = staging.document(entry)?;
    match Document::parse(&bytes, &shown)? {
        Document::Manifest(manifest) => Ok((manifest, bytes)),
        Document::Index(index) => {
            let entry = index.choose(&wanted, &title(entry))?;
            let bytes = staging.document(entry)?;
            match Document::parse(&bytes, &shown)? {
                Document::Manifest(manifest) => Ok((manifest, bytes)),
                Document::Index(_) => {
                    Err(Error::malformed(shown, "its index points to another index"))
                }
            }
        }
    }
}

/// The full name where a tool wrote one; else the short one when it is more
/// than a tag, for a tag alone names nothing.
fn names(entry: &Descriptor) -> Result<Vec<Reference>> {
    let full = entry.annotation(FULL_NAME);
    let short = entry.annotation(REF_NAME);
    let short = short.filter(|name| name.contains([':', '/', '@']));
    full.or(short).map(str::parse).into_iter().collect()
}

fn title(entry: &Descriptor) -> String {
    let name = entry.annotation(FULL_NAME).or(entry.annotation(REF_NAME));
    name.map_or_else(|| entry.digest.to_string(), str::to_owned)
}

impl Found {
    fn add_names(&mut self, names: Vec<Reference>) {
        for name in names {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }
}
