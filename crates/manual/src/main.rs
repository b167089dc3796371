//! `cluster-manual FOLDER`: writes manual pages, completions and files of settings; see the library.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("name the folder to write to")?;
    cluster_manual::write(&PathBuf::from(folder))
}
