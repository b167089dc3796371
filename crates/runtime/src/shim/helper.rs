//! A short-lived fork for each call into libcontainer, and for whatever else should not stay in the
//! shim's memory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A setup that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer of a helper.
const MAX_ANSWER: usize = 64 << 10;

/// Runs `work` in a fork and gives its answer. The fork holds only `keep` of our descriptors.
///
/// Reads one line, never to the end of the pipe: a created container inherits the write end and
/// keeps it until its command is executed.
pub fn run<T: Serialize + DeserializeOwned>(
    keep: &[RawFd],
    work: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    let (reader, writer) =
        pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|errno| format!("make a pipe: {errno}"))?;
    let mut keep = keep.to_vec();
    keep.push(writer.as_raw_fd());
    let child = crate::sys::fork_and_run(|| answer(&keep, &writer, work))
        .map_err(|error| format!("fork: {error}"))?;
    drop(writer);
    let child = Pid::from_raw(child);
    let line = read_line(reader, child);
    if line.is_err() {
        // Either it is gone, or it is stuck and must go.
        let _ = kill(child, Signal::SIGKILL);
    }
    let _ = waitpid(child, None);
    let line = line.map_err(|error| format!("the setup process gave no answer: {error}"))?;
    serde_json::from_slice::<Result<T, String>>(&line)
        .map_err(|error| format!("the setup process answered nonsense: {error}"))?
}

fn answer<T: Serialize>(
    keep: &[RawFd],
    writer: &OwnedFd,
    work: impl FnOnce() -> Result<T, String>,
) -> i32 {
    crate::sys::reset_signals();
    crate::sys::close_all_except(keep);
    let result = work();
    let Ok(mut line) = serde_json::to_vec(&result) else { return 1 };
    line.push(b'\n');
    let written = writer.try_clone().map(File::from).and_then(|mut file| file.write_all(&line));
    i32::from(written.is_err())
}

fn read_line(reader: OwnedFd, child: Pid) -> io::Result<Vec<u8>> {
    let mut reader = File::from(reader);
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut gone = false;
    loop {
        let mut polled = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::from(if gone { 0u8 } else { 100u8 })) {
            Ok(0) if gone => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it died")),
            Ok(0) => {
                gone = matches!(waitpid(child, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive);
                if Instant::now() > deadline {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("it took longer than {PATIENCE:?}"),
                    ));
                }
            }
            Ok(_) => {
                let mut chunk = [0; 4096];
                let length = reader.read(&mut chunk)?;
                line.extend_from_slice(&chunk[..length]);
                if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                    line.truncate(end);
                    return Ok(line);
                }
                if length == 0 || line.len() > MAX_ANSWER {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "it ended within its answer",
                    ));
                }
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
