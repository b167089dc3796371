//! Starting shims, and clearing away what a container leaves.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::embedded::entry::{Entry, Phase, Process, Status};
use crate::embedded::lock::{Lock, lock_holder, take_lock};
use crate::embedded::{Inner, SHIM_PATIENCE, blocking, io_error};
use crate::error::{Error, Result};
use crate::observe::State;
use crate::process::unix_nanos;
use crate::shim::Options;
use crate::shim::files::{Folder, Record, read_json, write_json};
use crate::shim::protocol::Reply;
use crate::spec::ContainerId;
use crate::sys;

/// Longest time a shim may take to set a container up; its helpers give up after 30 s each.
const LAUNCH_PATIENCE: Duration = Duration::from_secs(60);
/// Longest first line of a shim.
const MAX_LINE: u64 = 1 << 20;
/// How long killed processes may take to leave a cgroup.
const CGROUP_PATIENCE: Duration = Duration::from_secs(5);

/// The shim program, through a view that containers cannot write to: between the fork and their
/// command they are this program, so `/proc/self/exe` leads to it.
pub struct ShimProgram {
    path: PathBuf,
    /// Keeps the view open.
    _view: Option<OwnedFd>,
}

impl ShimProgram {
    /// Finds it, by default beside the current executable.
    pub fn find(given: Option<&Path>) -> Result<Self> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => {
                let own = std::env::current_exe().map_err(io_error(
                    "find the current executable",
                    Path::new("/proc/self/exe"),
                ))?;
                own.with_file_name("cluster-shim")
            }
        };
        fs::metadata(&path).map_err(io_error("find the shim program", &path))?;
        match sys::read_only_clone(&path) {
            Ok(view) => Ok(Self {
                path: PathBuf::from(format!("/proc/self/fd/{}", view.as_raw_fd())),
                _view: Some(view),
            }),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot make a read-only view of the shim, using it as it is");
                Ok(Self { path, _view: None })
            }
        }
    }
}

/// Sets a container up. On failure nothing of it is left.
pub async fn create(inner: &Arc<Inner>, entry: &Arc<Entry>) -> Result<Status> {
    let _permit = inner.starts.acquire().await.map_err(|_| Error::ShutDown { action: "create" })?;
    let prepared = entry.clone();
    let made = blocking("create", move || prepare(&prepared)).await;
    let launched = match made {
        Ok(()) => shim(inner, &entry.spec.id, &entry.folder, "create", false).await,
        Err(error) => Err(error),
    };
    let status = match launched {
        Ok(()) => {
            let folder = entry.folder.clone();
            blocking("create", move || read_status(&folder)).await
        }
        Err(error) => Err(error),
    };
    if status.is_err()
        && let Err(error) = wipe(inner, entry).await
    {
        tracing::warn!(id = %entry.spec.id, %error, "leftovers of a failed create stay until the next recovery");
    }
    status
}

/// Takes over a container whose shim is gone.
pub async fn adopt(inner: &Arc<Inner>, id: &ContainerId, folder: &Folder) -> Result<()> {
    shim(inner, id, folder, "adopt", true).await
}

fn prepare(entry: &Entry) -> Result<()> {
    let folder = entry.folder.path();
    fs::create_dir(folder).map_err(io_error("make the container's folder", folder))?;
    write_json(&entry.folder.spec(), &entry.spec, false)
        .map_err(io_error("write", &entry.folder.spec()))
}

fn read_status(folder: &Folder) -> Result<Status> {
    let record: Option<Record> =
        read_json(&folder.state()).map_err(io_error("read", &folder.state()))?;
    let record =
        record.ok_or_else(|| io_error("read", &folder.state())(io::ErrorKind::NotFound.into()))?;
    Ok(Status {
        phase: Phase::Known(State::Created),
        process: Some(Process::new(record.init)),
        created_unix_ms: record.created_unix_ms,
        started_unix_ms: record.started_unix_ms,
    })
}

