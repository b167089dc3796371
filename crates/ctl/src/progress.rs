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
/// How much longer replicas must stay running once a task has failed meanwhile.
const SETTLE_AFTER_FAILURE: u32 = 10;
/// Slots looked at one by one; of larger services the managers show no more tasks than about
/// this, and the counts on the service tell the rest.
const SLOTS_MAX: u32 = 1500;
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
    waits_its_turn: bool,
}

/// What is shown of one slot at one moment.
#[derive(Default)]
struct Seen<'a> {
    /// Tasks of the present revision.
    current: Vec<&'a pb::Task>,
    /// Those of them that failed, and of which nobody knew before the change.
    failed: Vec<&'a pb::Task>,
    /// The task of an older revision that still fills the slot.
    outdated: Option<&'a pb::Task>,
}

impl Slot {
    fn new(number: u32, now: Instant) -> Self {
        Self {
            mark: String::new(),
            since: now,
            line: Line { slot: number, state: "new".to_owned(), detail: String::new() },
            running: false,
            failed: BTreeSet::new(),
            last_failure: String::new(),
            exhausted: false,
            waits_its_turn: true,
        }
    }

    /// Whether it moved.
    fn observe(&mut self, seen: &Seen<'_>, now: Instant) -> bool {
        for failed in &seen.failed {
            if self.failed.insert(failed.id.clone()) {
                self.last_failure = failure(failed);
            }
        }
        let task = present(&seen.current);
        let mark = task.map(mark).unwrap_or_default();
        let moved = mark != self.mark;
        if moved {
            self.mark = mark;
            self.since = now;
        }
        self.waits_its_turn = task.is_none();
        self.running =
            task.is_some_and(|t| t.desired_state == "running" && t.observed_state == "running");
        self.exhausted = task.is_some_and(|t| !fills(t) && has_failed(t) && t.reason == EXHAUSTED);
        if self.exhausted && self.last_failure.is_empty() {
            self.last_failure = task.map(failure).unwrap_or_default();
        }
        let (state, detail) = match (task, seen.outdated) {
            (Some(task), _) => (task.observed_state.as_str(), detail(task, &self.last_failure)),
            (None, Some(old)) => ("outdated", detail(old, "")),
            (None, None) => ("new", String::new()),
        };
        self.line.state = state.to_owned();
        self.line.detail = detail;
        moved
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a slot may stand still.
    pub patience: Duration,
    /// How long all replicas must stay running before that is believed: a program that cannot
    /// work mostly ends within moments.
    pub settle: Duration,
}

#[derive(Debug)]
pub struct Tracker {
    limits: Limits,
    began: Instant,
    /// Failures of this revision from before do not count: somebody knew of them.
    revision_before: Option<u32>,
    known_failures: Option<BTreeSet<String>>,
    seen: bool,
    wanted: u32,
    running: u32,
    leaving: u32,
    /// When anything moved last: slots that wait for their turn in an update move with the others.
    moved: Instant,
    slots: BTreeMap<u32, Slot>,
    all_running_since: Option<Instant>,
    any_failed: bool,
}

impl Tracker {
    /// `revision_before`: the revision that the service had before the change, if it existed.
    pub fn new(limits: Limits, revision_before: Option<u32>, now: Instant) -> Self {
        Self {
            limits,
            began: now,
            revision_before,
            known_failures: None,
            seen: false,
            wanted: 0,
            running: 0,
            leaving: 0,
            moved: now,
            slots: BTreeMap::new(),
            all_running_since: None,
            any_failed: false,
        }
    }

