//! Attributes for directories a layer has but does not describe.
//!
//! A layer may hold `tmp/x` without an entry for `tmp`. Overlayfs shows the
//! attributes of the topmost directory, so ours would hide the mode of the
//! layer that does describe it. They are copied up from there once all layers
//! of the image are here. A layer shared by images whose lower layers disagree
//! follows the image that came last.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown};

use crate::digest::Digest;
use crate::error::{Error, IoContext, Result};
use crate::store::layout::Layout;

/// `diff_ids` are an image's layers, lowest first; all of them are here.
pub(crate) fn implicit_dirs(layout: &Layout, diff_ids: &[Digest]) -> Result<()> {
    for (i, diff_id) in diff_ids.iter().enumerate().skip(1) {
        let record = layout.layer_record(diff_id)?;
        for path in &record.implicit {
            let bytes = hex::decode(path).map_err(|e| {
                let e = std::io::Error::other(e);
                Error::io("reading the layer record of", layout.layer(diff_id), e)
            })?;
            let path = PathBuf::from(OsString::from_vec(bytes));
            let lower = diff_ids[..i].iter().rev();
            let described = lower.filter_map(|id| open_dir(&layout.layer_fs(id), &path)).next();
            let ours = open_dir(&layout.layer_fs(diff_id), &path);
            if let (Some(from), Some(to)) = (described, ours) {
                copy(&from, &to).at("copying attributes to", &path)?;
            }
        }
    }
    Ok(())
}

fn open_dir(root: &Path, path: &Path) -> Option<File> {
    let root = File::open(root).ok()?;
    let how = OpenHow::new()
        .flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(&root, path, how).ok().map(File::from)
}

fn copy(from: &File, to: &File) -> std::io::Result<()> {
    let metadata = from.metadata()?;
    let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    fchown(to, Some(uid), Some(gid))?;
    fchmod(to, Mode::from_bits_truncate(metadata.mode() & 0o7777))?;
    Ok(())
}
