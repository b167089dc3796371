//! Sending a child into namespaces: what has to happen between fork and exec.
//!
//! Only raw system calls run there (setns, unshare, mount, write): the child of a process with
//! threads may neither allocate nor lock. Everything they need is opened or built before.
//! `ip netns exec` is never used: it remounts sysfs, which hides the cgroup tree.
#![allow(unsafe_code)] // Command::pre_exec is unsafe; there is no other way to setns a child.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use crate::error::{Error, Result};

/// What a child enters before it becomes its program, in this order.
pub(crate) struct Entry {
    new_session: bool,
    cgroup: Option<OwnedFd>,
    join: Vec<(OwnedFd, CloneFlags)>,
    leave: CloneFlags,
    /// Source file and the file it is laid over; asks for a mount namespace of its own.
    cover: Option<(CString, CString)>,
}

impl Default for Entry {
    fn default() -> Self {
        let leave = CloneFlags::empty();
        Self { new_session: false, cgroup: None, join: Vec::new(), leave, cover: None }
    }
}

impl Entry {
    /// Out of the terminal's session, so that Ctrl-C and hang-up do not reach the child.
    pub fn new_session(mut self) -> Self {
        self.new_session = true;
        self
    }

    /// Joins the cgroup whose folder this is.
    pub fn cgroup(mut self, folder: &Path) -> Result<Self> {
        let path = folder.join("cgroup.procs");
        let file = File::options().write(true).open(&path);
        self.cgroup = Some(file.map_err(|source| Error::file("opening", path, source))?.into());
        Ok(self)
    }

    /// Joins the namespace that this file names.
    pub fn join(mut self, file: &Path, kind: CloneFlags) -> Result<Self> {
        let fd =
            File::open(file).map_err(|source| Error::file("opening namespace", file, source))?;
        self.join.push((fd.into(), kind));
        Ok(self)
    }

    /// Gets fresh namespaces of these kinds.
    pub fn leave(mut self, kinds: CloneFlags) -> Self {
        self.leave |= kinds;
        self
    }

    /// Sees `source` in place of `target`, alone.
    pub fn cover(mut self, source: &Path, target: &Path) -> Result<Self> {
        self.cover = Some((c_path(source)?, c_path(target)?));
        self.leave |= CloneFlags::CLONE_NEWNS;
        Ok(self)
    }

    /// Makes `command` do all this in its child.
    pub fn apply(self, command: &mut Command) {
        // SAFETY: `run` makes system calls on data prepared before the fork and nothing else; it
        // neither allocates nor takes locks, on the error path either.
        unsafe { command.pre_exec(move || self.run()) };
    }

    fn run(&self) -> io::Result<()> {
        // What the caller blocks is the caller's business.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        if self.new_session {
            nix::unistd::setsid()?;
        }
        if let Some(fd) = &self.cgroup {
            nix::unistd::write(fd, b"0")?;
        }
        for (fd, kind) in &self.join {
            setns(fd, *kind)?;
        }
        if !self.leave.is_empty() {
            unshare(self.leave)?;
        }
        if let Some((source, target)) = &self.cover {
            let none = None::<&std::ffi::CStr>;
            mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
            mount(Some(source.as_c_str()), target.as_c_str(), none, MsFlags::MS_BIND, none)?;
        }
        Ok(())
    }
}

/// Lets the child start with no signal blocked, whatever we block ourselves.
pub(crate) fn unblock_signals(command: &mut Command) {
    // SAFETY: one system call on a value on the stack.
    unsafe {
        command.pre_exec(|| {
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
            Ok(())
        })
    };
}

pub(crate) fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|error| {
        Error::file("using", path, io::Error::new(io::ErrorKind::InvalidInput, error))
    })
}
