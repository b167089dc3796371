//! Small files that must survive a power cut.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub struct Error {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Error {
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// Replaces `path` by `bytes` in one step: after a crash there is the old content or the new, and
/// once this returns, the new. `mode` is the file's permissions, whatever the umask.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let fail = |doing, source| Error { doing, path: path.to_owned(), source };
    let temporary =
        temporary_beside(path).map_err(|source| fail("naming a file beside", source))?;
    let written = write_new(&temporary, bytes, mode)
        .map_err(|source| fail("writing the new content of", source))
        .and_then(|()| {
            fs::rename(&temporary, path).map_err(|source| fail("moving the new content to", source))
        });
    if let Err(error) = written {
        // Best effort: the failure to report is the first one.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_dir(dir_of(path))
}

/// Makes the names in `dir` durable: renames, new files, removals.
pub fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| Error {
        doing: "syncing the directory",
        path: dir.to_owned(),
        source,
    })
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // Private until it has the mode that was asked for.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    // Random too: a file left by a crashed process with this pid must not be in the way.
    let random: u32 = rand::random();
    temporary.push(format!(".{}-{count}-{random:08x}.tmp", std::process::id()));
    Ok(dir_of(path).join(temporary))
}

fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn replaces_content_and_mode_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write_atomic(&path, b"one", 0o644).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_names_the_file_and_keeps_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no/state");
        let error = write_atomic(&missing, b"x", 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("no/state"), "{error}");

        // A directory in the way makes the last step fail; the temporary file must go.
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("inside"), b"kept").unwrap();
        write_atomic(&taken, b"x", 0o600).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::read(taken.join("inside")).unwrap(), b"kept");
    }
}
