//! The supervised task tree: every task has an owner that ends it, and a failure that counts.
//!
//! A [`Scope`] owns the tasks spawned on it and its child scopes' tasks. Cancelling or dropping it
//! ends them all; [`Scope::drain`] waits until they are gone, for a bounded time. A task that
//! fails or panics is logged once, here, and then its [`OnError`] decides.
//!
//! What never lives here: signals (see `shutdown`) and the order in which a daemon takes its parts
//! down, which is the order in which its main drains scopes.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::panics;

/// A task that ran this long before it failed starts its back-off anew.
const STEADY_AFTER: Duration = Duration::from_secs(60);

/// What a failed task means for the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Logged; the others go on.
    Log,
    /// Logged; [`Scope::failed`] of the whole tree fires and main ends the process.
    Shutdown,
}

/// What a supervised future returns: nothing, or a result whose error counts as a failure.
pub trait Outcome {
    fn into_error(self) -> Option<anyhow::Error>;
}

impl Outcome for () {
    fn into_error(self) -> Option<anyhow::Error> {
        None
    }
}

/// Names `!`, the type of an endless loop, which stable Rust does not let us write. Public for the
/// compiler only: nothing exports it.
pub trait Returns {
    type Value;
}

impl<T> Returns for fn() -> T {
    type Value = T;
}

impl Outcome for <fn() -> ! as Returns>::Value {
    fn into_error(self) -> Option<anyhow::Error> {
        self
    }
}

impl<E: Into<anyhow::Error>> Outcome for Result<(), E> {
    fn into_error(self) -> Option<anyhow::Error> {
        self.err().map(Into::into)
    }
}

/// The failure of a task with [`OnError::Shutdown`]. Already logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {kind} of scope {scope} failed: {error}")]
pub struct Failure {
    pub scope: String,
    pub kind: &'static str,
    /// The error with its causes, or the panic.
    pub error: String,
}

/// Tasks that did not end within [`Scope::drain`]'s deadline. They were aborted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tasks did not end in time: {}", kinds.join(", "))]
pub struct Stuck {
    pub kinds: Vec<&'static str>,
}

/// Owner of tasks. Not clonable: the owner is one. Tasks that spawn others do it through a
/// [`Scope::child`] given to them, or an `Arc` of a scope.
pub struct Scope {
    inner: Arc<Inner>,
}

struct Inner {
    path: String,
    token: CancellationToken,
    parent: Option<Arc<Inner>>,
    running: Mutex<BTreeMap<u64, Running>>,
    emptied: Notify,
    next_id: Arc<AtomicU64>,
    failed: watch::Sender<Option<Failure>>,
}

struct Running {
    kind: &'static str,
    abort: Option<AbortHandle>,
}

impl Scope {
    /// The root of a process's tree.
    pub fn root(name: &str) -> Self {
        Self {
            inner: Arc::new(Inner {
                path: name.to_owned(),
                token: CancellationToken::new(),
                parent: None,
                running: Mutex::default(),
                emptied: Notify::new(),
                next_id: Arc::default(),
                failed: watch::Sender::new(None),
            }),
        }
    }

    /// A scope that ends with this one, or earlier on its own: "term 5".
    pub fn child(&self, name: &str) -> Self {
        let parent = &self.inner;
        Self {
            inner: Arc::new(Inner {
                path: format!("{}/{name}", parent.path),
                token: parent.token.child_token(),
                parent: Some(parent.clone()),
                running: Mutex::default(),
                emptied: Notify::new(),
                next_id: parent.next_id.clone(),
                failed: parent.failed.clone(),
            }),
        }
    }

    /// Runs `task` until it ends or the scope is cancelled, when it is dropped at its next await.
    pub fn spawn<F>(&self, kind: &'static str, on_error: OnError, task: F)
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let (token, inner) = (self.inner.token.clone(), self.inner.clone());
        // Each future that wraps another holds room for it twice: there are thousands of sessions.
        let task = Box::pin(task);
        self.start(kind, async move {
            let run = supervise(task);
            if let Some(Err(error)) = token.run_until_cancelled(run).await {
                inner.report(kind, on_error, &error);
            }
        });
    }

    /// As [`Scope::spawn`] for a task that must end in its own way: it gets the token, and only
    /// the deadline of [`Scope::drain`] cuts it off.
    pub fn spawn_cooperative<F>(
        &self,
        kind: &'static str,
        on_error: OnError,
        task: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let (run, inner) = (supervise(task(self.inner.token.clone())), self.inner.clone());
        self.start(kind, async move {
            if let Err(error) = run.await {
                inner.report(kind, on_error, &error);
            }
        });
    }

