//! What all parts of a running mesh share, and the guards that keep the counts
//! in [`Table`] right whatever way a connection ends.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::MeshConfig;
use super::counters::Counters;
use super::pool::Pools;
use super::table::{Table, Tokens, Via};
use super::tls::MeshTls;

pub(super) struct Core {
    pub config: MeshConfig,
    pub tls: Arc<dyn MeshTls>,
    pub pools: Pools,
    pub counters: Counters,
    pub stop: CancellationToken,
    /// Nothing new is taken in any more; what is open goes on.
    pub closing: CancellationToken,
    /// All that accepts, and all that was accepted, from its first moment on.
    pub serving: TaskTracker,
    /// Version in effect, for those who wait until it is reached.
    pub version: watch::Sender<u64>,
    table: Mutex<Table>,
    released: Notify,
}

impl Core {
    pub fn new(config: MeshConfig, tls: Arc<dyn MeshTls>) -> Arc<Self> {
        let stop = CancellationToken::new();
        Arc::new(Core {
            table: Mutex::new(Table::new(config.limits.backoff, stop.clone())),
            config,
            tls,
            pools: Pools::default(),
            counters: Counters::default(),
            closing: stop.child_token(),
            stop,
            serving: TaskTracker::new(),
            version: watch::Sender::new(0),
            released: Notify::new(),
        })
    }

    /// Held for moments only, never over an await.
    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `condition` holds; it is looked at whenever a connection or
    /// an attempt ended.
    pub async fn until(&self, condition: impl Fn(&Table) -> bool) {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if condition(&self.table()) {
                return;
            }
            released.await;
        }
    }

    pub fn begin(
        self: &Arc<Self>,
        via: Via,
        task_id: &str,
        remote: Option<&str>,
    ) -> Option<Attempt> {
        let tokens = self.table().begin(via, task_id, remote)?;
        Some(Attempt {
            tokens,
            via,
            counted: Counted {
                core: self.clone(),
                task_id: task_id.to_owned(),
                remote: remote.map(str::to_owned),
                stage: Stage::Dialing,
            },
        })
    }

    /// A connection from a port of this machine to a task here, and that task's address.
    pub fn begin_host(self: &Arc<Self>, task_id: &str) -> Option<(Ipv4Addr, Open)> {
        let (ip, cut) = self.table().begin_host(task_id)?;
        let counted = Counted {
            core: self.clone(),
            task_id: task_id.to_owned(),
            remote: None,
            stage: Stage::Host,
        };
        Some((ip, Open { cut, _counted: counted }))
    }
}

/// A counted attempt to reach a task.
pub(super) struct Attempt {
    pub tokens: Tokens,
    via: Via,
    counted: Counted,
}

/// A counted connection to a task.
pub(super) struct Open {
    pub cut: CancellationToken,
    _counted: Counted,
}

/// One unit in the table's counts, given back on drop.
struct Counted {
    core: Arc<Core>,
    task_id: String,
    remote: Option<String>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialing,
    Open,
    /// From a port of this machine, from its first moment on.
    Host,
}

impl Attempt {
    /// The connection may be used from here on; `None` when the task was
    /// removed while it was being made.
    pub fn promote(mut self) -> Option<Open> {
        let counted = &mut self.counted;
        let promoted = counted.core.table().promote(self.via, &counted.task_id);
        if promoted {
            counted.stage = Stage::Open;
        }
        counted.core.released.notify_waiters();
        promoted.then_some(Open { cut: self.tokens.cut, _counted: self.counted })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut table = self.core.table();
        let remote = self.remote.as_deref();
        match self.stage {
            Stage::Open => table.end_open(&self.task_id, remote),
            Stage::Dialing => table.end_dial(&self.task_id, remote),
            Stage::Host => table.end_host(&self.task_id),
        }
        drop(table);
        self.core.released.notify_waiters();
    }
}
