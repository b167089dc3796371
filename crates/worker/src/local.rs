//! Requests from this machine to its worker: `cluster-worker image load|ls` beside a running one.
//!
//! The image store belongs to one process, so a second one asks the first over a socket in the data
//! folder, which only its owner can open. One JSON line in, one out.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster_daemon::chain;
use cluster_image::ImageStore;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader as AsyncBufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::data_dir::DataDir;

const REQUEST_BYTES_MAX: u64 = 16 << 10;
const ANSWER_BYTES_MAX: u64 = 16 << 20;
const CALLERS_MAX: usize = 8;
/// How long a caller may take to say what it wants.
const CALLER_PATIENCE: Duration = Duration::from_secs(5);

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Import the archive at an absolute path.
    Load(PathBuf),
    List,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// Lines for the user.
    Done(Vec<String>),
    Refused(String),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listening on {}", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("asking the worker that uses {}", dir.display())]
    Ask {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Refused(String),
}

/// Does what was asked, in whichever process owns the store.
pub async fn execute(store: &ImageStore, request: Request) -> Result<Vec<String>, Error> {
    let refused = |error: cluster_image::Error| Error::Refused(chain(&error));
    match request {
        Request::Load(path) => {
            let imported = store.import(&path).await.map_err(refused)?;
            let names = imported.into_iter().flat_map(|image| image.names);
            Ok(names.map(|name| name.to_string()).collect())
        }
        Request::List => {
            let images = store.list().await.map_err(refused)?;
            let line = |image: cluster_image::Summary| {
                let digest = image.manifest_digest.to_string();
                let short = digest.get(..19).unwrap_or(&digest);
                format!("{}\t{short}\t{} MiB", image.reference, image.size >> 20)
            };
            Ok(images.into_iter().map(line).collect())
        }
    }
}

/// The running worker's side.
pub struct Listening {
    listener: UnixListener,
    store: ImageStore,
}

impl Listening {
    /// Takes the place of whatever an earlier run left; the data folder's lock is ours.
    pub fn open(data: &DataDir, store: ImageStore) -> Result<Self, Error> {
        let path = data.socket();
        let fail = |source| Error::Listen { path: path.clone(), source };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        let (near, _held) = near(data.root()).map_err(fail)?;
        let listener = UnixListener::bind(near).map_err(fail)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
        Ok(Self { listener, store })
    }

    /// Serves for ever.
    pub async fn run(self) {
        let places = Arc::new(Semaphore::new(CALLERS_MAX));
        loop {
            // Never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let store = self.store.clone();
                    tokio::spawn(async move {
                        let _place = place;
                        if let Err(error) = answer(stream, &store).await {
                            tracing::debug!(%error, "a local request was not answered");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a local request could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn answer(mut stream: UnixStream, store: &ImageStore) -> std::io::Result<()> {
    let (reading, mut writing) = stream.split();
    let mut line = Vec::new();
    let mut reader = AsyncBufReader::new(reading.take(REQUEST_BYTES_MAX));
    tokio::time::timeout(CALLER_PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    let answer = match serde_json::from_slice(&line) {
        Ok(request) => match execute(store, request).await {
            Ok(lines) => Answer::Done(lines),
            Err(error) => Answer::Refused(chain(&error)),
        },
        Err(error) => Answer::Refused(format!("the request cannot be understood: {error}")),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    writing.write_all(&text).await
}

/// The caller's side; blocking.
pub fn ask(data: &DataDir, request: &Request) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Ask { dir: data.root().to_owned(), source };
    let talk = || -> std::io::Result<Answer> {
        let (near, _held) = near(data.root())?;
        let mut stream = BlockingStream::connect(near)?;
        let mut text = serde_json::to_vec(request)?;
        text.push(b'\n');
        stream.write_all(&text)?;
        let mut line = Vec::new();
        BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_until(b'\n', &mut line)?;
        Ok(serde_json::from_slice(&line)?)
    };
    match talk().map_err(failed)? {
        Answer::Done(lines) => Ok(lines),
        Answer::Refused(error) => Err(Error::Refused(error)),
    }
}

/// A short way to the socket: the kernel takes at most 107 bytes of path, and data folders may lie
/// deep. Valid while the returned descriptor is open.
fn near(dir: &Path) -> std::io::Result<(PathBuf, OwnedFd)> {
    let held = OwnedFd::from(File::open(dir)?);
    let path = PathBuf::from(format!("/proc/self/fd/{}/worker.sock", held.as_raw_fd()));
    Ok((path, held))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_second_process_asks_the_first_even_from_deep_folders() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let data = DataDir::new(deep);
        let store = ImageStore::open(&data.images()).unwrap();
        let listening = Listening::open(&data, store).unwrap();
        let running = tokio::spawn(listening.run());
        let asked = cluster_daemon::blocking({
            let data = data.clone();
            move || (ask(&data, &Request::List), ask(&data, &Request::Load("/no/archive".into())))
        });
        let (listed, loaded) = asked.await.unwrap();
        assert_eq!(listed.unwrap(), Vec::<String>::new());
        assert!(loaded.unwrap_err().to_string().contains("/no/archive"));
        running.abort();
    }
}
