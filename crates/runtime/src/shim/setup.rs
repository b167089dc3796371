//! From the command line to a running shim: detach, lock, create or adopt, then serve.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::setsid;

use crate::cgroup::Hierarchies;
use crate::observe::State;
use crate::process::{ProcessId, unix_ms};
use crate::shim::backend::Handle;
use crate::shim::files::{Folder, Record, read_json, write_json};
use crate::shim::group::Group;
use crate::shim::output::Output;
use crate::shim::protocol::Reply;
use crate::shim::server::{Init, Server};
use crate::shim::youki::Stdio;
use crate::shim::{Options, rootfs, say};
use crate::spec::ContainerSpec;
use crate::sys;

/// How long a failed create waits for its processes to leave the cgroup.
const CLEANUP_PATIENCE: Duration = Duration::from_secs(2);

/// How long a shim that came too late may hold the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the shim to its end.
pub fn run(options: &Options) -> Result<(), String> {
    let folder = Folder::new(&options.folder);
    detach().map_err(|error| format!("detach from the worker: {error}"))?;
    let lock =
        lock(&folder).map_err(|error| format!("lock {}: {error}", folder.path().display()))?;
    // Nothing was touched so far: an agent may have started us, died, and been followed by another
    // one that cleared the folder away and made a new one of the same name.
    let valid = fs::read_to_string(folder.attempt()).unwrap_or_default();
    if valid != options.attempt {
        return Err(format!("start {} was overtaken by `{valid}`", options.attempt));
    }
    let listener = listen(&options.socket)
        .map_err(|error| format!("listen on {}: {error}", options.socket.display()))?;
    let spec: ContainerSpec = read_json(&folder.spec())
        .map_err(|error| format!("read the spec: {error}"))?
        .ok_or("there is no spec.json")?;
    let output =
        Output::open(&folder, spec.log).map_err(|error| format!("open the log: {error}"))?;
    let hierarchies =
        Hierarchies::detect().map_err(|error| format!("find the cgroup mounts: {error}"))?;
    let signals = block_child_signal().map_err(|error| format!("block SIGCHLD: {error}"))?;
    let record: Option<Record> = if options.adopt {
        read_json(&folder.state()).map_err(|error| format!("read the state: {error}"))?
    } else {
        None
    };
    let runtime_id = match &record {
        Some(record) => record.runtime_id.clone(),
        None => format!("{}.{:x}", spec.id, unix_ms()),
    };
    let cgroup = options.cgroup.clone();
    let backend = record.as_ref().map_or(options.backend, |record| record.backend);
    let handle = Handle { folder, spec, backend, runtime_id, cgroup, hierarchies };
    let (record, init) = match record {
        Some(record) => {
            // Whoever asked for them went with the shim before us.
            drop(Group::left_in(&handle.hierarchies.at(&handle.cgroup)));
            adopt(record)?
        }
        None if options.adopt => return Err("there is nothing to adopt".to_owned()),
        None => create(&handle, &output)?,
    };
    say(&Reply::Pid { pid: record.init.pid, at_unix_ms: record.created_unix_ms });
    silence_stdout().map_err(|error| format!("leave the worker's pipe: {error}"))?;
    let server = Server::new(handle, record, init, output, listener, signals);
    let served = server.serve();
    let _ = fs::remove_file(&options.socket);
    drop(lock);
    served.map_err(|error| format!("serve: {error}"))
}

/// A session of our own, so that nothing meant for the worker reaches us; and the role of parent
/// for whatever our helpers leave behind.
fn detach() -> io::Result<()> {
    // Fails only for a group leader, which a shim started by hand may be.
    let _ = setsid();
    let _ = nix::sys::prctl::set_name(c"cluster-shim");
    nix::sys::prctl::set_child_subreaper(true)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    nix::unistd::setgroups(&[])?;
    // The kernel must not pick the shim when memory is short; containers set their own value.
    let _ = fs::write("/proc/self/oom_score_adj", "-999");
    std::env::set_current_dir("/")
}

/// A record lock, because forks do not inherit it: it tells exactly whether this process lives.
fn lock(folder: &Folder) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.lock())?;
    let whole = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match fcntl(&file, FcntlArg::F_SETLK(&whole)) {
            Ok(_) => return Ok(file),
            // It may be one that is about to find out that it came too late.
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => {
                let reason = "another shim has this container";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
            }
        }
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn block_child_signal() -> io::Result<nix::sys::signalfd::SignalFd> {
    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

fn create(handle: &Handle, output: &Output) -> Result<(Record, Init), String> {
    let made = try_create(handle, output);
    if made.is_err() {
        // Whatever was started is in the cgroup; nothing of it may stay.
        let cgroup = handle.hierarchies.at(&handle.cgroup);
        for pid in cgroup.processes() {
            if let Ok(pidfd) = sys::pidfd_open(pid) {
                let _ = sys::pidfd_send_signal(std::os::fd::AsFd::as_fd(&pidfd), 9);
            }
        }
        while let Ok(status) =
            nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG))
        {
            if status == nix::sys::wait::WaitStatus::StillAlive {
                break;
            }
        }
        let _ = cgroup.remove(CLEANUP_PATIENCE);
    }
    made
}

fn try_create(handle: &Handle, output: &Output) -> Result<(Record, Init), String> {
    rootfs::enter_own_mount_namespace()
        .map_err(|error| format!("make a mount namespace: {error}"))?;
    let [stdout, stderr] = output.writers().map_err(|error| format!("open the output: {error}"))?;
    let stdin: OwnedFd =
        File::open("/dev/null").map_err(|error| format!("open /dev/null: {error}"))?.into();
    let pid = handle.create(Stdio { stdin, stdout: stdout.into(), stderr: stderr.into() })?;
    let gone = |error: io::Error| format!("the container's first process is gone: {error}");
    let init = ProcessId::of(pid).map_err(gone)?;
    let pidfd = sys::pidfd_open(pid).map_err(gone)?;
    if handle.spec.limits.memory_bytes.is_some() {
        handle
            .hierarchies
            .at(&handle.cgroup)
            .forbid_swap_v2()
            .map_err(|error| format!("set the swap limit: {error}"))?;
    }
    let record = Record {
        init,
        shim_pid: std::process::id(),
        backend: handle.backend,
        runtime_id: handle.runtime_id.clone(),
        cgroup: handle.cgroup.clone(),
        created_unix_ms: unix_ms(),
        started_unix_ms: None,
    };
    write_json(&handle.folder.state(), &record, false)
        .map_err(|error| format!("write the state: {error}"))?;
    Ok((record, Init { pidfd, ours: true, state: State::Created }))
}

fn adopt(record: Record) -> Result<(Record, Init), String> {
    let pidfd = record.init.open().ok_or("the container is gone")?;
    let state = if record.started_unix_ms.is_some() { State::Running } else { State::Created };
    let record = Record { shim_pid: std::process::id(), ..record };
    Ok((record, Init { pidfd, ours: false, state }))
}

fn silence_stdout() -> io::Result<()> {
    io::stdout().flush()?;
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    sys::replace_stdio(&null, 1)
}
