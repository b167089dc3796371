//! The state folder and its file system. Tried in a scratch folder beside it, or in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use tempfile::TempDir;

use crate::facts::StateFolder;

pub(super) fn state_folder(path: &Path) -> StateFolder {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let existing = path.ancestors().find(|folder| folder.is_dir());
    let existing = existing.map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let (flags, free_bytes) = match statvfs(&existing) {
        Ok(found) => {
            (found.flags(), found.blocks_available().saturating_mul(found.fragment_size()))
        }
        Err(_) => (FsFlags::empty(), 0),
    };
    StateFolder {
        read_only: flags.contains(FsFlags::ST_RDONLY),
        no_exec: flags.contains(FsFlags::ST_NOEXEC),
        free_bytes,
        writable: scratch(&existing).map(drop).map_err(|error| error.to_string()),
        path,
        existing,
    }
}

fn scratch(folder: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new().prefix(".cluster-preflight-").tempdir_in(folder)
}

/// An overlay mount in that file system, in a mount namespace that ends with the attempt; and
/// extended attributes.
pub(super) fn try_layers(existing: &Path) -> (Result<(), String>, Result<(), String>) {
    let scratch = match scratch(existing) {
        Ok(scratch) => scratch,
        Err(error) => return (Err(error.to_string()), Err(error.to_string())),
    };
    let xattr = xattr::set(scratch.path(), "trusted.cluster.probe", b"1");
    let folder = scratch.path().to_owned();
    let tried = std::thread::Builder::new()
        .name("overlay".to_owned())
        .spawn(move || overlay(&folder))
        .and_then(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        });
    let told = |result: io::Result<()>| result.map_err(|error| error.to_string());
    (told(tried), told(xattr))
}

fn overlay(folder: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let part = |name: &str| folder.join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(part(name))?;
    }
    fs::write(part("lower").join("below"), b"1")?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={},xino=off",
        part("lower").display(),
        part("upper").display(),
        part("work").display()
    );
    let merged = part("merged");
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    // Copying up and hiding what is below is what containers do.
    let used = fs::write(merged.join("below"), b"2")
        .and_then(|()| fs::remove_file(merged.join("below")))
        .and_then(|()| fs::write(merged.join("above"), b"3"));
    umount2(&merged, MntFlags::MNT_DETACH)?;
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_judged_by_the_nearest_that_exists() {
        let folder = tempfile::tempdir().unwrap();
        let found = state_folder(&folder.path().join("a/b"));
        assert_eq!(found.existing, folder.path());
        assert!(found.free_bytes > 0 && !found.read_only);
        assert_eq!(found.writable, Ok(()));
        let none = state_folder(Path::new("/proc/cluster"));
        assert!(none.writable.is_err(), "{none:?}");
    }

    #[test]
    fn layers_are_tried_and_leave_nothing() {
        // Overlays do not go over overlays: not in every folder for temporary files.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let (overlay, xattr) = try_layers(folder.path());
        assert_eq!((overlay, xattr), (Ok(()), Ok(())));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let (overlay, xattr) = try_layers(Path::new("/proc"));
        assert!(overlay.is_err() && xattr.is_err());
    }
}
