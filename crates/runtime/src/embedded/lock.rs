//! The lock of a container's folder, from the runtime's side: who keeps the container.
//!
//! A record lock belongs to a process and is not inherited, so it tells exactly whether the shim
//! lives; nothing it forked can hold it in its place.

use std::fs::{File, OpenOptions};
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::shim::files::Folder;

/// Outcome of trying to take the lock.
pub enum Lock {
    /// It is ours until the file is closed.
    Taken(File),
    /// A shim has it; 0 if its number means nothing here.
    Held(u32),
    /// There is no folder.
    Absent,
}

/// Takes the lock if nobody has it.
pub fn take_lock(folder: &Folder) -> io::Result<Lock> {
    // Made if need be: a late shim must meet it.
    let Some(file) = open(folder, true)? else { return Ok(Lock::Absent) };
    match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
        Ok(_) => Ok(Lock::Taken(file)),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(Lock::Held(holder_of(&file)?.unwrap_or(0))),
        Err(errno) => Err(errno.into()),
    }
}

/// Who holds the lock of a container's folder.
pub fn lock_holder(folder: &Folder) -> io::Result<Option<u32>> {
    open(folder, false)?.map_or(Ok(None), |file| holder_of(&file))
}

fn holder_of(file: &File) -> io::Result<Option<u32>> {
    let mut asked = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut asked))?;
    let free = i32::from(asked.l_type) == libc::F_UNLCK;
    Ok(if free { None } else { Some(u32::try_from(asked.l_pid).unwrap_or(0)) })
}

fn open(folder: &Folder, create: bool) -> io::Result<Option<File>> {
    match OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .open(folder.lock())
    {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
