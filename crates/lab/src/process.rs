//! Processes, named so that a reused pid is never mistaken for the one we started.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A pid with its start time (clock ticks since boot); the pair is unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub pid: i32,
    pub started: u64,
}

impl Identity {
    /// The process that has `pid` now; `None` when there is none, or only its corpse.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may hold anything, so fields count from the last ')'.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Self { pid, started })
    }

    pub fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// SIGKILL; a process that is gone already is fine.
    pub fn kill(self) -> Result<()> {
        self.signal(Signal::SIGKILL)
    }

    /// Sends a signal; a process that is gone already is fine.
    pub fn signal(self, signal: Signal) -> Result<()> {
        if !self.alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(errno) => Err(Error::system("signalling", format!("process {}", self.pid), errno)),
        }
    }
}

/// One process of a node, as the machine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// The kernel's name of it, at most 15 characters.
    pub name: String,
    pub argv: Vec<String>,
    /// Its cgroup below the node's: `agent`, or that of a container.
    pub cgroup: String,
}

impl Process {
    pub(crate) fn read(pid: i32, cgroup: &str) -> Option<Self> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let argv = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(Self {
            pid,
            name: name.trim_end().to_owned(),
            argv: argv
                .split(|byte| *byte == 0)
                .filter(|word| !word.is_empty())
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
            cgroup: cgroup.to_owned(),
        })
    }
}

/// The pid that `pid` has in its innermost PID namespace.
pub(crate) fn innermost_pid(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

/// Asks `condition` every few milliseconds until it yields a value; `None` when time is up.
pub(crate) fn wait_for<T>(within: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Turns an I/O result into `None` where the object is gone, which for processes and cgroups is
/// a normal end and no error.
pub(crate) fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_dead_process_is_not_alive_and_killing_it_again_is_fine() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(identity.alive());
        identity.kill().unwrap();
        // Not reaped yet: a zombie does not count as alive.
        assert!(wait_for(Duration::from_secs(5), || (!identity.alive()).then_some(())).is_some());
        child.wait().unwrap();
        identity.kill().unwrap();
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let own = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let earlier = Identity { started: own.started - 1, ..own };
        assert!(own.alive());
        assert!(!earlier.alive());
        earlier.kill().unwrap();
    }
}
