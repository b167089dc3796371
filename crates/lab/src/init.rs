//! The first process of a node, in two steps, and the view of the machine that it prepares.
//!
//! *Flow.* The lab starts the helper with `__node-init SPEC` inside the node's network namespace
//! and cgroup, with fresh mount, UTS and PID namespaces. That process cannot itself be in the new
//! PID namespace, so it starts itself once more (`--first`), tells the lab the pid, and ends.
//! The second one is process 1 of the node: it lays its own /proc, /sys, /run and hosts file over
//! the machine's, starts the agent, says `ready`, and from then on only reaps and waits for
//! `start` on a FIFO.
//!
//! *Guarantees.* It restarts nothing by itself. When it dies the kernel kills everything in the
//! node: that is the power-off. Its mounts, the run folder with them, vanish at the same moment,
//! and a new start has a new boot id, so that agents see a reboot.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::enter::unblock_signals;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What process 1 of a node needs to know; written by the lab beside the node's data.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub node: String,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub log: PathBuf,
    pub hosts: PathBuf,
    pub files: Files,
}

/// The files through which lab and process 1 talk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Files {
    /// A FIFO; the line `start` starts the agent when it does not run.
    pub control: PathBuf,
    /// Holds the agent's pid, as the node sees it, while the agent runs.
    pub pid: PathBuf,
    /// Says how the agent ended last.
    pub exit: PathBuf,
    pub boot_id: PathBuf,
}

impl Files {
    pub fn new(node_folder: &Path) -> Self {
        Self {
            control: node_folder.join("control"),
            pid: node_folder.join("agent.pid"),
            exit: node_folder.join("agent.exit"),
            boot_id: node_folder.join("boot_id"),
        }
    }
}

/// `__node-init [--first] SPEC`; returns the exit code.
pub fn node_init_main(args: &[String]) -> i32 {
    let outcome = match args {
        [flag, spec] if flag == "--first" => first(Path::new(spec)),
        [spec] => launch(spec),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: __node-init SPEC")),
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            // The lab reads our output and reports this line.
            say(&format!("error {error}"));
            1
        }
    }
}

/// Output is a pipe to the lab, which may have given up; that must not end a node.
fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

fn launch(spec: &str) -> io::Result<()> {
    let program = std::env::current_exe()?;
    let first = Command::new(program).args(["lab", "__node-init", "--first", spec]).spawn()?;
    say(&format!("pid {}", first.id()));
    Ok(())
}

fn first(path: &Path) -> io::Result<()> {
    let spec: Spec = serde_json::from_slice(&fs::read(path)?)?;
    nix::unistd::sethostname(&spec.node)?;
    prepare_mounts(&spec)
        .map_err(|error| io::Error::other(format!("preparing mounts: {error}")))?;
    // As a service manager would: many containers and connections need many descriptors.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;

    let mut watched = SigSet::empty();
    watched.add(Signal::SIGCHLD);
    watched.thread_block()?;
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    // Opened for both ways it never reports end of file, however writers come and go.
    let mut control = File::options().read(true).write(true).open(&spec.files.control)?;
    let mut agent = Agent { spec: &spec, pid: None };
    agent.start()?;
    say("ready");
    close_output()?;

    loop {
        let (woken_by_signal, woken_by_control) = {
            let mut watched = [
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(control.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut watched, PollTimeout::NONE) {
                Ok(_) => {}
                Err(nix::Error::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            (watched[0].any().unwrap_or(false), watched[1].any().unwrap_or(false))
        };
        if woken_by_signal {
            while signals.read_signal()?.is_some() {}
        }
        agent.reap()?;
        if woken_by_control {
            let mut text = [0u8; 64];
            let count = control.read(&mut text)?;
            if text[..count].starts_with(b"start") {
                agent.start()?;
            }
        }
    }
}

/// Lets go of the pipe to the lab, which waits for its end.
fn close_output() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(())
}

struct Agent<'a> {
    spec: &'a Spec,
    pid: Option<Pid>,
}

impl Agent<'_> {
    fn start(&mut self) -> io::Result<()> {
        if self.pid.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.spec.log)?;
        let Some((program, args)) = self.spec.argv.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no agent to start"));
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .envs(self.spec.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        unblock_signals(&mut command);
        let child = command
            .spawn()
            .map_err(|error| io::Error::other(format!("starting {program}: {error}")))?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        // Not waited for through `child`: process 1 reaps everything in one place.
        self.pid = Some(Pid::from_raw(pid));
        write_whole(&self.spec.files.pid, &pid.to_string())
    }

    fn reap(&mut self) -> io::Result<()> {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(()),
                Ok(status) => status,
                Err(nix::Error::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if status.pid().is_none() || status.pid() != self.pid {
                continue;
            }
            let how = match status {
                WaitStatus::Exited(_, code) => format!("exited with code {code}"),
                WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
                _ => continue,
            };
            self.pid = None;
            write_whole(&self.spec.files.exit, &how)?;
            fs::remove_file(&self.spec.files.pid)?;
        }
    }
}

/// Readers poll these files, so they never see half of one.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, text)?;
    fs::rename(partial, path)
}

/// The node's own view: process list, interfaces, empty run folder, names of the other nodes.
fn prepare_mounts(spec: &Spec) -> io::Result<()> {
    let none = None::<&str>;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Nothing mounted here reaches the machine; what the machine unmounts goes here too.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    // Copies of other nodes' namespace files would keep those namespaces alive.
    if let Ok(entries) = fs::read_dir("/run/netns") {
        for entry in entries.flatten() {
            let _ = umount2(&entry.path(), MntFlags::MNT_DETACH);
        }
    }
    mount(Some("proc"), "/proc", Some("proc"), quiet, none)?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=755"),
    )?;
    for folder in ["/run/netns", "/run/lock", "/run/cgroup"] {
        fs::create_dir(folder)?;
    }
    // A fresh sysfs shows this namespace's interfaces but hides the cgroups: carry them over.
    let recursive = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some("/sys/fs/cgroup"), "/run/cgroup", none, recursive, none)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), quiet, none)?;
    mount(Some("/run/cgroup"), "/sys/fs/cgroup", none, recursive, none)?;
    umount2("/run/cgroup", MntFlags::MNT_DETACH)?;
    fs::remove_dir("/run/cgroup")?;
    mount(Some(&spec.hosts), "/etc/hosts", none, MsFlags::MS_BIND, none)?;
    // The machine's boot id would tell a restarted node that it never was off.
    let fresh = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    write_whole(&spec.files.boot_id, &fresh)?;
    mount(Some(&spec.files.boot_id), BOOT_ID, none, MsFlags::MS_BIND, none)?;
    Ok(())
}
