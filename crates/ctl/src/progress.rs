//! How far a service is from what was asked: a pure function of what the managers told.
//!
//! *Flow.* [`Tracker::observe`] takes each state of the service and its tasks with the moment it
//! came; [`Tracker::verdict`] says whether to go on waiting; [`Tracker::picture`] is what people
//! see, drawn by [`draw`].
//! *Guarantees.* It never waits for ever while nothing happens: a slot that stands still for the
//! patience given, or that failed [`FAILURES_MAX`] times, ends the wait with the reason.

pub mod draw;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use cluster_pb::types::v1 as pb;

/// Failures of one slot after which it is not expected to run.
const FAILURES_MAX: usize = 3;
/// How long all replicas must stay running before that is believed. A program that cannot work
/// mostly ends within this.
const SETTLE: Duration = Duration::from_millis(20);
/// The same once a task has failed meanwhile.
const SETTLE_AFTER_FAILURE: Duration = Duration::from_secs(1);
const EXHAUSTED: &str = "restart policy allows no further attempt";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again when something comes, or at this moment.
    Waiting {
        until: Option<Instant>,
    },
    Converged,
    /// Tasks fail: more time alone will not help.
    Failing {
        reason: String,
    },
    /// Nothing moves.
    Stuck {
        reason: String,
    },
}

/// What one slot shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub slot: u32,
    pub state: String,
    /// Where it runs, why it waits, what failed last.
    pub detail: String,
}

/// What people see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    pub wanted: u32,
    pub running: u32,
    /// Tasks of older revisions or of slots that are no longer wanted.
    pub leaving: u32,
    pub lines: Vec<Line>,
}

#[derive(Debug)]
struct Slot {
    /// Of the task, or of the lack of one: what has to change for the slot to count as moving.
    mark: String,
    since: Instant,
    line: Line,
    running: bool,
    failed: BTreeSet<String>,
    last_failure: String,
    exhausted: bool,
}

#[derive(Debug)]
pub struct Tracker {
    patience: Duration,
    /// Failures of this revision from before do not count: somebody knew of them.
    revision_before: Option<u32>,
    known_failures: Option<BTreeSet<String>>,
    seen: bool,
    wanted: u32,
    leaving: u32,
    slots: BTreeMap<u32, Slot>,
    all_running_since: Option<Instant>,
    any_failed: bool,
}

impl Tracker {
    /// `revision_before`: the revision that the service had before the change, if it existed.
    pub fn new(patience: Duration, revision_before: Option<u32>) -> Self {
        Self {
            patience,
            revision_before,
            known_failures: None,
            seen: false,
            wanted: 0,
            leaving: 0,
            slots: BTreeMap::new(),
            all_running_since: None,
            any_failed: false,
        }
    }

    pub fn observe(&mut self, service: &pb::Service, tasks: &[pb::Task], now: Instant) {
        self.seen = true;
        self.wanted = service.desired;
        let current = |task: &&pb::Task| task.revision == service.revision;
        self.leaving = count(tasks.iter().filter(|task| {
            fills(task) && (task.revision != service.revision || task.slot > service.desired)
        }));
        let known = self.known_failures.get_or_insert_with(|| {
            let before = self.revision_before == Some(service.revision);
            let ended = tasks.iter().filter(current).filter(|task| before && has_failed(task));
            ended.map(|task| task.id.clone()).collect()
        });
        let known = known.clone();
        self.slots.retain(|slot, _| *slot <= service.desired);
        let mut by_slot: BTreeMap<u32, Vec<&pb::Task>> = BTreeMap::new();
        for task in tasks.iter().filter(current) {
            by_slot.entry(task.slot).or_default().push(task);
        }
        for slot in 1..=service.desired {
            let tasks = by_slot.remove(&slot).unwrap_or_default();
            let fresh: Vec<&pb::Task> =
                tasks.iter().copied().filter(|task| !known.contains(&task.id)).collect();
            self.observe_slot(slot, &tasks, &fresh, now);
        }
        self.any_failed |= self.slots.values().any(|slot| !slot.failed.is_empty());
        let all = self.leaving == 0 && self.slots.values().all(|slot| slot.running);
        self.all_running_since = match (all, self.all_running_since) {
            (false, _) => None,
            (true, since) => Some(since.unwrap_or(now)),
        };
    }

