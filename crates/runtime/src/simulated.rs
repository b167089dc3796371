//! A runtime that runs nothing: containers are entries in a table that start, exit and fail as a
//! [`Script`] says. For scale tests and for tests of whoever drives a runtime.
//!
//! It obeys the same contract as the real ones, except for what needs a real process (`caps().real`
//! is false). Dropping it loses everything, as a reboot would.

mod script;

pub use script::Script;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::BroadcastStream;

use crate::error::{Error, Result};
use crate::exec::{ExecExit, ExecSession, ExecSpec};
use crate::logs::{LogLine, LogQuery, LogStream, OutputStream};
use crate::observe::{
    Caps, Created, Event, EventStream, Exit, ExitSource, Observed, Started, State, Stats,
};
use crate::process::unix_ms;
use crate::runtime::Runtime;
use crate::signal::Signal;
use crate::simulated::script::Plan;
use crate::spec::{ContainerId, ContainerSpec, Limits};

/// Events kept for a subscriber that does not read.
const EVENT_BACKLOG: usize = 4096;

/// See the module's text.
pub struct SimulatedRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    script: Mutex<Script>,
    containers: Mutex<BTreeMap<ContainerId, Arc<Container>>>,
    events: broadcast::Sender<Event>,
    creates: AtomicU64,
    /// Answers to execs, by their first word.
    execs: Mutex<BTreeMap<String, ExecAnswer>>,
}

/// What an exec on a simulated container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecAnswer {
    /// Says something and ends with a code.
    Exit(u8, String),
    /// Runs until it is dropped.
    Hang,
}

struct Container {
    spec: ContainerSpec,
    pid: u32,
    created_unix_ms: u64,
    life: watch::Sender<Life>,
    timer: Mutex<Option<AbortHandle>>,
}

#[derive(Clone, Copy)]
struct Life {
    state: State,
    started_unix_ms: Option<u64>,
    removed: bool,
}

impl SimulatedRuntime {
    /// All containers behave as the script says, unless their command is one the contract suite
    /// uses.
    pub fn new(script: Script) -> Self {
        let events = broadcast::channel(EVENT_BACKLOG).0;
        Self {
            inner: Arc::new(Inner {
                script: Mutex::new(script),
                containers: Mutex::default(),
                events,
                creates: AtomicU64::new(0),
                execs: Mutex::default(),
            }),
        }
    }

    /// Changes the behaviour of containers created or started from now on.
    pub fn set_script(&self, script: Script) {
        *lock(&self.inner.script) = script;
    }

    /// From now on execs of this program are answered so; all others with code 0.
    pub fn answer_exec(&self, program: &str, answer: ExecAnswer) {
        lock(&self.inner.execs).insert(program.to_owned(), answer);
    }

    /// Ends a running container as if it had done so itself; `false` if it does not run.
    pub fn end(&self, id: &ContainerId, code: Option<u8>, signal: Option<u8>) -> bool {
        self.inner.get(id).is_ok_and(|container| self.inner.finish(&container, code, signal, false))
    }

    /// Ends a running container as the kernel does when memory is short.
    pub fn out_of_memory(&self, id: &ContainerId) -> bool {
        self.inner.get(id).is_ok_and(|container| self.inner.finish(&container, None, Some(9), true))
    }
}

impl Inner {
    fn get(&self, id: &ContainerId) -> Result<Arc<Container>> {
        lock(&self.containers).get(id).cloned().ok_or_else(|| Error::NotFound { id: id.clone() })
    }

    fn script(&self) -> Script {
        lock(&self.script).clone()
    }

    fn tell(&self, event: Event) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    fn finish(
        &self,
        container: &Container,
        code: Option<u8>,
        signal: Option<u8>,
        oom: bool,
    ) -> bool {
        let exit = Exit { code, signal, oom, at_unix_ms: unix_ms(), source: ExitSource::Observed };
        container.life.send_if_modified(|life| {
            let alive = life.state.exit().is_none() && !life.removed;
            if alive {
                life.state = State::Exited(exit);
                // Before anybody who waits wakes up and removes it.
                self.tell(Event::Exited(container.spec.id.clone(), exit));
            }
            alive
        })
    }
}

impl Container {
    fn life(&self) -> Life {
        *self.life.borrow()
    }

