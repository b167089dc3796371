//! When each task was assigned and ran, as its worker saw it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cluster_model::{ServiceId, TaskId};

const SHARDS: usize = 64;

/// One task's moments, in microseconds since the ledger was opened.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub service: ServiceId,
    pub slot: u32,
    /// The worker's place in the fleet.
    pub worker: u32,
    pub assigned_us: u64,
    pub running_us: Option<u64>,
    pub ended: bool,
}

/// Shared by all workers of a fleet.
pub struct Ledger {
    opened: Instant,
    shards: Vec<Mutex<HashMap<TaskId, Entry>>>,
    assigned: AtomicUsize,
    running: AtomicUsize,
    /// Told to end by a manager, or forgotten.
    stopped: AtomicUsize,
    /// Reports that managers said are committed, tasks in them.
    recorded: AtomicU64,
    /// Messages that workers heard, by kind.
    heard: [AtomicU64; KINDS.len()],
}

/// Kinds of messages from managers, as far as they are counted apart.
pub const KINDS: [&str; 6] = [
    "heard_assignments_per_task",
    "heard_reported_per_task",
    "heard_endpoints_per_task",
    "heard_withdrawn_per_task",
    "heard_beats_per_task",
    "heard_others_per_task",
];

impl Ledger {
    pub fn open() -> Self {
        Self {
            opened: Instant::now(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            assigned: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            stopped: AtomicUsize::new(0),
            recorded: AtomicU64::new(0),
            heard: Default::default(),
        }
    }

    pub fn now_us(&self) -> u64 {
        self.at_us(Instant::now())
    }

    pub fn at_us(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.opened);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// A worker was told of a task that it did not know.
    pub fn assigned(&self, task: TaskId, service: ServiceId, slot: u32, worker: u32) {
        let assigned_us = self.now_us();
        let entry = Entry { service, slot, worker, assigned_us, running_us: None, ended: false };
        if self.shard(task).insert(task, entry).is_none() {
            self.assigned.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn running(&self, task: TaskId) {
        let now = self.now_us();
        if let Some(entry) = self.shard(task).get_mut(&task)
            && entry.running_us.replace(now).is_none()
        {
            self.running.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn stopped(&self, task: TaskId) {
        if let Some(entry) = self.shard(task).get_mut(&task) {
            entry.ended = true;
        }
        self.stopped.fetch_add(1, Ordering::Relaxed);
    }

    pub fn recorded(&self, tasks: usize) {
        self.recorded.fetch_add(tasks as u64, Ordering::Relaxed);
    }

    pub fn heard(&self, kind: usize) {
        self.heard[kind].fetch_add(1, Ordering::Relaxed);
    }

    /// Messages heard so far, in the order of [`KINDS`].
    pub fn heard_counts(&self) -> [u64; KINDS.len()] {
        std::array::from_fn(|kind| self.heard[kind].load(Ordering::Relaxed))
    }

    /// Tasks ever assigned.
    pub fn assigned_count(&self) -> usize {
        self.assigned.load(Ordering::Relaxed)
    }

    /// Tasks that ever ran.
    pub fn running_count(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    pub fn stopped_count(&self) -> usize {
        self.stopped.load(Ordering::Relaxed)
    }

    pub fn recorded_count(&self) -> u64 {
        self.recorded.load(Ordering::Relaxed)
    }

    /// Entries of tasks assigned at or after a moment.
    pub fn since(&self, moment_us: u64) -> Vec<(TaskId, Entry)> {
        let all = self.shards.iter().flat_map(|shard| {
            lock(shard).iter().map(|(task, entry)| (*task, *entry)).collect::<Vec<_>>()
        });
        all.filter(|(_, entry)| entry.assigned_us >= moment_us).collect()
    }

    fn shard(&self, task: TaskId) -> MutexGuard<'_, HashMap<TaskId, Entry>> {
        lock(&self.shards[task.0 as usize % SHARDS])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
