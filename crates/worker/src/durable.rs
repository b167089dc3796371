//! Small files that are replaced in one step: a reader finds the old or the new content and
//! nothing between. Blocking.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cluster_daemon::fsx;

/// Readable by the owner only: environments hold secrets.
const MODE: u32 = 0o600;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Write(#[from] fsx::Error),
    #[error("{action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Adds action and path to an I/O error.
pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { action, path, source }
}

/// Replaces `path`; durable when this returns.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    Ok(fsx::write_atomic(path, bytes, MODE)?)
}

/// Replaces `path` so that it outlives this process, but perhaps not a power cut.
pub(crate) fn replace_unsynced(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, bytes).map_err(at("writing", &temporary))?;
    fs::rename(&temporary, path).map_err(at("replacing", path))
}

/// The version that a JSON file says it has, whatever else is in it: a newer release may have
/// written fields of other shapes.
pub(crate) fn version(json: &[u8]) -> Result<u32, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    serde_json::from_slice::<Versioned>(json).map(|file| file.version)
}

/// The content, `None` if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("reading", path)(error)),
    }
}
