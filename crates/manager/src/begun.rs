//! The mark that this manager's log was begun.
//!
//! A certificate without a log has two explanations: a crash broke a join off before the log was
//! made, and joining may go on; or the log was lost. A manager that lost its log has forgotten what
//! it acknowledged and for whom it voted, so it must never take part again under the same id. The
//! mark tells the two apart: it is made when the log is there, before anybody is answered.

use std::io;
use std::path::{Path, PathBuf};

use cluster_daemon::fsx;

const MODE: u32 = 0o600;

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("begun")
}

/// Whether a log was begun in this data folder.
pub fn is_marked(data_dir: &Path) -> io::Result<bool> {
    path(data_dir).try_exists()
}

/// Makes the mark, if it is not there; durable when this returns.
pub fn mark(data_dir: &Path) -> Result<(), fsx::Error> {
    let path = path(data_dir);
    if path.exists() {
        return Ok(());
    }
    fsx::write_atomic(&path, b"the log of this manager was begun\n", MODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!is_marked(folder.path()).expect("looked for"));
        mark(folder.path()).expect("made");
        mark(folder.path()).expect("made again");
        assert!(is_marked(folder.path()).expect("looked for"));
    }
}
