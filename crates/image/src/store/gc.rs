//! Mark and sweep over names, live images and what the caller keeps.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::digest::Digest;
use crate::error::{Error, IoContext, Result};
use crate::image::Freed;
use crate::store::Inner;
use crate::store::layout::Scratch;

/// New names may end a pass early; what is left then goes next time.
const PASSES_MAX: u32 = 5;

pub(super) fn collect(
    store: &Inner,
    keep: &HashSet<Digest>,
    older_than: Duration,
) -> Result<Freed> {
    let now = SystemTime::now();
    let references = store.refs.remove(&store.layout, |_, entry| {
        let unused = now.duration_since(entry.last_used()).unwrap_or_default();
        let in_use = keep.contains(&entry.manifest) || store.leases.held(&entry.manifest);
        unused >= older_than && !in_use
    })?;
    let mut freed = Freed { references, ..Freed::default() };
    for _ in 0..PASSES_MAX {
        if pass(store, keep, &mut freed)? {
            break;
        }
    }
    tracing::debug!(?freed, "image garbage collected");
    Ok(freed)
}

/// One mark and sweep; `false` when a new name ended it early.
fn pass(store: &Inner, keep: &HashSet<Digest>, freed: &mut Freed) -> Result<bool> {
    let layout = &store.layout;
    // Listed before marking: content that arrives later is leased or named by
    // then, and is not in the list.
    let layers = listed(&layout.layers())?;
    let blobs = listed(&layout.blobs())?;
    let generation = store.refs.generation();
    let marked = mark(store, keep)?;
    let scratch = layout.scratch()?;
    let sweep = |digest: &Digest, path: &Path| sweep(store, digest, path, &scratch, generation);
    for digest in layers.iter().filter(|d| !marked.contains(d)) {
        let path = layout.layer(digest);
        let bytes = layout.layer_record(digest).map_or(0, |r| r.unpacked_bytes);
        match sweep(digest, &path)? {
            Swept::Removed => {
                freed.layers += 1;
                freed.bytes += bytes;
            }
            Swept::Leased => {}
            Swept::Outdated => return Ok(false),
        }
    }
    for digest in blobs.iter().filter(|d| !marked.contains(d)) {
        let path = layout.blob(digest);
        let bytes = fs::metadata(&path).map_or(0, |m| m.len());
        match sweep(digest, &path)? {
            Swept::Removed => {
                freed.blobs += 1;
                freed.bytes += bytes;
            }
            Swept::Leased => {}
            Swept::Outdated => return Ok(false),
        }
    }
    Ok(true)
}

/// Everything reachable from a name or from `keep`.
fn mark(store: &Inner, keep: &HashSet<Digest>) -> Result<HashSet<Digest>> {
    let named = store.refs.all().into_iter().map(|(_, e)| e.manifest);
    let roots: HashSet<Digest> = named.chain(keep.iter().cloned()).collect();
    let mut marked = roots.clone();
    for root in &roots {
        let documents = match store.documents(root, None) {
            Ok(Some(documents)) => documents,
            Ok(None) => continue,
            // Not knowing what it needs, nothing may be thrown away.
            Err(e @ (Error::Corrupt { .. } | Error::Io { .. })) => return Err(e),
            // A diff id, which is no manifest.
            Err(_) => continue,
        };
        marked.insert(documents.config_descriptor.digest);
        for (blob, diff_id) in documents.layers {
            marked.insert(blob.digest);
            marked.insert(diff_id);
        }
    }
    Ok(marked)
}

enum Swept {
    Removed,
    Leased,
    /// A name was added since the marking, perhaps for this very content.
    Outdated,
}

fn sweep(
    store: &Inner,
    digest: &Digest,
    path: &Path,
    scratch: &Scratch,
    generation: u64,
) -> Result<Swept> {
    let removed = store.leases.unless_held(digest, || {
        // Content is named before its lease ends, so a name that this marking
        // missed shows here.
        if store.refs.generation() != generation {
            return Ok(Swept::Outdated);
        }
        store.layout.discard(path, scratch)?;
        Ok(Swept::Removed)
    });
    removed.unwrap_or(Ok(Swept::Leased))
}

fn listed(dir: &Path) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    for entry in fs::read_dir(dir).at("listing", dir)? {
        let name = entry.at("listing", dir)?.file_name();
        // Anything else is not ours to judge.
        if let Ok(digest) = format!("sha256:{}", name.to_string_lossy()).parse() {
            digests.push(digest);
        }
    }
    Ok(digests)
}
