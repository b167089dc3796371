//! The shim's loop: children, output, requests.
//!
//! One thread, one `poll`. Nothing in it waits except for helpers, which are bounded. It ends when
//! the container did and that is written down.

mod client;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::observe::{Exit, ExitSource, State};
use crate::process::unix_ms;
use crate::shim::backend::Handle;
use crate::shim::files::{Record, write_json};
use crate::shim::group::Group;
use crate::shim::output::Output;
use crate::shim::protocol::{ExecRequest, Reply, Request};
use crate::shim::server::client::{Client, Read};
use crate::shim::youki::Stdio;
use crate::sys;

/// Connections at once; beyond it new ones are closed at once.
const MAX_CLIENTS: usize = 256;
/// How long an adopted container's status may take to appear after its end (its new parent has to
/// collect it first).
const STATUS_PATIENCE: Duration = Duration::from_millis(500);
/// How long its last processes may take to leave the cgroup.
const CGROUP_PATIENCE: Duration = Duration::from_secs(5);

/// The container's first process, as this shim sees it.
pub struct Init {
    /// Stands for exactly that process.
    pub pidfd: OwnedFd,
    /// It is our child, so its status comes from `waitpid`.
    pub ours: bool,
    /// Where it is in its life.
    pub state: State,
}

/// Everything the loop works on.
pub struct Server {
    handle: Handle,
    record: Record,
    init: Init,
    output: Output,
    listener: UnixListener,
    signals: SignalFd,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    next_group: u64,
}

/// Where the descriptors of one `poll` are.
struct Ready {
    children: bool,
    connections: bool,
    output: [bool; 2],
    init_gone: bool,
    clients: Vec<u64>,
}

impl Server {
    /// Puts the parts together.
    pub fn new(
        handle: Handle,
        record: Record,
        init: Init,
        output: Output,
        listener: UnixListener,
        signals: SignalFd,
    ) -> Self {
        Self {
            handle,
            record,
            init,
            output,
            listener,
            signals,
            clients: BTreeMap::new(),
            next_client: 0,
            next_group: 0,
        }
    }

    /// Serves until the container ended.
    pub fn serve(mut self) -> io::Result<()> {
        // A child may have ended before its signal was blocked.
        let mut ready = Ready {
            children: true,
            connections: false,
            output: [false; 2],
            init_gone: false,
            clients: Vec::new(),
        };
        loop {
            for index in 0..2 {
                if ready.output[index] {
                    self.output.pump(index)?;
                }
            }
            let mut ended = None;
            if ready.children {
                ended = self.reap();
            }
            if ready.init_gone && !self.init.ours {
                ended = Some(self.status_of_adopted());
            }
            if let Some(status) = ended {
                return self.finish(status);
            }
            if ready.connections {
                self.accept();
            }
            for key in std::mem::take(&mut ready.clients) {
                self.read_client(key);
            }
            ready = self.poll()?;
        }
    }

