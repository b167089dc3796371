//! The default runtime: no daemon, one shim per container.
//!
//! All truth is in the container folders and in the shims; this object is a cache of it with one
//! watcher per living container. So it may be dropped or killed at any time: [`Runtime::recover`]
//! of the next one finds everything again.
//!
//! *Assumes*: root; the state folder, the run folder and the cgroup parent belong to exactly one
//! runtime object at a time. Nothing else on the machine is touched or relied on by name.
//! *Not here*: user namespaces. libcontainer's exec does not join them, so the template never makes
//! one.

mod config;
mod control;
mod entry;
mod exec;
mod launch;
mod lock;
mod logs;
mod recover;
mod watch;

#[cfg(feature = "testing")]
pub(crate) use lock::lock_holder;

pub use config::EmbeddedConfig;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use tokio::sync::{Semaphore, broadcast};
use tokio_stream::wrappers::BroadcastStream;

use crate::cgroup::Hierarchies;
use crate::embedded::entry::{Entry, Phase};
use crate::embedded::launch::ShimProgram;
use crate::error::{Error, Result};
use crate::exec::{ExecSession, ExecSpec};
use crate::logs::{LogQuery, LogStream};
use crate::observe::{Caps, Created, Event, EventStream, Exit, Observed, Started, State, Stats};
use crate::runtime::Runtime;
use crate::shim::files::Folder;
use crate::shim::protocol::{Reply, Request};
use crate::signal::Signal;
use crate::spec::{ContainerId, ContainerSpec, Limits};

/// Events kept for a subscriber that does not read; beyond it, it is told to list again.
const EVENT_BACKLOG: usize = 1024;
/// Longest path of a unix socket, its NUL included.
const MAX_SOCKET_PATH: usize = 108;
/// How long a shim may take to leave after its container ended.
const SHIM_PATIENCE: Duration = Duration::from_secs(10);

/// Runs containers through shims. Dropping it leaves the containers alone.
pub struct EmbeddedRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    config: EmbeddedConfig,
    hierarchies: Hierarchies,
    program: ShimProgram,
    entries: Mutex<BTreeMap<ContainerId, Arc<Entry>>>,
    events: broadcast::Sender<Event>,
    starts: Semaphore,
}

impl EmbeddedRuntime {
    /// Prepares the folders and finds the shim. Blocking, but only for a few file operations.
    pub fn open(config: EmbeddedConfig) -> Result<Self> {
        let socket_len = config.run_dir.as_os_str().len() + "/0123456789abcdef.s\0".len();
        if socket_len > MAX_SOCKET_PATH {
            return Err(io_error(
                "use as run folder (its path is too long for sockets)",
                &config.run_dir,
            )(std::io::ErrorKind::InvalidFilename.into()));
        }
        for folder in [&config.state_dir, &config.run_dir] {
            make_private_folder(folder).map_err(io_error("make the folder", folder))?;
        }
        let hierarchies =
            Hierarchies::detect().map_err(io_error("read", Path::new("/proc/self/mountinfo")))?;
        let program = ShimProgram::find(config.shim.as_deref())?;
        let starts = Semaphore::new(config.concurrent_starts.max(1));
        let events = broadcast::channel(EVENT_BACKLOG).0;
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                hierarchies,
                program,
                entries: Mutex::default(),
                events,
                starts,
            }),
        })
    }

    fn entry(&self, id: &ContainerId) -> Result<Arc<Entry>> {
        self.inner.get(id).ok_or_else(|| Error::NotFound { id: id.clone() })
    }
}

impl Inner {
    fn get(&self, id: &ContainerId) -> Option<Arc<Entry>> {
        self.table().get(id).cloned()
    }

    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<ContainerId, Arc<Entry>>> {
        // Every critical section leaves the table whole, so a panic elsewhere does not spoil it.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    fn folder(&self, id: &ContainerId) -> Folder {
        Folder::new(self.config.state_dir.join(id.as_str()))
    }

    fn socket(&self, id: &ContainerId) -> PathBuf {
        // FNV-1a: short, the same in every build, and ids are ours, not an adversary's.
        let hash = id.as_str().bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.config.run_dir.join(format!("{hash:016x}.s"))
    }

    fn cgroup_path(&self, id: &ContainerId) -> PathBuf {
        self.config.cgroup_parent.join(id.as_str())
    }

