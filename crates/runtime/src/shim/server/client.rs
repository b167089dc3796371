//! One connection to the shim.

use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::shim::group::Group;
use crate::shim::protocol::{MAX_LINE, Reply, Request};
use crate::sys;

/// Descriptors a request may carry.
const MAX_FDS: usize = 3;

/// A connection, its half-read request, and what it waits for.
pub struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
    fds: Vec<OwnedFd>,
    role: Role,
}

enum Role {
    Asking,
    Waiting,
    Running { pid: u32, pidfd: OwnedFd, group: Option<Group> },
}

/// Outcome of reading.
pub enum Read {
    /// No whole request yet.
    Nothing,
    /// The other side is gone, or made no sense.
    Closed,
    /// A request and the descriptors that came with it.
    Request(Request, Vec<OwnedFd>),
}

impl Client {
    /// Takes over an accepted, non-blocking connection.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new(), fds: Vec::new(), role: Role::Asking }
    }

    /// For `poll`.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// It asked for the exit.
    pub fn is_waiting(&self) -> bool {
        matches!(self.role, Role::Waiting)
    }

    /// It runs this process.
    pub fn exec_pid(&self) -> Option<u32> {
        match self.role {
            Role::Running { pid, .. } => Some(pid),
            Role::Asking | Role::Waiting => None,
        }
    }

    /// From now on it waits for the exit.
    pub fn wait(&mut self) {
        self.role = Role::Waiting;
    }

    /// From now on it runs this process.
    pub fn run(&mut self, pid: u32, pidfd: OwnedFd, group: Option<Group>) {
        self.role = Role::Running { pid, pidfd, group };
    }

    /// Its process has ended: what that left behind is ended too, if so asked.
    pub fn ended(&mut self) {
        if let Role::Running { group, .. } = &mut self.role {
            *group = None;
        }
    }

    /// Reads what there is.
    pub fn read(&mut self) -> Read {
        let mut chunk = [0; 4096];
        let received = {
            let mut space = cmsg_space!([std::os::fd::RawFd; MAX_FDS]);
            let mut parts = [IoSliceMut::new(&mut chunk)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
            match recvmsg::<()>(self.stream.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Ok(message) => {
                    for control in message.cmsgs().into_iter().flatten() {
                        if let ControlMessageOwned::ScmRights(fds) = control {
                            self.fds.extend(fds.into_iter().map(sys::adopt_received_fd));
                        }
                    }
                    message.bytes
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return Read::Nothing,
                Err(_) => return Read::Closed,
            }
        };
        if received == 0 {
            return Read::Closed;
        }
        self.buffer.extend_from_slice(&chunk[..received]);
        if self.buffer.len() > MAX_LINE || self.fds.len() > MAX_FDS {
            return Read::Closed;
        }
        let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
            return Read::Nothing;
        };
        let request = serde_json::from_slice(&self.buffer[..end]);
        // One request at a time; memory of a large one is given back.
        self.buffer = Vec::new();
        match request {
            Ok(request) => Read::Request(request, std::mem::take(&mut self.fds)),
            Err(_) => Read::Closed,
        }
    }

    /// Sends one reply. Replies are far smaller than a socket's buffer, so a full one means that
    /// the other side does not read, and it is given up.
    pub fn write(&mut self, reply: &Reply) -> io::Result<()> {
        let mut line = serde_json::to_vec(reply).map_err(io::Error::other)?;
        line.push(b'\n');
        self.stream.write_all(&line)
    }
}

impl Drop for Client {
    /// An exec belongs to its connection.
    fn drop(&mut self) {
        if let Role::Running { pidfd, .. } = &self.role {
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), 9);
        }
    }
}
