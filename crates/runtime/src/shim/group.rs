//! A cgroup of its own for one exec and all of its descendants, so that they can be ended together
//! whatever they did to sessions, process groups and parents.
//!
//! Made below the container's, in one hierarchy only: it limits nothing, it only tells who belongs.
//! The process moves itself there before its command is executed, so no descendant can be outside.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::sys;

/// Names of these groups begin so.
pub const PREFIX: &str = "exec-";
/// Killed processes leave within microseconds; together this bounds how long the shim waits.
const ROUNDS: u32 = 100;
const ROUND: Duration = Duration::from_millis(1);

/// Dropping it kills whoever is in it and removes it.
pub struct Group {
    folder: PathBuf,
    /// Of its version 1 hierarchy; none in version 2.
    controller: Option<&'static str>,
}

impl Group {
    /// Makes an empty one.
    pub fn make(container: &Cgroup, number: u64) -> io::Result<Self> {
        let (controller, parent) = container.members().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "the container's cgroup is not there")
        })?;
        let folder = parent.join(format!("{PREFIX}{number}"));
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Self { folder, controller }),
        }
    }

    /// Groups that an earlier shim of this container left.
    pub fn left_in(container: &Cgroup) -> Vec<Self> {
        let Some((controller, parent)) = container.members() else { return Vec::new() };
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
            .map(|entry| Self { folder: entry.path(), controller })
            .collect()
    }

    /// As runc wants it: relative to the container's, in the hierarchies that have it.
    pub fn name(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match &self.controller {
            Some(controller) => format!("{controller}:{name}"),
            None => name,
        }
    }

    /// Whoever writes `0` there moves in.
    pub fn door(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.folder.join("cgroup.procs"))
    }

    fn members(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..ROUNDS {
            let members = self.members();
            for pid in &members {
                // A fork may be faster than one look; the next round finds its child.
                if let Ok(pidfd) = sys::pidfd_open(*pid) {
                    let _ = sys::pidfd_send_signal(pidfd.as_fd(), 9);
                }
            }
            // What stays busy is removed with the container.
            if members.is_empty() && fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(ROUND);
        }
    }
}