    fn poll(&self) -> io::Result<Ready> {
        let input = PollFlags::POLLIN;
        let [out, err] = self.output.readers();
        let mut polled = vec![
            PollFd::new(self.signals.as_fd(), input),
            PollFd::new(self.listener.as_fd(), input),
            PollFd::new(out, input),
            PollFd::new(err, input),
            PollFd::new(
                self.init.pidfd.as_fd(),
                if self.init.ours { PollFlags::empty() } else { input },
            ),
        ];
        let fixed = polled.len();
        polled.extend(self.clients.values().map(|client| PollFd::new(client.as_fd(), input)));
        loop {
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let fired = |index: usize| polled[index].revents().is_some_and(|events| !events.is_empty());
        if fired(0) {
            while matches!(self.signals.read_signal(), Ok(Some(_))) {}
        }
        Ok(Ready {
            children: fired(0),
            connections: fired(1),
            output: [fired(2), fired(3)],
            init_gone: fired(4),
            clients: self
                .clients
                .keys()
                .copied()
                .enumerate()
                .filter(|(index, _)| fired(fixed + index))
                .map(|(_, key)| key)
                .collect(),
        })
    }

    /// Collects every ended child; gives the status of the container's first process if it is one.
    fn reap(&mut self) -> Option<Status> {
        let mut ended = None;
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return ended,
                Ok(status) => status,
            };
            let (Some(pid), Some(status)) = (status.pid().map(Pid::as_raw), Status::of(status))
            else {
                continue;
            };
            let pid = pid.unsigned_abs();
            if pid == self.record.init.pid && self.init.ours {
                ended = Some(status);
            }
            let waiting = self
                .clients
                .iter()
                .find(|(_, client)| client.exec_pid() == Some(pid))
                .map(|(key, _)| *key);
            if let Some(key) = waiting {
                // Before anybody hears of the end: then nothing of it is left.
                if let Some(client) = self.clients.get_mut(&key) {
                    client.ended();
                }
                self.answer(key, &Reply::ExecExited { code: status.code, signal: status.signal });
                self.clients.remove(&key);
            }
        }
    }

    /// The kernel may still tell a status that another process collected.
    fn status_of_adopted(&self) -> Status {
        let deadline = Instant::now() + STATUS_PATIENCE;
        loop {
            if let Some(raw) = sys::pidfd_exit_status(self.init.pidfd.as_fd()) {
                let pid = Pid::from_raw(i32::try_from(self.record.init.pid).unwrap_or(i32::MAX));
                if let Some(status) = WaitStatus::from_raw(pid, raw).ok().and_then(Status::of) {
                    return status;
                }
            }
            if Instant::now() > deadline {
                return Status { code: None, signal: None };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The container ended: log, exit record, answers, cgroup, in this order.
    fn finish(mut self, status: Status) -> io::Result<()> {
        let at_unix_ms = unix_ms();
        self.output.finish()?;
        let cgroup = self.handle.hierarchies.at(&self.handle.cgroup);
        let source = if self.init.ours { ExitSource::Observed } else { ExitSource::ShimLost };
        let exit = Exit {
            code: status.code,
            signal: status.signal,
            oom: cgroup.oom_kills() > 0,
            at_unix_ms,
            source,
        };
        if let Err(error) = write_json(&self.handle.folder.exit(), &exit, true) {
            // Whoever listens now shall know all the same; a later reader finds it unknown.
            let _ = writeln!(io::stderr(), "the exit record cannot be written: {error}");
        }
        self.init.state = State::Exited(exit);
        let keys: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| client.is_waiting())
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.answer(key, &Reply::Exited(exit));
        }
        // Whoever did not wait reads the exit from the file once we are gone.
        self.clients.clear();
        cgroup.remove(CGROUP_PATIENCE)
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < MAX_CLIENTS && stream.set_nonblocking(true).is_ok() {
                self.clients.insert(self.next_client, Client::new(stream));
                self.next_client += 1;
            }
        }
    }

    fn read_client(&mut self, key: u64) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        match client.read() {
            Read::Nothing => {}
            Read::Closed => {
                self.clients.remove(&key);
            }
            Read::Request(request, fds) => self.handle_request(key, request, fds),
        }
    }

    fn handle_request(&mut self, key: u64, request: Request, fds: Vec<OwnedFd>) {
        let reply = match request {
            Request::Start => self.start(),
            Request::Kill(signal) => {
                match sys::pidfd_send_signal(self.init.pidfd.as_fd(), signal.number()) {
                    Ok(()) => Reply::Done,
                    // It just ended; its exit is about to be told.
                    Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Reply::Done,
                    Err(error) => Reply::Failed(format!("send {signal}: {error}")),
                }
            }
            Request::State => Reply::State {
                state: self.init.state,
                pid: self.record.init.pid,
                created_unix_ms: self.record.created_unix_ms,
                started_unix_ms: self.record.started_unix_ms,
            },
            Request::Wait => {
                if let Some(client) = self.clients.get_mut(&key) {
                    client.wait();
                }
                return;
            }
            Request::Exec(request) => self.exec(key, &request, fds),
        };
        self.answer(key, &reply);
    }

    fn start(&mut self) -> Reply {
        if self.init.state == State::Created {
            if let Err(reason) = self.handle.start() {
                return Reply::Failed(reason);
            }
            self.init.state = State::Running;
            self.record.started_unix_ms = Some(unix_ms());
            if let Err(error) = write_json(&self.handle.folder.state(), &self.record, false) {
                return Reply::Failed(format!("write the state: {error}"));
            }
        }
        Reply::Pid {
            pid: self.record.init.pid,
            at_unix_ms: self.record.started_unix_ms.unwrap_or_default(),
        }
    }

    fn exec(&mut self, key: u64, request: &ExecRequest, fds: Vec<OwnedFd>) -> Reply {
        if self.init.state != State::Running {
            return Reply::WrongState(self.init.state);
        }
        let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(fds) else {
            return Reply::Failed("an exec needs three descriptors".to_owned());
        };
        let group = match self.group(request.whole) {
            Ok(group) => group,
            Err(error) => return Reply::Failed(format!("make the cgroup of the exec: {error}")),
        };
        let stdio = Stdio { stdin, stdout, stderr };
        let started = self.handle.exec(self.record.init.pid, request, stdio, group.as_ref());
        let pid = match started {
            Ok(pid) => pid,
            Err(reason) => return Reply::Failed(reason),
        };
        // Not collected yet, so the number still stands for it even if it already ended.
        let pidfd = match sys::pidfd_open(pid) {
            Ok(pidfd) => pidfd,
            Err(error) => return Reply::Failed(format!("watch the process: {error}")),
        };
        if let Some(client) = self.clients.get_mut(&key) {
            client.run(pid, pidfd, group);
        }
        Reply::Pid { pid, at_unix_ms: unix_ms() }
    }

    fn group(&mut self, whole: bool) -> io::Result<Option<Group>> {
        if !whole {
            return Ok(None);
        }
        self.next_group += 1;
        let cgroup = self.handle.hierarchies.at(&self.handle.cgroup);
        Group::make(&cgroup, self.next_group).map(Some)
    }

    fn answer(&mut self, key: u64, reply: &Reply) {
        if let Some(client) = self.clients.get_mut(&key)
            && client.write(reply).is_err()
        {
            self.clients.remove(&key);
        }
    }
}

/// How a process ended, as far as is known.
#[derive(Clone, Copy)]
struct Status {
    code: Option<u8>,
    signal: Option<u8>,
}

impl Status {
    fn of(status: WaitStatus) -> Option<Self> {
        match status {
            WaitStatus::Exited(_, code) => Some(Self {
                code: Some(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
                signal: None,
            }),
            WaitStatus::Signaled(_, signal, _) => {
                Some(Self { code: None, signal: u8::try_from(signal as i32).ok() })
            }
            _ => None,
        }
    }
}