    fn observed(&self) -> Observed {
        let life = self.life();
        Observed {
            id: self.spec.id.clone(),
            state: life.state,
            pid: life.state.exit().is_none().then_some(self.pid),
            labels: self.spec.labels.clone(),
            created_unix_ms: self.created_unix_ms,
            started_unix_ms: life.started_unix_ms,
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(timer) = lock(&self.timer).take() {
            timer.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Runtime for SimulatedRuntime {
    fn caps(&self) -> Caps {
        Caps {
            exec: true,
            stats: true,
            update: true,
            oom: true,
            create_start_split: true,
            real: false,
            survives_agent: false,
        }
    }

    async fn recover(&self) -> Result<Vec<Observed>> {
        self.list(&BTreeMap::new()).await
    }

    fn events(&self) -> EventStream {
        let events = BroadcastStream::new(self.inner.events.subscribe());
        events.map(|event| event.unwrap_or(Event::Resync)).boxed()
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<Created> {
        spec.validate().map_err(|source| Error::Invalid { id: spec.id.clone(), source })?;
        let script = self.inner.script();
        if !script.create_time.is_zero() {
            tokio::time::sleep(script.create_time).await;
        }
        let (pid, new) = {
            let mut containers = lock(&self.inner.containers);
            match containers.get(&spec.id) {
                Some(known) if known.spec == *spec => (known.pid, false),
                Some(_) => return Err(Error::Conflict { id: spec.id.clone() }),
                None => {
                    let number = self.inner.creates.fetch_add(1, Ordering::Relaxed);
                    // 7 and 1000 have no common divisor: every thousand creates hit each value once.
                    if number.wrapping_mul(7) % 1000 < u64::from(script.failures_per_thousand) {
                        let reason = "the script says so".to_owned();
                        return Err(Error::Refused {
                            id: spec.id.clone(),
                            action: "create",
                            reason,
                        });
                    }
                    let pid = u32::try_from(number % 4_000_000).unwrap_or(0) + 2;
                    let life =
                        Life { state: State::Created, started_unix_ms: None, removed: false };
                    let container = Container {
                        spec: spec.clone(),
                        pid,
                        created_unix_ms: unix_ms(),
                        life: watch::Sender::new(life),
                        timer: Mutex::default(),
                    };
                    containers.insert(spec.id.clone(), Arc::new(container));
                    (pid, true)
                }
            }
        };
        if new {
            self.inner.tell(Event::Created(spec.id.clone()));
        }
        Ok(Created {
            pid,
            netns: spec.netns.clone().unwrap_or_else(|| PathBuf::from("/proc/self/ns/net")),
        })
    }

    async fn start(&self, id: &ContainerId) -> Result<Started> {
        let container = self.inner.get(id)?;
        let script = self.inner.script();
        if container.life().state == State::Created && !script.start_time.is_zero() {
            tokio::time::sleep(script.start_time).await;
        }
        let now = unix_ms();
        let started = container.life.send_if_modified(|life| {
            let waits = life.state == State::Created;
            if waits {
                life.state = State::Running;
                life.started_unix_ms = Some(now);
            }
            waits
        });
        let life = container.life();
        if !started && life.state.exit().is_some() {
            return Err(Error::WrongState { id: id.clone(), state: "exited", action: "start" });
        }
        if started {
            self.inner.tell(Event::Started(id.clone()));
            if let Some((after, code)) = Plan::of(&container.spec, &script).exit_after {
                let (inner, ending) = (Arc::downgrade(&self.inner), Arc::downgrade(&container));
                let timer = tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    if let (Some(inner), Some(container)) = (inner.upgrade(), ending.upgrade()) {
                        inner.finish(&container, Some(code), None, false);
                    }
                });
                *lock(&container.timer) = Some(timer.abort_handle());
            }
        }
        Ok(Started { pid: container.pid, at_unix_ms: life.started_unix_ms.unwrap_or(now) })
    }

    async fn signal(&self, id: &ContainerId, signal: Signal) -> Result<()> {
        let container = self.inner.get(id)?;
        let plan = Plan::of(&container.spec, &self.inner.script());
        let deadly = signal == Signal::KILL
            || (!plan.ignore_stop && container.life().state == State::Running);
        if deadly {
            self.inner.finish(&container, None, Some(signal.number()), false);
        }
        Ok(())
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit> {
        let container = self.inner.get(id)?;
        let mut life = container.life.subscribe();
        let ended = life
            .wait_for(|life| life.state.exit().is_some() || life.removed)
            .await
            .map(|life| life.state.exit());
        ended.ok().flatten().ok_or_else(|| Error::NotFound { id: id.clone() })
    }

    async fn remove(&self, id: &ContainerId, force: bool) -> Result<()> {
        let Ok(container) = self.inner.get(id) else { return Ok(()) };
        if container.life().state.exit().is_none() {
            if !force {
                return Err(Error::WrongState {
                    id: id.clone(),
                    state: "alive",
                    action: "be removed without force",
                });
            }
            self.inner.finish(&container, None, Some(9), false);
        }
        if lock(&self.inner.containers).remove(id).is_some() {
            container.life.send_modify(|life| life.removed = true);
            self.inner.tell(Event::Removed(id.clone()));
        }
        Ok(())
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Observed>> {
        Ok(self.inner.get(id).ok().map(|container| container.observed()))
    }

    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<Observed>> {
        let carries = |container: &Container| {
            labels.iter().all(|(key, value)| container.spec.labels.get(key) == Some(value))
        };
        Ok(lock(&self.inner.containers)
            .values()
            .filter(|container| carries(container))
            .map(|container| container.observed())
            .collect())
    }

    async fn exec(&self, id: &ContainerId, exec: ExecSpec) -> Result<ExecSession> {
        let container = self.inner.get(id)?;
        match container.life().state {
            State::Running => {}
            State::Created | State::Exited(_) => {
                return Err(Error::WrongState {
                    id: id.clone(),
                    state: "not running",
                    action: "exec",
                });
            }
        }
        let program = exec.args.first().map(String::as_str).unwrap_or_default();
        let answer = lock(&self.inner.execs).get(program).cloned();
        let (text, exit) = match answer.unwrap_or_else(|| ExecAnswer::Exit(0, String::new())) {
            ExecAnswer::Exit(code, text) => {
                (text, async move { Ok(ExecExit { code: Some(code), signal: None }) }.boxed())
            }
            ExecAnswer::Hang => (String::new(), std::future::pending().boxed()),
        };
        Ok(ExecSession {
            stdin: None,
            stdout: Box::new(std::io::Cursor::new(text.into_bytes())),
            stderr: Box::new(tokio::io::empty()),
            exit,
        })
    }

    fn logs(&self, id: &ContainerId, query: LogQuery) -> LogStream {
        let container = match self.inner.get(id) {
            Ok(container) => container,
            Err(error) => return futures::stream::iter([Err(error)]).boxed(),
        };
        let started = container.life().started_unix_ms.map(|ms| ms.saturating_mul(1_000_000));
        let wanted = started.filter(|nanos| {
            query.since_unix_nanos.is_none_or(|since| *nanos >= since) && query.tail != Some(0)
        });
        let line = wanted.map(|unix_nanos| {
            let text = format!("simulated {id} started").into_bytes();
            Ok(LogLine {
                unix_nanos: unix_nanos.min(crate::process::unix_nanos()),
                stream: OutputStream::Stdout,
                text,
                partial: false,
            })
        });
        let lines = futures::stream::iter(line);
        if !query.follow {
            return lines.boxed();
        }
        let end = futures::stream::once(async move {
            let mut life = container.life.subscribe();
            let _ = life.wait_for(|life| life.state.exit().is_some() || life.removed).await;
        });
        lines.chain(end.filter_map(|()| async { None })).boxed()
    }

    async fn stats(&self, id: Option<&ContainerId>) -> Result<Vec<Stats>> {
        let containers = match id {
            Some(id) => vec![self.inner.get(id)?],
            None => lock(&self.inner.containers).values().cloned().collect(),
        };
        let live = containers.iter().filter(|container| container.life().state.exit().is_none());
        Ok(live
            .map(|container| Stats {
                id: container.spec.id.clone(),
                cpu_usage_nanos: 0,
                memory_bytes: 0,
                memory_limit_bytes: container.spec.limits.memory_bytes,
                pids: 1,
            })
            .collect())
    }

    async fn update(&self, id: &ContainerId, limits: &Limits) -> Result<()> {
        let container = self.inner.get(id)?;
        let checked = ContainerSpec { limits: *limits, ..container.spec.clone() };
        checked.validate().map_err(|source| Error::Invalid { id: id.clone(), source })
    }
}
