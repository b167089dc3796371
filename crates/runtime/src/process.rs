//! Telling processes apart for good: a pid alone may be reused, so it goes with its start time and
//! with the boot and pid namespace in which both mean something.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::sys;

/// One process, never mistaken for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Number in our pid namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub starttime: u64,
    /// Boot and pid namespace, see [`boot_id`].
    pub boot_id: String,
}

impl ProcessId {
    /// Names a process that is alive now.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, starttime: stat(pid)?.starttime, boot_id: boot_id()? })
    }

    /// It runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot_id)
            && stat(self.pid).is_ok_and(|stat| {
                stat.starttime == self.starttime && !matches!(stat.state, b'Z' | b'X')
            })
    }

    /// A descriptor for it, `None` if it is gone. The check comes after the open, so a number
    /// reused in between is noticed.
    pub fn open(&self) -> Option<OwnedFd> {
        let pidfd = sys::pidfd_open(self.pid).ok()?;
        self.is_alive().then_some(pidfd)
    }
}

struct Stat {
    state: u8,
    starttime: u64,
}

fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses and may hold anything, so count from its end.
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/<pid>/stat");
    let after = text.iter().rposition(|byte| *byte == b')').ok_or_else(bad)?;
    let rest = std::str::from_utf8(&text[after + 1..]).map_err(|_| bad())?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next().and_then(|field| field.bytes().next()).ok_or_else(bad)?;
    let starttime = fields.nth(18).and_then(|field| field.parse().ok()).ok_or_else(bad)?;
    Ok(Stat { state, starttime })
}

/// Names this boot of the machine and the pid namespace we are in; when either changed, no
/// process we knew is left.
pub fn boot_id() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = fs::read_link("/proc/self/ns/pid")?;
    Ok(format!("{} {}", boot.trim(), namespace.display()))
}

/// Milliseconds since the epoch.
pub fn unix_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// Nanoseconds since the epoch.
pub fn unix_nanos() -> u64 {
    u64::try_from(since_epoch().as_nanos()).unwrap_or(u64::MAX)
}

fn since_epoch() -> std::time::Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
