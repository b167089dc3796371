//! One blob from the registry into the store: resumed, bounded, verified.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use sha2::{Digest as _, Sha256};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::registry::{Answer, Registry};
use crate::digest::Digest;
use crate::error::{Error, IoContext, Result};
use crate::manifest::Descriptor;
use crate::store::layout::{Layout, sync_dir};

const ATTEMPTS_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);
const READ_BYTES: usize = 128 << 10;

/// What lies in `partial/` for a blob, and the digest so far.
struct Partial {
    file: File,
    path: PathBuf,
    hash: Sha256,
    bytes: u64,
}

/// Downloads a blob that is not here. `count` hears of every byte, negative
/// when some have to be loaded again.
pub(super) async fn blob(
    layout: &Layout,
    registry: &Registry,
    descriptor: &Descriptor,
    count: &(dyn Fn(i64) + Sync),
) -> Result<()> {
    let path = layout.partial(&descriptor.digest);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut partial = Partial::open(&path).await?;
        let resumed = partial.bytes > 0;
        count(signed(partial.bytes));
        let result = fetch(registry, descriptor, &mut partial, count).await;
        let result = match result {
            Ok(()) => partial.finish(layout, descriptor).await,
            Err(e) => Err(e),
        };
        let Err(error) = result else { return Ok(()) };
        let ours_was_bad = resumed && matches!(error, Error::DigestMismatch { .. });
        if (error.is_permanent() && !ours_was_bad) || attempt == ATTEMPTS_MAX {
            return Err(error);
        }
        count(-signed(partial.bytes));
        tracing::debug!(digest = %descriptor.digest, attempt, %error, "download goes on");
        tokio::time::sleep(PAUSE * attempt).await;
    }
}

async fn fetch(
    registry: &Registry,
    descriptor: &Descriptor,
    partial: &mut Partial,
    count: &(dyn Fn(i64) + Sync),
) -> Result<()> {
    if partial.bytes >= descriptor.size && partial.bytes > 0 {
        return Ok(()); // whole, or wrong: the digest tells
    }
    let Answer { mut stream, from } = registry.blob(descriptor, partial.bytes).await?;
    if from != partial.bytes {
        count(-signed(partial.bytes));
        partial.restart().await?;
    }
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|e| registry.blob_error(descriptor, e))?;
        partial.bytes += chunk.len() as u64;
        if partial.bytes > descriptor.size {
            partial.discard().await?;
            return Err(Error::DigestMismatch {
                what: registry.name_blob(descriptor),
                expected: format!("{} of {} bytes", descriptor.digest, descriptor.size),
                actual: "a longer content".to_owned(),
            });
        }
        partial.hash.update(&chunk);
        let path = &partial.path;
        partial.file.write_all(&chunk).await.at("writing", path)?;
        count(signed(chunk.len() as u64));
    }
    Ok(())
}

impl Partial {
    async fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).read(true).write(true).truncate(false);
        let mut file = options.open(path).await.at("opening", path)?;
        let mut hash = Sha256::new();
        let mut bytes = 0;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let n = file.read(&mut buffer).await.at("reading", path)?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
            bytes += n as u64;
        }
        Ok(Self { file, path: path.to_path_buf(), hash, bytes })
    }

    async fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).await.at("truncating", &self.path)?;
        self.file.rewind().await.at("truncating", &self.path)?;
        self.hash = Sha256::new();
        self.bytes = 0;
        Ok(())
    }

    async fn discard(&self) -> Result<()> {
        tokio::fs::remove_file(&self.path).await.at("removing", &self.path)
    }

    /// Verifies the whole and gives it its final name.
    async fn finish(&mut self, layout: &Layout, descriptor: &Descriptor) -> Result<()> {
        let path = &self.path;
        self.file.flush().await.at("writing", path)?;
        let actual = Digest::from_hash(self.hash.clone());
        if actual != descriptor.digest {
            self.discard().await?;
            return Err(Error::DigestMismatch {
                what: format!("the downloaded blob of {} bytes", self.bytes),
                expected: descriptor.digest.to_string(),
                actual: actual.to_string(),
            });
        }
        self.file.sync_all().await.at("syncing", path)?;
        let to = layout.blob(&descriptor.digest);
        tokio::fs::rename(path, &to).await.at("renaming into place", &to)?;
        let blobs = layout.blobs();
        crate::store::blocking("syncing the store", move || sync_dir(&blobs)).await
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
