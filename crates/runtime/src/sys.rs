//! System calls that have no safe wrapper: forking the helper, pidfds, detached mounts.
//!
//! The only module of this crate with `unsafe`. Each function is safe to call; what it relies on is
//! said beside the block.
#![allow(unsafe_code)] // Raw system calls are this module's whole purpose.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Runs `child` in a forked process, which exits with what it returns; gives the child's pid.
///
/// The caller must be single-threaded (checked), so that no lock can be held by a thread that does
/// not exist in the child.
pub fn fork_and_run(child: impl FnOnce() -> i32) -> io::Result<i32> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("refusing to fork with {threads} threads")));
    }
    // SAFETY: single-threaded as just checked, so the child may run ordinary code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(101);
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(pid),
    }
}

/// Closes every descriptor from 3 on, except those in `keep`.
pub fn close_all_except(keep: &[RawFd]) {
    let mut keep: Vec<u32> =
        keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd >= 3).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > first {
            let last = if fd == u32::MAX { u32::MAX } else { fd - 1 };
            // SAFETY: the owners of these descriptors are copies of the parent's that the forked
            // child never uses again.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
        first = fd.saturating_add(1);
    }
}

/// A descriptor that stands for exactly this process, whatever becomes of its number.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a non-negative result is a new descriptor nobody else owns.
    unsafe {
        match libc::syscall(libc::SYS_pidfd_open, pid, 0) {
            fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd as RawFd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Sends a signal to the process behind a pidfd.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: u8) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means the defaults of kill(2).
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), i32::from(signal), no_info, 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct pidfd_info` of linux/pidfd.h, in its first published size.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// Wait status of a process that somebody else reaped, on kernels that tell (6.15 and later).
pub fn pidfd_exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const PIDFS_IOCTL: u64 = 0xff;
    const GET_INFO: u64 = 11;
    const SIZE: u64 = size_of::<PidfdInfo>() as u64;
    const REQUEST: u64 = (3 << 30) | (SIZE << 16) | (PIDFS_IOCTL << 8) | GET_INFO;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request's size field is the size of the structure the kernel may fill.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), REQUEST as libc::Ioctl, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// A read-only view of one file that no path leads to: containers that reach it through
/// `/proc/<pid>/exe` cannot write to it.
pub fn read_only_clone(path: &Path) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: u32 = 1;
    const MOUNT_ATTR_RDONLY: u64 = 1;
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32;
    // SAFETY: the path is NUL-terminated; a non-negative result is a new descriptor.
    let tree = unsafe {
        match libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c_path.as_ptr(), flags) {
            fd if fd >= 0 => OwnedFd::from_raw_fd(fd as RawFd),
            _ => return Err(io::Error::last_os_error()),
        }
    };
    let attributes: [u64; 4] = [MOUNT_ATTR_RDONLY, 0, 0, 0];
    // SAFETY: empty path with AT_EMPTY_PATH names the descriptor; the attributes are mount_attr's
    // four u64 fields, and the size says so.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if result == 0 { Ok(tree) } else { Err(io::Error::last_os_error()) }
}

/// Makes a received descriptor number an owned one.
///
/// Used only for numbers that `recvmsg` just installed in this process.
pub fn adopt_received_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: SCM_RIGHTS installed the descriptor for this process, and the message is parsed once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes `fd` the process's descriptor number `target` (0, 1 or 2).
pub fn replace_stdio(fd: impl AsFd, target: RawFd) -> io::Result<()> {
    // SAFETY: plain dup2; the standard streams are never owned by a Rust value in the shim.
    match unsafe { libc::dup2(fd.as_fd().as_raw_fd(), target) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Gives a forked child the signal state a program expects: nothing blocked, nothing ignored.
/// (Rust ignores SIGPIPE and the shim blocks SIGCHLD; both would pass on to the container.)
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: default dispositions run no code of ours; unchangeable signals just fail.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let none = nix::sys::signal::SigSet::empty();
    // Cannot fail with a valid set.
    let _ = none.thread_set_mask();
}