    fn observe_slot(
        &mut self,
        number: u32,
        tasks: &[&pb::Task],
        fresh: &[&pb::Task],
        now: Instant,
    ) {
        let task = present(tasks);
        let slot = self.slots.entry(number).or_insert_with(|| Slot {
            mark: String::new(),
            since: now,
            line: Line { slot: number, state: "new".to_owned(), detail: String::new() },
            running: false,
            failed: BTreeSet::new(),
            last_failure: String::new(),
            exhausted: false,
        });
        for failed in fresh.iter().filter(|task| has_failed(task)) {
            if slot.failed.insert(failed.id.clone()) {
                slot.last_failure = failure(failed);
            }
        }
        let mark = task.map(mark).unwrap_or_default();
        if mark != slot.mark {
            slot.mark = mark;
            slot.since = now;
        }
        slot.running =
            task.is_some_and(|t| t.desired_state == "running" && t.observed_state == "running");
        slot.exhausted = task.is_some_and(|t| !fills(t) && has_failed(t) && t.reason == EXHAUSTED);
        if slot.exhausted && slot.last_failure.is_empty() {
            slot.last_failure = task.map(failure).unwrap_or_default();
        }
        slot.line.state = task.map_or("new", |task| task.observed_state.as_str()).to_owned();
        slot.line.detail = task.map(|task| detail(task, &slot.last_failure)).unwrap_or_default();
    }

    pub fn verdict(&self, now: Instant) -> Verdict {
        if !self.seen {
            return Verdict::Waiting { until: None };
        }
        if let Some(since) = self.all_running_since {
            let settled = since + if self.any_failed { SETTLE_AFTER_FAILURE } else { SETTLE };
            // Nothing has to prove itself where nothing is wanted.
            if now >= settled || self.wanted == 0 {
                return Verdict::Converged;
            }
            return Verdict::Waiting { until: Some(settled) };
        }
        if let Some((number, slot)) = self.slots.iter().find(|(_, slot)| slot.exhausted) {
            let reason = format!("slot {number}: {}; its {EXHAUSTED}", slot.last_failure);
            return Verdict::Failing { reason };
        }
        let failing = self.slots.iter().find(|(_, slot)| slot.failed.len() >= FAILURES_MAX);
        if let Some((number, slot)) = failing {
            let times = slot.failed.len();
            let reason = format!("slot {number} failed {times} times, last: {}", slot.last_failure);
            return Verdict::Failing { reason };
        }
        let oldest =
            self.slots.iter().filter(|(_, slot)| !slot.running).min_by_key(|(_, s)| s.since);
        match oldest {
            Some((number, slot)) if now >= slot.since + self.patience => {
                Verdict::Stuck { reason: stuck(*number, slot) }
            }
            Some((_, slot)) => Verdict::Waiting { until: Some(slot.since + self.patience) },
            None => Verdict::Waiting { until: None },
        }
    }

    pub fn picture(&self) -> Picture {
        Picture {
            wanted: self.wanted,
            running: count(self.slots.values().filter(|slot| slot.running)),
            leaving: self.leaving,
            lines: self.slots.values().map(|slot| slot.line.clone()).collect(),
        }
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

/// Wanted and not over.
fn fills(task: &pb::Task) -> bool {
    let wanted = matches!(task.desired_state.as_str(), "ready" | "running");
    let over = matches!(
        task.observed_state.as_str(),
        "complete" | "shutdown" | "failed" | "rejected" | "lost"
    );
    wanted && !over
}

/// Ended by itself. A lost node or an order to stop is not the task's failure.
fn has_failed(task: &pb::Task) -> bool {
    matches!(task.observed_state.as_str(), "failed" | "rejected" | "complete")
}

/// The task that stands for its slot: the one that fills it, else the newest.
fn present<'a>(tasks: &[&'a pb::Task]) -> Option<&'a pb::Task> {
    let newest = |task: &&&pb::Task| (fills(task), task.created_at_ms, task.version);
    tasks.iter().max_by_key(newest).copied()
}

/// Why a task is pending may be retold in other words without anything having moved.
fn mark(task: &pb::Task) -> String {
    match task.observed_state.as_str() {
        "new" | "pending" => format!("{} waits", task.slot),
        state => format!("{} {state} {}", task.id, task.message),
    }
}

fn failure(task: &pb::Task) -> String {
    let code = task.exit_code.map(|code| format!("exited with code {code}"));
    let what = match (task.error.as_str(), task.oom) {
        ("", true) => "ran out of memory".to_owned(),
        ("", false) => code.unwrap_or_else(|| format!("ended as {}", task.observed_state)),
        (error, _) => error.to_owned(),
    };
    match task.node_name.as_str() {
        "" => what,
        node => format!("{what} (on {node})"),
    }
}

fn detail(task: &pb::Task, last_failure: &str) -> String {
    let mut parts = Vec::new();
    let ended = has_failed(task);
    if ended {
        parts.push(failure(task));
    } else {
        if !task.node_name.is_empty() {
            parts.push(format!("on {}", task.node_name));
        }
        if !task.message.is_empty() && task.observed_state != "running" {
            parts.push(task.message.clone());
        }
        if !last_failure.is_empty() && task.observed_state != "running" {
            parts.push(format!("last failure: {last_failure}"));
        }
    }
    parts.join(", ")
}

fn stuck(number: u32, slot: &Slot) -> String {
    let Line { state, detail, .. } = &slot.line;
    let state = if state == "new" { "has no task yet" } else { state };
    match detail.as_str() {
        "" => format!("slot {number}: {state}"),
        detail => format!("slot {number}: {state}, {detail}"),
    }
}

#[cfg(test)]
mod tests;