/// Starts a shim and waits for its word.
async fn shim(
    inner: &Arc<Inner>,
    id: &ContainerId,
    folder: &Folder,
    action: &'static str,
    adopt: bool,
) -> Result<()> {
    let failed = |source| Error::Shim { id: id.clone(), action, source };
    let attempt = format!("{:x}.{:x}", std::process::id(), unix_nanos());
    let (marked, mark) = (folder.attempt(), attempt.clone());
    blocking(action, move || replace(&marked, &mark).map_err(io_error("write", &marked))).await?;
    let options = Options {
        folder: folder.path().to_owned(),
        socket: inner.socket(id),
        cgroup: inner.cgroup_path(id),
        backend: inner.config.backend,
        attempt,
        adopt,
    };
    let (program, args) = (inner.program.path.clone(), options.to_args());
    let last_words = folder.join("shim.log");
    let log = last_words.clone();
    let runtime = tokio::runtime::Handle::current();
    let mut child = tokio::task::spawn_blocking(move || {
        let _context = runtime.enter();
        spawn(&program, args, &log)
    })
    .await
    .map_err(|_| Error::ShutDown { action })?
    .map_err(failed)?;
    let line = match child.stdout.take() {
        Some(stdout) => tokio::time::timeout(LAUNCH_PATIENCE, first_line(stdout)).await,
        None => Ok(Ok(Vec::new())),
    };
    let line = match line {
        Ok(line) => line.map_err(failed)?,
        Err(_) => {
            child.start_kill().map_err(failed)?;
            return Err(failed(io::ErrorKind::TimedOut.into()));
        }
    };
    // Dropped, not waited for: it is collected by the async runtime whenever it ends.
    drop(child);
    match serde_json::from_slice(&line) {
        Ok(Reply::Pid { .. }) => Ok(()),
        Ok(reply) => Err(crate::embedded::unexpected(id, action, reply)),
        Err(_) => {
            let words = tokio::fs::read_to_string(&last_words).await.unwrap_or_default();
            let reason = format!("the shim ended without a word; its log says `{}`", words.trim());
            Err(Error::Refused { id: id.clone(), action, reason })
        }
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text)?;
    fs::rename(&temporary, path)
}

fn spawn(program: &Path, args: Vec<OsString>, log: &Path) -> io::Result<tokio::process::Child> {
    let log = fs::OpenOptions::new().append(true).create(true).open(log)?;
    let mut command = Command::new(program);
    command
        .arg0("cluster-shim")
        .args(args)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    command.spawn()
}

async fn first_line(stdout: tokio::process::ChildStdout) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(stdout).take(MAX_LINE).read_until(b'\n', &mut line).await?;
    Ok(line)
}

/// Removes all traces of a container that is dead.
pub async fn wipe(inner: &Arc<Inner>, entry: &Arc<Entry>) -> Result<()> {
    let (inner, entry) = (inner.clone(), entry.clone());
    blocking("remove", move || wipe_now(&inner, &entry.spec.id, &entry.folder)).await
}

/// Same, on a thread that may block. Repeatable after a crash at any point.
pub fn wipe_now(inner: &Inner, id: &ContainerId, folder: &Folder) -> Result<()> {
    // Held to the end: a late shim of a dead agent must not begin in what is being removed.
    let _lock = end_shim(folder).map_err(io_error("end the shim of", folder.path()))?;
    clear_cgroup(inner, id)?;
    let socket = inner.socket(id);
    remove_if_there(fs::remove_file(&socket)).map_err(io_error("remove", &socket))?;
    // Renamed first: half a folder must never look like a container.
    let trash = inner.config.state_dir.join(format!(".trash-{id}"));
    remove_if_there(fs::remove_dir_all(&trash)).map_err(io_error("remove", &trash))?;
    remove_if_there(fs::rename(folder.path(), &trash))
        .map_err(io_error("remove", folder.path()))?;
    remove_if_there(fs::remove_dir_all(&trash)).map_err(io_error("remove", &trash))
}

/// Kills whatever is in a container's cgroup and removes it.
pub fn clear_cgroup(inner: &Inner, id: &ContainerId) -> Result<()> {
    let path = inner.cgroup_path(id);
    let cgroup = inner.hierarchies.at(&path);
    let deadline = Instant::now() + CGROUP_PATIENCE;
    loop {
        let pids = cgroup.processes();
        if pids.is_empty() || Instant::now() > deadline {
            break;
        }
        for pidfd in pids.into_iter().filter_map(|pid| sys::pidfd_open(pid).ok()) {
            // Already gone is as good.
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), 9);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    cgroup.remove(CGROUP_PATIENCE).map_err(io_error("remove the cgroup", &path))
}

/// Waits until the shim left, makes it leave if it does not, and takes its lock.
fn end_shim(folder: &Folder) -> io::Result<Option<fs::File>> {
    let deadline = Instant::now() + SHIM_PATIENCE;
    loop {
        match take_lock(folder)? {
            Lock::Taken(file) => return Ok(Some(file)),
            Lock::Absent => return Ok(None),
            Lock::Held(pid) if Instant::now() > deadline => kill_shim(folder, pid)?,
            Lock::Held(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Kills the shim that holds the lock; the container stays.
pub fn kill_shim(folder: &Folder, pid: u32) -> io::Result<()> {
    let pidfd = sys::pidfd_open(pid)?;
    // The number came from the lock; only if it still holds it, it is the one.
    if lock_holder(folder)? == Some(pid) {
        sys::pidfd_send_signal(pidfd.as_fd(), 9)?;
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    while lock_holder(folder)?.is_some() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn remove_if_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
