//! The container's root: overlay of the image's layers, mounted in the shim's own mount namespace.
//!
//! Because no other process sees that mount, it is gone when the shim and the container are, however
//! they ended: there is no such thing as a stale one.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::shim::files::Folder;

/// Layers beyond this do not fit the kernel's one page of options even with short names.
const MAX_LAYERS: usize = 500;

/// Gives this process a mount namespace of its own that still follows changes of the host's.
pub fn enter_own_mount_namespace() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    Ok(())
}

/// Mounts the root and gives its path.
///
/// The process changes its working folder to the container's for it: relative names are short,
/// and the kernel takes at most one page of options.
pub fn mount_overlay(folder: &Folder, layers: &[PathBuf]) -> io::Result<PathBuf> {
    if layers.len() > MAX_LAYERS {
        return Err(io::Error::other(format!(
            "an image of {} layers; at most {MAX_LAYERS} fit",
            layers.len()
        )));
    }
    for name in ["m", "up", "wk", "l"] {
        fs::create_dir(folder.join(name))?;
    }
    // The upper folder's mode becomes the mode of `/` in the container.
    fs::set_permissions(folder.join("up"), fs::Permissions::from_mode(0o755))?;
    let mut lower = Vec::with_capacity(layers.len());
    for (index, layer) in layers.iter().enumerate() {
        if !layer.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("image layer {} is not a folder", layer.display()),
            ));
        }
        symlink(layer, folder.join(&format!("l/{index}")))?;
        lower.push(format!("l/{index}"));
    }
    // Overlay wants the highest first.
    lower.reverse();
    nix::unistd::chdir(folder.path())?;
    let options = format!("lowerdir={},upperdir=up,workdir=wk,xino=off", lower.join(":"));
    let mounted =
        mount(Some("overlay"), "m", Some("overlay"), MsFlags::empty(), Some(options.as_str()));
    nix::unistd::chdir(Path::new("/"))?;
    mounted?;
    Ok(folder.join("m"))
}
