//! A disk in memory that loses what was not synced, tears what was being written, runs full, is
//! slow and fails on demand.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a fixture of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Disk, DiskFile};

/// Sectors reach the disk whole or not at all.
pub const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync, in order.
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct Inner {
    names: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    durable_names: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    syncs_left: Option<u64>,
    space_left: Option<u64>,
    syncs: u64,
    latency: Duration,
    forgets: bool,
}

/// What of the unsynced writes reaches the disk when the power goes.
#[derive(Debug, Clone, Copy)]
pub enum Loss {
    /// Nothing.
    All,
    /// All but the first so many bytes, in the order they were written.
    After(usize),
    /// Each sector as it was after some of the writes to it, by the toss of a seeded coin.
    Sectors(u64),
}

/// The disk; clones share it.
#[derive(Debug, Default, Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

impl SimDisk {
    /// Lets so many syncs succeed, then fails every one.
    pub fn fail_syncs_after(&self, count: u64) {
        self.0.lock().unwrap().syncs_left = Some(count);
    }

    /// Makes every batch wait so long before it is written.
    pub fn slow_down(&self, latency: Duration) {
        self.0.lock().unwrap().latency = latency;
    }

    /// From now on a failed sync does what kernels do: the bytes that could not be written count as
    /// written, and read well until the power goes.
    pub fn forget_after_failed_syncs(&self) {
        self.0.lock().unwrap().forgets = true;
    }

    /// Leaves room for so many more bytes of new files.
    pub fn limit_space(&self, bytes: u64) {
        self.0.lock().unwrap().space_left = Some(bytes);
    }

    /// Syncs, space and speed are as they should be again.
    pub fn recover(&self) {
        let mut inner = self.0.lock().unwrap();
        inner.syncs_left = None;
        inner.space_left = None;
        inner.latency = Duration::ZERO;
    }

    /// It cannot sync, or has no room.
    pub fn is_failing(&self) -> bool {
        let inner = self.0.lock().unwrap();
        inner.syncs_left.is_some() || inner.space_left.is_some()
    }

    /// How often something was made durable.
    pub fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    /// Bytes that a loss of power would take.
    pub fn unsynced_bytes(&self) -> usize {
        let inner = self.0.lock().unwrap();
        inner
            .names
            .values()
            .map(|file| file.lock().unwrap().pending.iter().map(|(_, b)| b.len()).sum::<usize>())
            .sum()
    }

    /// The disk as it is found after a loss of power; `self` is left as it was.
    pub fn after_power_loss(&self, loss: Loss) -> Self {
        let inner = self.0.lock().unwrap();
        let mut names = BTreeMap::new();
        let mut budget = match loss {
            Loss::After(bytes) => bytes,
            Loss::All | Loss::Sectors(_) => 0,
        };
        let mut coin = match loss {
            Loss::Sectors(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            Loss::All | Loss::After(_) => 0,
        };
        for (path, file) in &inner.durable_names {
            let file = file.lock().unwrap();
            let mut bytes = file.durable.clone();
            if let Loss::Sectors(_) = loss {
                scatter(&mut bytes, &file.pending, &mut coin);
            }
            for (offset, data) in &file.pending {
                let keep = budget.min(data.len());
                put(&mut bytes, *offset, &data[..keep]);
                budget -= keep;
            }
            let content = Content { now: bytes.clone(), durable: bytes, pending: Vec::new() };
            names.insert(path.clone(), Arc::new(Mutex::new(content)));
        }
        Self(Arc::new(Mutex::new(Inner {
            durable_names: names.clone(),
            names,
            forgets: inner.forgets,
            ..Inner::default()
        })))
    }

    /// Changes a file behind everyone's back.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let inner = self.0.lock().unwrap();
        let mut file = inner.names[path].lock().unwrap();
        change(&mut file.now);
        file.durable = file.now.clone();
        file.pending.clear();
    }

    /// What a file holds.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        self.0.lock().unwrap().names[path].lock().unwrap().now.clone()
    }

    /// All files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().unwrap().names.keys().cloned().collect()
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

/// Each sector reaches the disk as it was after some of the writes that touched it, in their order:
/// a system writes sectors whole, from memory that has all earlier writes in it.
fn scatter(bytes: &mut Vec<u8>, pending: &[(usize, Vec<u8>)], coin: &mut u64) {
    let touched = pending.iter().flat_map(|(offset, data)| {
        offset / SECTOR..=(offset + data.len().saturating_sub(1)) / SECTOR
    });
    let sectors: BTreeSet<usize> = touched.collect();
    for sector in sectors {
        let (begin, end) = (sector * SECTOR, (sector + 1) * SECTOR);
        let parts: Vec<(usize, &[u8])> = pending
            .iter()
            .filter_map(|(offset, data)| {
                let (from, to) = (begin.max(*offset), end.min(offset + data.len()));
                (from < to).then(|| (from, &data[from - offset..to - offset]))
            })
            .collect();
        *coin ^= *coin << 13;
        *coin ^= *coin >> 7;
        *coin ^= *coin << 17;
        let reached = usize::try_from(*coin >> 8).unwrap_or(0) % (parts.len() + 1);
        for (from, data) in &parts[..reached] {
            put(bytes, *from, data);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    content: Arc<Mutex<Content>>,
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.content.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let found =
            content.now.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut content = self.content.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        put(&mut content.now, start, bytes);
        content.pending.push((start, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        {
            let mut inner = self.disk.0.lock().unwrap();
            inner.syncs += 1;
            if let Some(left) = &mut inner.syncs_left {
                if *left == 0 {
                    if inner.forgets {
                        self.content.lock().unwrap().pending.clear();
                    }
                    return Err(io::Error::from_raw_os_error(libc::EIO));
                }
                *left -= 1;
            }
        }
        let mut content = self.content.lock().unwrap();
        let Content { now, durable, pending } = &mut *content;
        durable.resize(now.len(), 0);
        for (offset, data) in pending.drain(..) {
            put(durable, offset, &data);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.content.lock().unwrap().now.len() as u64)
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inner = self.0.lock().unwrap();
        Ok(inner
            .names
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect())
    }

    fn create(&self, path: &Path, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.0.lock().unwrap();
        if let Some(left) = &mut inner.space_left {
            *left =
                left.checked_sub(len).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))?;
        }
        let content = Arc::new(Mutex::new(Content {
            now: vec![0; usize::try_from(len).unwrap()],
            ..Content::default()
        }));
        inner.names.insert(path.to_path_buf(), content.clone());
        Ok(Arc::new(SimFile { disk: self.clone(), content }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.0.lock().unwrap();
        let content = inner.names.get(path).ok_or(io::ErrorKind::NotFound)?.clone();
        Ok(Arc::new(SimFile { disk: self.clone(), content }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        let content = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.to_path_buf(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn latency(&self) -> Duration {
        self.0.lock().unwrap().latency
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        let Inner { names, durable_names, .. } = &mut *inner;
        durable_names.retain(|path, _| path.parent() != Some(dir));
        let there = names.iter().filter(|(path, _)| path.parent() == Some(dir));
        durable_names.extend(there.map(|(path, content)| (path.clone(), content.clone())));
        Ok(())
    }
}