    /// The table's entry of this id, made if absent; `Conflict` if it is another container.
    fn entry_for(&self, spec: &ContainerSpec) -> Result<Arc<Entry>> {
        let mut table = self.table();
        let entry = table.entry(spec.id.clone()).or_insert_with(|| {
            Arc::new(Entry::new(spec.clone(), self.folder(&spec.id), self.socket(&spec.id)))
        });
        if entry.spec != *spec {
            return Err(Error::Conflict { id: spec.id.clone() });
        }
        Ok(entry.clone())
    }

    async fn create(self: Arc<Self>, spec: ContainerSpec) -> Result<Created> {
        spec.validate().map_err(|source| Error::Invalid { id: spec.id.clone(), source })?;
        // A folder of this id may be left from before; recover knows what to do with it.
        if self.get(&spec.id).is_none() && self.folder(&spec.id).path().exists() {
            recover::one(&self, &spec.id).await?;
        }
        let (entry, _gate) = loop {
            let entry = self.entry_for(&spec)?;
            let gate = entry.gate.clone().lock_owned().await;
            match entry.phase() {
                Phase::Known(_) => return entry.created(),
                // Removed, or not made after all, while we waited at the gate.
                Phase::Removed => {}
                Phase::Creating => break (entry, gate),
            }
        };
        match launch::create(&self, &entry).await {
            Ok(status) => {
                entry.set(status);
                watch::spawn(&self, &entry);
                self.tell(Event::Created(spec.id.clone()));
                entry.created()
            }
            Err(error) => {
                self.forget(&entry);
                Err(error)
            }
        }
    }

    async fn start(self: Arc<Self>, id: ContainerId) -> Result<Started> {
        let entry = self.get(&id).ok_or_else(|| Error::NotFound { id: id.clone() })?;
        let _gate = entry.gate.lock().await;
        match entry.phase() {
            Phase::Known(State::Running) => return entry.started(),
            Phase::Known(State::Created) => {}
            Phase::Known(State::Exited(_)) => return Err(wrong_state(&id, "exited", "start")),
            Phase::Creating | Phase::Removed => return Err(Error::NotFound { id }),
        }
        match control::ask(&entry.socket, &Request::Start, "start", &id).await? {
            Reply::Pid { pid, at_unix_ms } => {
                entry.set_started(at_unix_ms);
                self.tell(Event::Started(id));
                Ok(Started { pid, at_unix_ms })
            }
            reply => Err(unexpected(&id, "start", reply)),
        }
    }

    async fn remove(self: Arc<Self>, id: ContainerId, force: bool) -> Result<()> {
        let Some(entry) = self.get(&id) else { return Ok(()) };
        let _gate = entry.gate.lock().await;
        match entry.phase() {
            Phase::Removed | Phase::Creating => return Ok(()),
            Phase::Known(State::Exited(_)) => {}
            Phase::Known(_) if !force => {
                return Err(wrong_state(&id, "alive", "be removed without force"));
            }
            Phase::Known(_) => {
                self.signal(&entry, Signal::KILL).await?;
                entry.wait().await?;
            }
        }
        launch::wipe(&self, &entry).await?;
        self.forget(&entry);
        self.tell(Event::Removed(id));
        Ok(())
    }

    fn forget(&self, entry: &Arc<Entry>) {
        entry.set_removed();
        self.table().remove(&entry.spec.id);
    }

    async fn signal(&self, entry: &Entry, signal: Signal) -> Result<()> {
        let id = &entry.spec.id;
        let failed = match control::ask(&entry.socket, &Request::Kill(signal), "signal", id).await {
            Ok(Reply::Done) => return Ok(()),
            Ok(reply) => unexpected(id, "signal", reply),
            Err(error) => error,
        };
        // The shim is gone or going. Its container may be alive all the same.
        if entry.exit().is_some() {
            return Ok(());
        }
        match entry.kill_directly(signal) {
            true => Ok(()),
            // Ended, and the watcher is about to learn how.
            false if entry.is_dead() => Ok(()),
            false => Err(failed),
        }
    }
}

/// Runs to its end even if the caller stops waiting: a container half made or half removed because
/// a request was dropped would help nobody.
async fn detached<T: Send + 'static>(
    action: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await.map_err(|_| Error::ShutDown { action })?
}

/// Runs file operations off the async threads.
async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::ShutDown { action })?
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

fn wrong_state(id: &ContainerId, state: &'static str, action: &'static str) -> Error {
    Error::WrongState { id: id.clone(), state, action }
}

