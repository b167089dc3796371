//! The seam between the worker and whatever runs containers.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::exec::{ExecSession, ExecSpec};
use crate::logs::{LogQuery, LogStream};
use crate::observe::{Caps, Created, EventStream, Exit, Observed, Started, State, Stats};
use crate::signal::Signal;
use crate::spec::{ContainerId, ContainerSpec, Limits};

/// Runs containers on this node.
///
/// *Flow*: `recover` once after start, then for each container `create`, wire its network, `start`,
/// `wait`, `remove`. `stop` ends one. The caller chooses ids, so every call can be repeated.
///
/// *Guarantees*: containers outlive the runtime object (where `caps().survives_agent`); an exit is
/// told once it is durable, and stays readable until `remove`; an unknown exit code is `None`,
/// never 0.
///
/// *Assumes*: one runtime object at a time per state folder. Images are the caller's: it unpacks
/// them through `cluster-image`, hands over layer folders, and garbage-collects with the containers
/// that `list` names as roots. So there is no `ensure_image` and no image collection here.
///
/// *On failure*: a failed `create` leaves nothing behind. Calls on an id that does not exist give
/// `NotFound`, except `remove` (absent is what it wants) and `inspect` (`None`).
#[async_trait]
pub trait Runtime: Send + Sync {
    /// What this runtime can do; constant.
    fn caps(&self) -> Caps;

    /// First call after start: finds what runs, adopts it, learns exits that happened meanwhile and
    /// sweeps what belongs to no container. Never kills a container. Repeating it is harmless.
    async fn recover(&self) -> Result<Vec<Observed>>;

    /// Wake-ups from now on. Subscribe first, list second.
    fn events(&self) -> EventStream;

    /// Sets the container up to just before its command. An existing container with an identical
    /// spec is success; with a different one `Conflict`.
    async fn create(&self, spec: &ContainerSpec) -> Result<Created>;

    /// Executes the command. Starting a running container is success.
    async fn start(&self, id: &ContainerId) -> Result<Started>;

    /// Sends a signal to the first process. An exited container is success, as the kernel has it
    /// for a process nobody waited for.
    async fn signal(&self, id: &ContainerId, signal: Signal) -> Result<()>;

    /// Resolves when it ended; at once if it already did. Repeatable and cancel-safe.
    async fn wait(&self, id: &ContainerId) -> Result<Exit>;

    /// Removes an ended container, its logs and its writable layer. A live one is killed first if
    /// `force`, else `WrongState`. Absent is success.
    async fn remove(&self, id: &ContainerId, force: bool) -> Result<()>;

    /// The container as it is, `None` if absent.
    async fn inspect(&self, id: &ContainerId) -> Result<Option<Observed>>;

    /// Containers that carry all of the given labels, by id.
    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<Observed>>;

    /// Runs one more process in a running container.
    async fn exec(&self, id: &ContainerId, exec: ExecSpec) -> Result<ExecSession>;

    /// Its output, oldest first. With `follow` the stream ends when the container ended and all was
    /// read, or when it is removed.
    fn logs(&self, id: &ContainerId, query: LogQuery) -> LogStream;

    /// Usage now: of one container, or of all live ones.
    async fn stats(&self, id: Option<&ContainerId>) -> Result<Vec<Stats>>;

    /// Changes the limits of a live container; fields that are `None` stay as they are.
    async fn update(&self, id: &ContainerId, limits: &Limits) -> Result<()>;

    /// Asks it to end and makes it end: the signal, up to `grace` of waiting, then SIGKILL.
    /// A container that was never started is killed at once.
    async fn stop(&self, id: &ContainerId, signal: Signal, grace: Duration) -> Result<Exit> {
        let waits = match self.inspect(id).await? {
            Some(Observed { state: State::Exited(exit), .. }) => return Ok(exit),
            Some(Observed { state: State::Running, .. }) => {
                !grace.is_zero() && signal != Signal::KILL
            }
            Some(Observed { state: State::Created, .. }) | None => false,
        };
        if waits {
            self.signal(id, signal).await?;
            if let Ok(ended) = tokio::time::timeout(grace, self.wait(id)).await {
                return ended;
            }
        }
        self.signal(id, Signal::KILL).await?;
        self.wait(id).await
    }
}
