//! Which nodes have a session with this manager, and each session's mailbox.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cluster_model::{NodeId, TaskId};
use cluster_pb::dispatcher::v1 as pb;
use tokio::sync::{Notify, mpsc, watch};

/// Log requests waiting for one worker; more are refused.
const LOG_REQUESTS: usize = 64;
const TAKEN_OVER: &str = "a newer session of this node took over";

/// What others leave for a session to look at.
pub struct Mailbox {
    pub session: u64,
    opened: Instant,
    dirty: Mutex<BTreeSet<TaskId>>,
    pub wake: Notify,
    /// Why the session has to end.
    closing: watch::Sender<Option<&'static str>>,
    pub log_requests: mpsc::Sender<pb::LogRequest>,
}

impl Mailbox {
    /// Takes the tasks that changed since the last call.
    pub fn take_dirty(&self) -> BTreeSet<TaskId> {
        std::mem::take(&mut *lock(&self.dirty))
    }

    /// Resolves, with the reason, when somebody wants the session to end.
    pub async fn closed(&self) -> &'static str {
        let mut closing = self.closing.subscribe();
        match closing.wait_for(Option::is_some).await.map(|reason| *reason) {
            Ok(Some(reason)) => reason,
            // The sender lives as long as `self`, and a reason was waited for.
            _ => std::future::pending().await,
        }
    }

    fn close(&self, reason: &'static str) {
        self.closing.send_replace(Some(reason));
    }

    fn is_closing(&self) -> bool {
        self.closing.borrow().is_some()
    }
}

pub struct SessionTable {
    by_node: Mutex<HashMap<NodeId, Arc<Mailbox>>>,
    /// Counts sessions that opened, for those who wait for a worker.
    opened: watch::Sender<u64>,
}

impl Default for SessionTable {
    fn default() -> Self {
        Self { by_node: Mutex::default(), opened: watch::Sender::new(0) }
    }
}

impl SessionTable {
    /// Opens a node's mailbox; an older session of the same node is told to close.
    pub fn open(
        &self,
        node: NodeId,
        session: u64,
    ) -> (Arc<Mailbox>, mpsc::Receiver<pb::LogRequest>) {
        let (log_requests, receiver) = mpsc::channel(LOG_REQUESTS);
        let mailbox = Arc::new(Mailbox {
            session,
            opened: Instant::now(),
            dirty: Mutex::default(),
            wake: Notify::new(),
            closing: watch::Sender::new(None),
            log_requests,
        });
        if let Some(older) = lock(&self.by_node).insert(node, mailbox.clone()) {
            older.close(TAKEN_OVER);
        }
        self.opened.send_modify(|count| *count += 1);
        (mailbox, receiver)
    }

    /// Forgets a session unless a newer one of the node has taken its place.
    pub fn close(&self, node: NodeId, session: u64) {
        let mut by_node = lock(&self.by_node);
        if by_node.get(&node).is_some_and(|mailbox| mailbox.session == session) {
            by_node.remove(&node);
        }
    }

    /// Tells sessions that opened before a moment to end, at most `max`, and answers how many.
    pub fn close_opened_before(&self, moment: Instant, reason: &'static str, max: usize) -> usize {
        let by_node = lock(&self.by_node);
        let old = by_node.values().filter(|open| open.opened < moment && !open.is_closing());
        old.take(max).map(|mailbox| mailbox.close(reason)).count()
    }

    pub fn count(&self) -> usize {
        lock(&self.by_node).len()
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

    /// Lets every session look at the cluster again.
    pub fn wake_all(&self) {
        lock(&self.by_node).values().for_each(|mailbox| mailbox.wake.notify_one());
    }

    pub fn watch_opened(&self) -> watch::Receiver<u64> {
        self.opened.subscribe()
    }
}

/// The tables hold plain values, so what a panicking holder left behind is still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_sessions_are_sent_away_a_few_at_a_time_and_each_once() {
        let table = SessionTable::default();
        let open = |node| table.open(NodeId(node), node).0;
        let mut sessions: Vec<_> = (1..=5).map(open).collect();
        let opened = Instant::now();
        let before = std::iter::repeat_with(Instant::now).find(|now| *now > opened).unwrap();
        sessions.push(open(6));
        let ended: Vec<usize> =
            (0..4).map(|_| table.close_opened_before(before, "cut off", 2)).collect();
        assert_eq!((ended, table.count()), (vec![2, 2, 1, 0], 6));
        let closing: Vec<bool> = sessions.iter().map(|session| session.is_closing()).collect();
        assert_eq!(closing, [true, true, true, true, true, false]);
    }
}
