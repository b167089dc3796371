//! Removing a lab, whatever state it is in.
//!
//! It relies on names more than on the saved state, so that a lab whose `up` was killed, or whose
//! folder someone deleted, goes away completely too. Every step is fine with "not there".

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use crate::error::{Error, Result};
use crate::exec::CLIENT;
use crate::lab::Lab;
use crate::netns;

const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Removes processes, cgroups, namespaces, mounts and the folder.
pub(crate) fn remove(lab: &Lab) -> Result<()> {
    let lock =
        if lab.folder().exists() { lab.folder_ref().lock_within(LOCK_PATIENCE)? } else { None };
    let state = lab.folder_ref().load().unwrap_or_default();
    for process in state.iter().flat_map(|state| &state.forwarders) {
        process.kill()?;
    }
    for init in state.iter().flat_map(|state| &state.nodes).filter_map(|node| node.init) {
        init.kill()?;
    }
    // Also whatever the state does not know of, such as commands left running by `lab exec`.
    lab.cgroups().destroy(lab.name(), None)?;
    for name in namespaces(lab.name()) {
        netns::remove(&name)?;
    }
    unmount_below(lab.folder())?;
    match fs::remove_dir_all(lab.folder()) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file("removing", lab.folder(), source));
        }
        _ => {}
    }
    drop(lock);
    Ok(())
}

/// What is left of a lab after its removal; empty when all is well. For demo and tests.
pub(crate) fn leftovers(lab: &str, folder: &Path, cgroups: Vec<PathBuf>) -> Vec<String> {
    let mut found: Vec<String> =
        cgroups.iter().map(|path| format!("cgroup {}", path.display())).collect();
    found.extend(namespaces(lab).into_iter().map(|name| format!("network namespace {name}")));
    found.extend(mounts_below(folder).into_iter().map(|path| format!("mount {}", path.display())));
    if folder.exists() {
        found.push(format!("folder {}", folder.display()));
    }
    found
}

/// The namespaces of this lab and not of one whose name only begins alike.
fn namespaces(lab: &str) -> Vec<String> {
    let prefix = format!("{lab}-");
    let ours = |place: &str| {
        let numbered = |role: &str| {
            place
                .strip_prefix(role)
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        place == "switch" || place == CLIENT || numbered("manager-") || numbered("worker-")
    };
    let names = netns::names(&prefix);
    names.into_iter().filter(|name| name.strip_prefix(&prefix).is_some_and(ours)).collect()
}

fn unmount_below(folder: &Path) -> Result<()> {
    for point in mounts_below(folder).into_iter().rev() {
        match umount2(&point, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(errno) => return Err(Error::file("unmounting", point, errno.into())),
        }
    }
    Ok(())
}

/// Mount points at or below the folder, outer ones first.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}
