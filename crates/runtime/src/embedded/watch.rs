//! One watcher per living container: learns its exit from the shim, and what to do when there is no
//! shim any more.

use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::embedded::entry::{Entry, Process};
use crate::embedded::{Inner, blocking, control, io_error, launch};
use crate::error::Result;
use crate::observe::{Event, Exit, ExitSource};
use crate::process::{boot_id, unix_ms};
use crate::shim::files::{Folder, Record, read_json, write_json};
use crate::spec::ContainerId;
use crate::sys;

/// Pause before a container is looked at again after something failed; doubles up to the cap.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long the kernel may take to tell the status of a process that somebody else collects.
const STATUS_PATIENCE: Duration = Duration::from_millis(300);

/// What became of a container whose shim does not answer.
pub enum Verdict {
    /// It ended.
    Ended(Exit),
    /// A shim has it: ask again.
    Kept,
    /// It lives, and nobody keeps it.
    Orphaned,
}

/// Starts the watcher of a container that lives.
pub fn spawn(inner: &Arc<Inner>, entry: &Arc<Entry>) {
    let task = tokio::spawn(watch(Arc::downgrade(inner), Arc::downgrade(entry)));
    entry.own(task.abort_handle());
}

/// Holds the runtime and the entry only while it acts, so that dropping them ends it.
async fn watch(inner: Weak<Inner>, entry: Weak<Entry>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(socket) = entry.upgrade().map(|entry| entry.socket.clone()) else { return };
        let told = control::wait_exit(&socket).await;
        let (Some(inner), Some(entry)) = (inner.upgrade(), entry.upgrade()) else { return };
        let exit = match told {
            Ok(exit) => exit,
            Err(error) => {
                tracing::debug!(id = %entry.spec.id, %error, "the shim is gone");
                match settle(&inner, &entry).await {
                    Ok(Some(exit)) => exit,
                    Ok(None) => {
                        drop((inner, entry));
                        tokio::time::sleep(FIRST_PAUSE).await;
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(id = %entry.spec.id, %error, "a container has lost its shim, trying again");
                        drop((inner, entry));
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue;
                    }
                }
            }
        };
        entry.set_exited(exit, || inner.tell(Event::Exited(entry.spec.id.clone(), exit)));
        return;
    }
}

/// The shim hung up: it left after the exit, or it was killed and another must take over.
async fn settle(inner: &Arc<Inner>, entry: &Arc<Entry>) -> Result<Option<Exit>> {
    let (judged_inner, judged) = (inner.clone(), entry.clone());
    let verdict = blocking("watch", move || {
        let process = judged.status().process;
        judge(&judged_inner, &judged.spec.id, &judged.folder, process.as_deref())
    })
    .await?;
    match verdict {
        Verdict::Ended(exit) => Ok(Some(exit)),
        Verdict::Kept => Ok(None),
        Verdict::Orphaned => {
            tracing::warn!(id = %entry.spec.id, "the shim was killed, starting another for its container");
            launch::adopt(inner, &entry.spec.id, &entry.folder).await?;
            Ok(None)
        }
    }
}

/// Decides from the folder and the process what became of a container. If it ended unseen, that is
/// written down here, so that every later look gives the same answer.
pub fn judge(
    inner: &Inner,
    id: &ContainerId,
    folder: &Folder,
    process: Option<&Process>,
) -> Result<Verdict> {
    // The lock before the record: a shim writes the record before it lets go of the lock.
    let kept = launch_lock(folder)?;
    match read_json::<Exit>(&folder.exit()) {
        Ok(Some(exit)) => return Ok(Verdict::Ended(exit)),
        Ok(None) => {}
        Err(error) => tracing::warn!(%id, %error, "the exit record is damaged"),
    }
    if kept {
        return Ok(Verdict::Kept);
    }
    let record: Option<Record> = read_json(&folder.state()).unwrap_or_else(|error| {
        tracing::warn!(%id, %error, "the state record is damaged");
        None
    });
    let known = process.map(|process| &process.id).or(record.as_ref().map(|record| &record.init));
    if record.is_some() && known.is_some_and(|init| init.is_alive()) {
        return Ok(Verdict::Orphaned);
    }
    // Dead, or nothing is known that would allow to keep it.
    let boot = boot_id()
        .map_err(io_error("read", std::path::Path::new("/proc/sys/kernel/random/boot_id")))?;
    let rebooted = known.is_some_and(|init| init.boot_id != boot);
    let (code, signal) = process.filter(|_| !rebooted).and_then(late_status).unwrap_or_default();
    let exit = Exit {
        code,
        signal,
        oom: inner.hierarchies.at(inner.cgroup_path(id)).oom_kills() > 0,
        at_unix_ms: unix_ms(),
        source: if rebooted { ExitSource::Reboot } else { ExitSource::ShimLost },
    };
    launch::clear_cgroup(inner, id)?;
    write_json(&folder.exit(), &exit, true).map_err(io_error("write", &folder.exit()))?;
    Ok(Verdict::Ended(exit))
}

fn launch_lock(folder: &Folder) -> Result<bool> {
    let holder = crate::embedded::lock::lock_holder(folder)
        .map_err(io_error("look at the lock of", folder.path()))?;
    Ok(holder.is_some())
}

/// Code and signal of a process that was nobody's, if the kernel still tells.
fn late_status(process: &Process) -> Option<(Option<u8>, Option<u8>)> {
    let pidfd = process.pidfd.as_ref()?;
    let deadline = Instant::now() + STATUS_PATIENCE;
    let raw = loop {
        if let Some(raw) = sys::pidfd_exit_status(pidfd.as_fd()) {
            break raw;
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    match WaitStatus::from_raw(Pid::from_raw(1), raw).ok()? {
        WaitStatus::Exited(_, code) => Some((u8::try_from(code & 0xff).ok(), None)),
        WaitStatus::Signaled(_, signal, _) => Some((None, u8::try_from(signal as i32).ok())),
        _ => None,
    }
}
