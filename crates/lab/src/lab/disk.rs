//! Disks that fill up: in a lab built with [`crate::LabOptions::disk`] each node's data folder is
//! a file system of its own, whose size can be changed while it is in use.

use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::statvfs;

use super::Lab;
use crate::error::{Error, Result};

const PAGE: u64 = 4096;
/// The kernel refuses a size below what is in use, which may grow while we ask.
const TRIES: u32 = 20;

impl Lab {
    /// Whether disks of this lab can be filled.
    pub fn has_bounded_disks(&self) -> Result<bool> {
        Ok(self.load()?.disk.is_some())
    }

    /// Leaves the node's data folder no free byte: writes that need more fail with ENOSPC.
    pub fn fill_disk(&self, node: &str) -> Result<()> {
        self.bounded(node)?;
        let mut last = None;
        for _ in 0..TRIES {
            match self.resize(node, self.disk_used(node)?.max(PAGE)) {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        last.map_or(Ok(()), Err)
    }

    /// Undoes [`Lab::fill_disk`].
    pub fn free_disk(&self, node: &str) -> Result<()> {
        let size = self.bounded(node)?;
        self.resize(node, size)
    }

    fn bounded(&self, node: &str) -> Result<u64> {
        let state = self.load()?;
        state.node(node)?;
        state.disk.ok_or_else(|| Error::BadOption {
            what: "disk of",
            value: node.to_owned(),
            fix: "this lab's disks have no bound; give `lab up` one with --disk",
        })
    }

    fn disk_used(&self, node: &str) -> Result<u64> {
        let path = self.data_path(node);
        let disk = statvfs(&path).map_err(|errno| Error::file("measuring", &path, errno.into()))?;
        Ok((disk.blocks() - disk.blocks_free()) * disk.fragment_size())
    }

    fn resize(&self, node: &str, bytes: u64) -> Result<()> {
        let path = self.data_path(node);
        let none = None::<&str>;
        let options = format!("size={bytes}");
        mount(none, &path, none, MsFlags::MS_REMOUNT, Some(options.as_str()))
            .map_err(|errno| Error::file("resizing", path, errno.into()))
    }
}
