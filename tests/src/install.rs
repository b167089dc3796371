//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// The folder of the built programs: the one that holds this test's own.
pub fn bin_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let deps = test.parent().expect("a folder");
    let dir = deps.parent().expect("the profile's folder").to_owned();
    for program in ["cluster-manager", "cluster-worker", "cluster-shim", "clusterctl"] {
        let path = dir.join(program);
        assert!(
            path.exists(),
            "{} is missing; build it with `cargo build --workspace --bins`",
            path.display()
        );
    }
    dir
}

/// The packed example web server.
pub fn web_archive() -> PathBuf {
    let dir = bin_dir();
    let target = dir.parent().expect("the target folder");
    let archive = target.join("images/web.tar");
    assert!(archive.exists(), "{} is missing; make it with `cargo xtask image`", archive.display());
    archive
}

/// A folder for one test's labs, on a file system that overlayfs can use.
pub fn lab_base() -> &'static Path {
    Path::new("/var/tmp/cluster-tests")
}
