//! Folders for targets whose parsers read files: in memory where the machine allows it.

use std::path::Path;

use tempfile::TempDir;

/// A fresh folder, gone with the value.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for the input")
}
