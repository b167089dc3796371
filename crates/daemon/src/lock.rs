//! One process per data directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

const FILE_NAME: &str = "LOCK";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("another process (pid {pid}) is using {}", dir.display())]
    InUse { dir: PathBuf, pid: String },
    #[error("creating the data directory {}", dir.display())]
    Create {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("locking the data directory {}", dir.display())]
    Lock {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Holds `DIR/LOCK` until dropped; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub struct DataDirLock {
    dir: PathBuf,
    _file: Flock<File>,
}

impl DataDirLock {
    /// Creates `dir` (private to its owner) where it is missing and takes its lock, at once or not
    /// at all.
    pub fn acquire(dir: &Path) -> Result<Self, Error> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| Error::Create { dir: dir.to_owned(), source })?;
        let failed = |source| Error::Lock { dir: dir.to_owned(), source };
        // Not truncated before it is ours: the pid in it is the holder's.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join(FILE_NAME))
            .map_err(failed)?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, Errno::EWOULDBLOCK)) => {
                return Err(Error::InUse { dir: dir.to_owned(), pid: holder(file) });
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        write_pid(&mut file).map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), _file: file })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// The pid in the file; the holder may be between locking it and writing it.
fn holder(file: File) -> String {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    match text.trim() {
        pid if read.is_ok() && pid.parse::<u32>().is_ok() => pid.to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_it() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        let held = DataDirLock::acquire(&dir).unwrap();
        assert_eq!(held.dir(), dir);
        let error = DataDirLock::acquire(&dir).unwrap_err();
        let expected =
            format!("another process (pid {}) is using {}", std::process::id(), dir.display());
        assert_eq!(error.to_string(), expected);
        drop(held);
        DataDirLock::acquire(&dir).unwrap();
    }

    #[test]
    fn a_file_left_by_a_dead_process_does_not_lock() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), "999999999 and some older text\n").unwrap();
        let _held = DataDirLock::acquire(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, b"").unwrap();
        let error = DataDirLock::acquire(&path).unwrap_err();
        assert!(matches!(error, Error::Create { .. }), "{error:?}");
        assert!(error.to_string().contains("file"), "{error}");
    }
}