    pub fn observe(&mut self, service: &pb::Service, tasks: &[pb::Task], now: Instant) {
        self.seen = true;
        self.wanted = service.desired;
        let current = |task: &&pb::Task| task.revision == service.revision;
        let leaving = count(tasks.iter().filter(|task| {
            fills(task) && (task.revision != service.revision || task.slot > service.desired)
        }));
        if leaving != self.leaving {
            self.moved = now;
        }
        self.leaving = leaving;
        let revision_before = self.revision_before;
        let known = self.known_failures.get_or_insert_with(|| {
            let before = revision_before == Some(service.revision);
            let ended = tasks.iter().filter(current).filter(|task| before && has_failed(task));
            ended.map(|task| task.id.clone()).collect()
        });
        let shown = service.desired.min(SLOTS_MAX);
        let mut by_slot: BTreeMap<u32, Seen<'_>> = BTreeMap::new();
        let numbers = slot_numbers(tasks, shown);
        for task in tasks.iter().filter(|task| numbers.contains(&task.slot)) {
            let seen = by_slot.entry(task.slot).or_default();
            if !current(&task) {
                seen.outdated = seen.outdated.or(Some(task)).filter(|task| fills(task));
                continue;
            }
            seen.current.push(task);
            if has_failed(task) && !known.contains(&task.id) {
                seen.failed.push(task);
            }
        }
        self.slots.retain(|slot, _| numbers.contains(slot));
        for slot in numbers {
            let seen = by_slot.remove(&slot).unwrap_or_default();
            if self.slots.entry(slot).or_insert_with(|| Slot::new(slot, now)).observe(&seen, now) {
                self.moved = now;
            }
        }
        self.any_failed |= self.slots.values().any(|slot| !slot.failed.is_empty());
        self.running = match shown == service.desired {
            true => count(self.slots.values().filter(|slot| slot.running)),
            false => service.running.saturating_sub(service.outdated),
        };
        let all = self.leaving == 0
            && self.running >= self.wanted
            && self.slots.values().all(|slot| slot.running);
        self.all_running_since = match (all, self.all_running_since) {
            (false, _) => None,
            (true, since) => Some(since.unwrap_or(now)),
        };
    }

    pub fn verdict(&self, now: Instant) -> Verdict {
        if !self.seen {
            let until = self.began + self.limits.patience;
            if now < until {
                return Verdict::Waiting { until: Some(until) };
            }
            return Verdict::Stuck { reason: "no manager shows the change yet".to_owned() };
        }
        if let Some(since) = self.all_running_since {
            let factor = if self.any_failed { SETTLE_AFTER_FAILURE } else { 1 };
            let settled = since + self.limits.settle * factor;
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
        let patience = self.limits.patience;
        let still = |slot: &Slot| if slot.waits_its_turn { self.moved } else { slot.since };
        let behind = self.slots.iter().filter(|(_, slot)| !slot.running);
        let (since, reason) = match behind.min_by_key(|(_, slot)| still(slot)) {
            Some((number, slot)) => (still(slot), stuck(*number, slot)),
            None => (self.moved, draw::overall(&self.picture())),
        };
        if now >= since + patience {
            return Verdict::Stuck { reason };
        }
        Verdict::Waiting { until: Some(since + patience) }
    }

    pub fn picture(&self) -> Picture {
        Picture {
            wanted: self.wanted,
            running: self.running,
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

/// Where it is and why it is not running yet; what failed before, when there is nothing newer.
fn detail(task: &pb::Task, last_failure: &str) -> String {
    if has_failed(task) {
        return failure(task);
    }
    let place = match task.node_name.as_str() {
        "" => String::new(),
        node => format!("on {node}"),
    };
    let story = match (task.observed_state.as_str(), task.message.as_str(), last_failure) {
        ("running", _, _) | (_, "", "") => String::new(),
        (_, "", failure) => format!("last failure: {failure}"),
        (_, message, _) => message.to_owned(),
    };
    let parts = [place, story];
    let parts: Vec<&str> =
        parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join(", ")
}

fn stuck(number: u32, slot: &Slot) -> String {
    let Line { state, detail, .. } = &slot.line;
    let state = match state.as_str() {
        "new" => "has no task yet",
        "outdated" => "still runs an older revision",
        state => state,
    };
    match detail.as_str() {
        "" => format!("slot {number}: {state}"),
        detail => format!("slot {number}: {state}, {detail}"),
    }
}

/// The slots that a service of so many replicas has: those with tasks that are not being removed,
/// and as many of the lowest free numbers as are missing. A scale-down may leave gaps.
fn slot_numbers(tasks: &[pb::Task], replicas: u32) -> BTreeSet<u32> {
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
    let kept = tasks.iter().filter(|task| task.desired_state != "remove");
    let claimed: BTreeSet<u32> = kept.map(|task| task.slot).collect();
    let mut numbers: BTreeSet<u32> = claimed.into_iter().take(wanted).collect();
    let mut free = 1..;
    while numbers.len() < wanted {
        numbers.extend(free.next());
    }
    numbers
}

#[cfg(test)]
mod tests;