    /// Runs the future that `make` gives, and a new one after each failure, waiting `backoff`.
    /// Ends when one succeeds or the scope is cancelled.
    pub fn spawn_restarting<F>(
        &self,
        kind: &'static str,
        mut backoff: Backoff,
        mut make: impl FnMut() -> F + Send + 'static,
    ) where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let (token, inner) = (self.inner.token.clone(), self.inner.clone());
        self.start(kind, async move {
            let run = async {
                loop {
                    let started = Instant::now();
                    // `make` is guarded too: it may panic like the future it makes.
                    let Err(error) = supervise(async { make().await }).await else { return };
                    if started.elapsed() >= STEADY_AFTER {
                        backoff.reset();
                    }
                    let delay = backoff.next_delay();
                    tracing::warn!(
                        scope = inner.path,
                        kind,
                        error,
                        attempt = backoff.attempts(),
                        delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                        "task failed and will be restarted"
                    );
                    tokio::time::sleep(delay).await;
                }
            };
            token.run_until_cancelled(run).await;
        });
    }

    /// For what watches the scope's end without being one of its tasks.
    pub fn token(&self) -> CancellationToken {
        self.inner.token.clone()
    }

    /// Asks every task of this scope and its children to end, and returns at once.
    pub fn cancel(&self) {
        self.inner.token.cancel();
    }

    pub async fn cancelled(&self) {
        self.inner.token.cancelled().await;
    }

    /// Completes when a task with [`OnError::Shutdown`], anywhere in the tree, has failed.
    pub async fn failed(&self) -> Failure {
        let mut failed = self.inner.failed.subscribe();
        match failed.wait_for(Option::is_some).await.map(|failure| (*failure).clone()) {
            Ok(Some(failure)) => failure,
            // The sender lives as long as `self`, and the predicate asked for a value.
            _ => std::future::pending().await,
        }
    }

    /// Cancels and waits until every task of this scope and its children is gone; what is left at
    /// the deadline is aborted and named.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Stuck> {
        self.cancel();
        if tokio::time::timeout(deadline, self.inner.wait_empty()).await.is_ok() {
            return Ok(());
        }
        let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_empty() {
            return Ok(());
        }
        let kinds = running.values().map(|task| task.kind).collect();
        for abort in running.values().filter_map(|task| task.abort.as_ref()) {
            abort.abort();
        }
        Err(Stuck { kinds })
    }

    /// Tasks that are running here and in child scopes, by kind.
    pub fn running(&self) -> Vec<&'static str> {
        let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.values().map(|task| task.kind).collect()
    }

    fn start(&self, kind: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        if self.inner.token.is_cancelled() {
            tracing::debug!(scope = self.inner.path, kind, "task not started: its scope has ended");
            return;
        }
        let entry = Entry::new(self.inner.clone(), kind);
        let id = entry.id;
        let handle = tokio::spawn(async move {
            // Dropped with the future, so aborting removes the entry too.
            let _entry = entry;
            task.await;
        });
        let abort = handle.abort_handle();
        for scope in self.inner.ancestry() {
            scope.with_running(|running| {
                if let Some(task) = running.get_mut(&id) {
                    task.abort = Some(abort.clone());
                }
            });
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.inner.token.cancel();
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

impl Inner {
    /// This scope and all above it.
    fn ancestry(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |scope| scope.parent.as_deref())
    }

    fn with_running<T>(&self, act: impl FnOnce(&mut BTreeMap<u64, Running>) -> T) -> T {
        act(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn wait_empty(&self) {
        loop {
            let mut emptied = pin!(self.emptied.notified());
            // Listen first, look second: an end in between is not missed.
            emptied.as_mut().enable();
            if self.with_running(|running| running.is_empty()) {
                return;
            }
            emptied.await;
        }
    }

    fn report(&self, kind: &'static str, on_error: OnError, error: &str) {
        tracing::error!(scope = self.path, kind, ?on_error, error, "task failed");
        if on_error == OnError::Shutdown {
            let failure = Failure { scope: self.path.clone(), kind, error: error.to_owned() };
            // The first failure is the cause; later ones are often its consequence.
            self.failed.send_if_modified(|current| {
                let first = current.is_none();
                current.get_or_insert(failure);
                first
            });
        }
    }
}

/// A task's place in the lists of its scope and of all above, for as long as its future exists.
struct Entry {
    scope: Arc<Inner>,
    id: u64,
}

impl Entry {
    fn new(scope: Arc<Inner>, kind: &'static str) -> Self {
        let id = scope.next_id.fetch_add(1, Ordering::Relaxed);
        for above in scope.ancestry() {
            above.with_running(|running| running.insert(id, Running { kind, abort: None }));
        }
        Self { scope, id }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        for scope in self.scope.ancestry() {
            let empty = scope.with_running(|running| {
                running.remove(&self.id);
                running.is_empty()
            });
            if empty {
                scope.emptied.notify_waiters();
            }
        }
    }
}

/// Polls `task` with panics caught; the error text has the whole chain of causes.
async fn supervise<F>(task: F) -> Result<(), String>
where
    F: Future<Output: Outcome>,
{
    let mut task = Box::pin(task);
    let outcome = std::future::poll_fn(|cx| match panics::catch(|| task.as_mut().poll(cx)) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(panic)),
    })
    .await?;
    outcome.into_error().map_or(Ok(()), |error| Err(format!("{error:#}")))
}

#[cfg(test)]
mod tests;
