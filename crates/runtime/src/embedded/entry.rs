//! One container as the runtime object knows it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};
use crate::observe::{Created, Exit, Observed, Started, State};
use crate::process::ProcessId;
use crate::shim::files::Folder;
use crate::signal::Signal;
use crate::spec::ContainerSpec;
use crate::sys;

/// A container, its place on disk and its state.
pub struct Entry {
    /// As the caller gave it.
    pub spec: ContainerSpec,
    /// Its folder.
    pub folder: Folder,
    /// Its shim's socket.
    pub socket: PathBuf,
    /// Create, start and remove pass one at a time.
    pub gate: Arc<tokio::sync::Mutex<()>>,
    status: watch::Sender<Status>,
    watcher: Mutex<Option<AbortHandle>>,
}

/// What is known now.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where it is in its life.
    pub phase: Phase,
    /// Its first process, once there is one.
    pub process: Option<Arc<Process>>,
    /// When it was created.
    pub created_unix_ms: u64,
    /// When it was started.
    pub started_unix_ms: Option<u64>,
}

/// A life as seen from here: before and after what callers can observe there is more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Being set up; nobody may see it.
    Creating,
    /// As reported.
    Known(State),
    /// Gone; whoever still holds the entry looks for it no more.
    Removed,
}

/// The first process, with a descriptor that outlives a lost shim.
#[derive(Debug)]
pub struct Process {
    /// Who it is.
    pub id: ProcessId,
    /// Opened while it was known to live.
    pub pidfd: Option<OwnedFd>,
}

impl Process {
    /// Takes a descriptor for it if it lives.
    pub fn new(id: ProcessId) -> Arc<Self> {
        let pidfd = id.open();
        Arc::new(Self { id, pidfd })
    }
}

impl Entry {
    /// An entry of a container that is about to be created.
    pub fn new(spec: ContainerSpec, folder: Folder, socket: PathBuf) -> Self {
        let status = Status {
            phase: Phase::Creating,
            process: None,
            created_unix_ms: 0,
            started_unix_ms: None,
        };
        Self {
            spec,
            folder,
            socket,
            gate: Arc::default(),
            status: watch::Sender::new(status),
            watcher: Mutex::default(),
        }
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        self.status.borrow().phase
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<Exit> {
        match self.phase() {
            Phase::Known(state) => state.exit(),
            Phase::Creating | Phase::Removed => None,
        }
    }

    /// Everything known now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Changes of the status from now on.
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Replaces what is known.
    pub fn set(&self, status: Status) {
        self.status.send_replace(status);
    }

    /// Created becomes running; later states stay.
    pub fn set_started(&self, at_unix_ms: u64) {
        self.status.send_if_modified(|status| {
            let first = status.started_unix_ms.is_none();
            status.started_unix_ms.get_or_insert(at_unix_ms);
            if status.phase == Phase::Known(State::Created) {
                status.phase = Phase::Known(State::Running);
            }
            first
        });
    }

    /// It ended; `tell` is called, before anybody who waits wakes up, if that is news.
    pub fn set_exited(&self, exit: Exit, tell: impl FnOnce()) {
        self.status.send_if_modified(|status| {
            let alive = matches!(status.phase, Phase::Known(State::Created | State::Running));
            if alive {
                status.phase = Phase::Known(State::Exited(exit));
                tell();
            }
            alive
        });
    }

    /// It is gone for good.
    pub fn set_removed(&self) {
        self.status.send_modify(|status| status.phase = Phase::Removed);
        if let Some(watcher) = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).take() {
            watcher.abort();
        }
    }

    /// Makes this task end with the entry.
    pub fn own(&self, watcher: AbortHandle) {
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(watcher);
    }

    /// Resolves when it ended.
    pub async fn wait(&self) -> Result<Exit> {
        let mut status = self.subscribe();
        let ended = |status: &Status| {
            matches!(status.phase, Phase::Known(State::Exited(_)) | Phase::Removed)
        };
        let phase = status.wait_for(ended).await.map(|status| status.phase);
        match phase {
            Ok(Phase::Known(State::Exited(exit))) => Ok(exit),
            _ => Err(Error::NotFound { id: self.spec.id.clone() }),
        }
    }

    /// As callers see it; `None` while they may not.
    pub fn observed(&self) -> Option<Observed> {
        let status = self.status.borrow();
        let Phase::Known(state) = status.phase else { return None };
        let pid = status
            .process
            .as_ref()
            .map(|process| process.id.pid)
            .filter(|_| state.exit().is_none());
        Some(Observed {
            id: self.spec.id.clone(),
            state,
            pid,
            labels: self.spec.labels.clone(),
            created_unix_ms: status.created_unix_ms,
            started_unix_ms: status.started_unix_ms,
        })
    }

    /// Answer of a create that found it already there.
    pub fn created(&self) -> Result<Created> {
        let status = self.status.borrow();
        let pid = status.process.as_ref().map(|process| process.id.pid).unwrap_or_default();
        let own = || PathBuf::from(format!("/proc/{pid}/ns/net"));
        Ok(Created { pid, netns: self.spec.netns.clone().unwrap_or_else(own) })
    }

    /// Answer of a start that found it running.
    pub fn started(&self) -> Result<Started> {
        let status = self.status.borrow();
        let pid = status.process.as_ref().map(|process| process.id.pid).unwrap_or_default();
        Ok(Started { pid, at_unix_ms: status.started_unix_ms.unwrap_or_default() })
    }

    /// Signals its first process without the shim; `false` if it could not be.
    pub fn kill_directly(&self, signal: Signal) -> bool {
        let status = self.status.borrow();
        let pidfd = status.process.as_ref().and_then(|process| process.pidfd.as_ref());
        pidfd.is_some_and(|pidfd| sys::pidfd_send_signal(pidfd.as_fd(), signal.number()).is_ok())
    }

    /// Its first process is known and does not run any more.
    pub fn is_dead(&self) -> bool {
        self.status.borrow().process.as_ref().is_some_and(|process| !process.id.is_alive())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.set_removed();
    }
}
