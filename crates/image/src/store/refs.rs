//! Names of images: which manifest each means and when it was last used.
//!
//! Held in memory, written whole on every change of a meaning. Last-use times
//! are written lazily, because starting a container must not cost a sync;
//! after a crash they may be up to `TOUCH_SAVED_EVERY` old.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::store::layout::{self, Layout};

const VERSION: u32 = 1;
const FILE_BYTES_MAX: u64 = 64 << 20;
const TOUCH_SAVED_EVERY: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) manifest: Digest,
    last_used_s: u64,
}

impl Entry {
    pub(crate) fn last_used(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.last_used_s)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    version: u32,
    refs: BTreeMap<Reference, Entry>,
}

#[derive(Debug)]
pub(crate) struct Refs {
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    refs: BTreeMap<Reference, Entry>,
    saved_at: SystemTime,
    /// Counts insertions.
    generation: u64,
}

impl Refs {
    pub(crate) fn load(layout: &Layout) -> Result<Self> {
        let path = layout.refs();
        let document = if path.exists() {
            let bytes = layout::read_bounded(&path, FILE_BYTES_MAX)?;
            let document: Document = serde_json::from_slice(&bytes)
                .map_err(|e| Error::io("reading image names from", &path, e.into()))?;
            if document.version > VERSION {
                let newer = std::io::Error::other(format!(
                    "it has version {}, and this program knows version {VERSION}: start the newer \
                     cluster-worker that wrote it",
                    document.version
                ));
                return Err(Error::io("reading image names from", &path, newer));
            }
            document
        } else {
            Document::default()
        };
        Ok(Self {
            held: Mutex::new(Held {
                refs: document.refs,
                saved_at: SystemTime::now(),
                generation: 0,
            }),
        })
    }

    /// The manifest a name means; a name pinned by digest also matches any
    /// other name of that very manifest.
    pub(crate) fn lookup(&self, layout: &Layout, reference: &Reference) -> Option<Digest> {
        let mut held = self.lock();
        let key = if held.refs.contains_key(reference) {
            reference.clone()
        } else {
            let pinned = reference.digest()?;
            let same = held.refs.iter().find(|(_, e)| e.manifest == *pinned);
            same.map(|(key, _)| key.clone())?
        };
        let entry = held.refs.get_mut(&key)?;
        entry.last_used_s = now_s();
        let manifest = entry.manifest.clone();
        let stale = held.saved_at.elapsed().unwrap_or_default() > TOUCH_SAVED_EVERY;
        if stale && let Err(error) = save(&mut held, layout) {
            tracing::warn!(%error, "last-use times of images are not saved");
        }
        Some(manifest)
    }

    pub(crate) fn insert<'a>(
        &self,
        layout: &Layout,
        names: impl IntoIterator<Item = (&'a Reference, &'a Digest)>,
    ) -> Result<()> {
        let mut held = self.lock();
        let before = held.refs.clone();
        for (name, manifest) in names {
            let entry = Entry { manifest: manifest.clone(), last_used_s: now_s() };
            held.refs.insert(name.clone(), entry);
        }
        held.generation += 1;
        save(&mut held, layout).inspect_err(|_| held.refs = before)
    }

    /// Changes whenever a name is added or gets another meaning.
    pub(crate) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// Removes the names for which `doomed` says so; gives their number.
    pub(crate) fn remove(
        &self,
        layout: &Layout,
        doomed: impl Fn(&Reference, &Entry) -> bool,
    ) -> Result<u64> {
        let mut held = self.lock();
        let before = held.refs.clone();
        held.refs.retain(|name, entry| !doomed(name, entry));
        let removed = before.len() - held.refs.len();
        if removed > 0 {
            save(&mut held, layout).inspect_err(|_| held.refs = before)?;
        }
        Ok(removed as u64)
    }

    pub(crate) fn all(&self) -> Vec<(Reference, Entry)> {
        let held = self.lock();
        held.refs.iter().map(|(r, e)| (r.clone(), e.clone())).collect()
    }

    // Every change is undone before an error leaves the lock.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn save(held: &mut Held, layout: &Layout) -> Result<()> {
    let path = layout.refs();
    let document = Document { version: VERSION, refs: std::mem::take(&mut held.refs) };
    let bytes = serde_json::to_vec_pretty(&document);
    held.refs = document.refs;
    let bytes = bytes.map_err(|e| Error::io("encoding image names for", &path, e.into()))?;
    layout.replace(&path, &bytes)?;
    held.saved_at = SystemTime::now();
    Ok(())
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