fn unexpected(id: &ContainerId, action: &'static str, reply: Reply) -> Error {
    match reply {
        Reply::WrongState(State::Created) => wrong_state(id, "not started", action),
        Reply::WrongState(_) => wrong_state(id, "exited", action),
        Reply::Failed(reason) => Error::Refused { id: id.clone(), action, reason },
        other => Error::Refused {
            id: id.clone(),
            action,
            reason: format!("the shim answered {other:?}"),
        },
    }
}

fn make_private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[async_trait]
impl Runtime for EmbeddedRuntime {
    fn caps(&self) -> Caps {
        Caps {
            exec: true,
            stats: true,
            update: true,
            oom: true,
            create_start_split: true,
            real: true,
            survives_agent: true,
        }
    }

    async fn recover(&self) -> Result<Vec<Observed>> {
        let inner = self.inner.clone();
        detached("recover", async move { recover::all(&inner).await }).await?;
        self.list(&BTreeMap::new()).await
    }

    fn events(&self) -> EventStream {
        let events = BroadcastStream::new(self.inner.events.subscribe());
        events.map(|event| event.unwrap_or(Event::Resync)).boxed()
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<Created> {
        detached("create", self.inner.clone().create(spec.clone())).await
    }

    async fn start(&self, id: &ContainerId) -> Result<Started> {
        detached("start", self.inner.clone().start(id.clone())).await
    }

    async fn signal(&self, id: &ContainerId, signal: Signal) -> Result<()> {
        let entry = self.entry(id)?;
        if entry.exit().is_some() {
            return Ok(());
        }
        self.inner.signal(&entry, signal).await
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit> {
        self.entry(id)?.wait().await
    }

    async fn remove(&self, id: &ContainerId, force: bool) -> Result<()> {
        detached("remove", self.inner.clone().remove(id.clone(), force)).await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Observed>> {
        Ok(self.inner.get(id).and_then(|entry| entry.observed()))
    }

    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<Observed>> {
        let entries: Vec<Arc<Entry>> = self.inner.table().values().cloned().collect();
        let carries = |entry: &Entry| {
            labels.iter().all(|(key, value)| entry.spec.labels.get(key) == Some(value))
        };
        Ok(entries
            .iter()
            .filter(|entry| carries(entry))
            .filter_map(|entry| entry.observed())
            .collect())
    }

    async fn exec(&self, id: &ContainerId, exec: ExecSpec) -> Result<ExecSession> {
        let entry = self.entry(id)?;
        match entry.phase() {
            Phase::Known(State::Running) => exec::run(&entry, exec).await,
            Phase::Known(State::Created) => Err(wrong_state(id, "not started", "exec")),
            Phase::Known(State::Exited(_)) => Err(wrong_state(id, "exited", "exec")),
            Phase::Creating | Phase::Removed => Err(Error::NotFound { id: id.clone() }),
        }
    }

    fn logs(&self, id: &ContainerId, query: LogQuery) -> LogStream {
        match self.entry(id) {
            Ok(entry) => logs::stream(&entry, query),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn stats(&self, id: Option<&ContainerId>) -> Result<Vec<Stats>> {
        let entries = match id {
            Some(id) => vec![self.entry(id)?],
            None => self.inner.table().values().cloned().collect(),
        };
        let inner = self.inner.clone();
        blocking("read usage", move || {
            let live = entries.iter().filter(|entry| {
                matches!(entry.phase(), Phase::Known(State::Created | State::Running))
            });
            Ok(live
                .map(|entry| {
                    let usage = inner.hierarchies.at(inner.cgroup_path(&entry.spec.id)).usage();
                    Stats {
                        id: entry.spec.id.clone(),
                        cpu_usage_nanos: usage.cpu_nanos,
                        memory_bytes: usage.memory_bytes,
                        memory_limit_bytes: usage.memory_limit_bytes,
                        pids: usage.pids,
                    }
                })
                .collect())
        })
        .await
    }

    async fn update(&self, id: &ContainerId, limits: &Limits) -> Result<()> {
        let entry = self.entry(id)?;
        if !matches!(entry.phase(), Phase::Known(State::Created | State::Running)) {
            return Err(wrong_state(id, "not alive", "be updated"));
        }
        let mut checked = entry.spec.clone();
        checked.limits = *limits;
        checked.validate().map_err(|source| Error::Invalid { id: id.clone(), source })?;
        let cgroup = self.inner.hierarchies.at(self.inner.cgroup_path(id));
        let (id, limits) = (id.clone(), *limits);
        blocking("update", move || {
            let refused = |error: std::io::Error| Error::Refused {
                id,
                action: "update",
                reason: error.to_string(),
            };
            cgroup.set(&limits).map_err(refused)
        })
        .await
    }
}
