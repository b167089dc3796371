//! Which nodes have a session with this manager, and each session's mailbox.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster_model::{NodeId, TaskId};
use cluster_pb::dispatcher::v1 as pb;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Log requests waiting for one worker; more are refused.
const LOG_REQUESTS: usize = 64;

/// What others leave for a session to look at.
pub struct Mailbox {
    pub session: u64,
    dirty: Mutex<BTreeSet<TaskId>>,
    pub wake: Notify,
    pub closed: CancellationToken,
    pub log_requests: mpsc::Sender<pb::LogRequest>,
}

impl Mailbox {
    /// Takes the tasks that changed since the last call.
    pub fn take_dirty(&self) -> BTreeSet<TaskId> {
        std::mem::take(&mut *lock(&self.dirty))
    }
}

#[derive(Default)]
pub struct SessionTable {
    by_node: Mutex<HashMap<NodeId, Arc<Mailbox>>>,
}

impl SessionTable {
    /// Opens a node's mailbox; an older session of the same node is told to close.
    pub fn open(&self, node: NodeId, session: u64) -> (Arc<Mailbox>, mpsc::Receiver<pb::LogRequest>) {
        let (log_requests, receiver) = mpsc::channel(LOG_REQUESTS);
        let mailbox = Arc::new(Mailbox {
            session,
            dirty: Mutex::default(),
            wake: Notify::new(),
            closed: CancellationToken::new(),
            log_requests,
        });
        if let Some(older) = lock(&self.by_node).insert(node, mailbox.clone()) {
            older.closed.cancel();
        }
        (mailbox, receiver)
    }

    /// Forgets a session unless a newer one of the node has taken its place.
    pub fn close(&self, node: NodeId, session: u64) {
        let mut by_node = lock(&self.by_node);
        if by_node.get(&node).is_some_and(|mailbox| mailbox.session == session) {
            by_node.remove(&node);
        }
    }

    pub fn get(&self, node: NodeId) -> Option<Arc<Mailbox>> {
        lock(&self.by_node).get(&node).cloned()
    }

    /// Leaves a task for the node's session to look at.
    pub fn mark(&self, node: NodeId, task: TaskId) {
        if let Some(mailbox) = self.get(node) {
            lock(&mailbox.dirty).insert(task);
            mailbox.wake.notify_one();
        }
    }

    /// Lets the node's session look at its node again.
    pub fn wake(&self, node: NodeId) {
        if let Some(mailbox) = self.get(node) {
            mailbox.wake.notify_one();
        }
    }
}

/// The tables hold plain values, so what a panicking holder left behind is still whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
