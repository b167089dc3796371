//! The mark that the managers made this one a member, in its data folder.
//!
//! Whoever brought the machine here (`init`, `join`) waits for it: a certificate alone is not
//! membership, and the token is needed until then.

use std::path::{Path, PathBuf};

use cluster_daemon::fsx;

const MODE: u32 = 0o600;

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("enrolled")
}

pub fn is_marked(data_dir: &Path) -> bool {
    path(data_dir).exists()
}

/// Makes the mark, if it is not there; durable when this returns.
pub fn mark(data_dir: &Path) -> Result<(), fsx::Error> {
    let path = path(data_dir);
    if path.exists() {
        return Ok(());
    }
    fsx::write_atomic(&path, b"this manager became a member of its cluster\n", MODE)
}
