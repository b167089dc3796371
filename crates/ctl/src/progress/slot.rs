//! One slot: its present task, what failed in it, since when it stands still.

use std::collections::BTreeSet;
use std::time::Instant;

use cluster_pb::types::v1 as pb;

use super::{EXHAUSTED, Line};

#[derive(Debug)]
pub struct Slot {
    /// Of the task, or of the lack of one: what has to change for the slot to count as moving.
    pub mark: String,
    pub since: Instant,
    pub line: Line,
    pub running: bool,
    pub failed: BTreeSet<String>,
    pub last_failure: String,
    pub exhausted: bool,
    pub waits_its_turn: bool,
    /// Its task completed.
    pub done: bool,
    /// Its next task is prepared and waits out the back-off.
    pub waits_for_start: bool,
}

/// What is shown of one slot at one moment.
#[derive(Default)]
pub struct Seen<'a> {
    /// Tasks of the present revision.
    pub current: Vec<&'a pb::Task>,
    /// Those of them that failed, and of which nobody knew before the change.
    pub failed: Vec<&'a pb::Task>,
    /// The task of an older revision that still fills the slot.
    pub outdated: Option<&'a pb::Task>,
}

impl Slot {
    pub fn new(number: u32, now: Instant) -> Self {
        Self {
            mark: String::new(),
            since: now,
            line: Line {
                slot: number,
                node: String::new(),
                state: "new".to_owned(),
                detail: String::new(),
            },
            running: false,
            failed: BTreeSet::new(),
            last_failure: String::new(),
            exhausted: false,
            waits_its_turn: true,
            done: false,
            waits_for_start: false,
        }
    }

    /// Whether it moved.
    pub fn observe(&mut self, seen: &Seen<'_>, now: Instant) -> bool {
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
        self.running = task.is_some_and(|task| runs(task) && task.ready);
        self.done = task.is_some_and(|task| task.observed_state == "complete");
        self.waits_for_start = task.is_some_and(|task| task.desired_state == "ready");
        self.exhausted = task.is_some_and(|t| !fills(t) && has_failed(t) && t.reason == EXHAUSTED);
        if self.exhausted && self.last_failure.is_empty() {
            self.last_failure = task.map(failure).unwrap_or_default();
        }
        let (state, detail) = match (task, seen.outdated) {
            (Some(task), _) => (state(task), detail(task, &self.last_failure)),
            (None, Some(old)) => ("outdated", detail(old, "")),
            (None, None) => ("new", String::new()),
        };
        if let Some(task) = task.or(seen.outdated) {
            self.line.node.clone_from(&task.target_node_name);
        }
        self.line.state = state.to_owned();
        self.line.detail = detail;
        moved
    }
}

/// Wanted and not over.
pub fn fills(task: &pb::Task) -> bool {
    let wanted = matches!(task.desired_state.as_str(), "ready" | "running" | "complete");
    let over = matches!(
        task.observed_state.as_str(),
        "complete" | "shutdown" | "failed" | "rejected" | "lost"
    );
    wanted && !over
}

fn runs(task: &pb::Task) -> bool {
    matches!(task.desired_state.as_str(), "running" | "complete")
        && task.observed_state == "running"
}

/// The state in a word.
fn state(task: &pb::Task) -> &str {
    match task.observed_state.as_str() {
        "running" if !task.ready => "not ready",
        _ if task.crash_loop => "crash loop",
        state => state,
    }
}

/// Ended by itself. A lost node or an order to stop is not the task's failure.
pub fn has_failed(task: &pb::Task) -> bool {
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

/// Why a slot does not move.
pub fn stuck(number: u32, slot: &Slot) -> String {
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
pub fn slot_numbers(tasks: &[pb::Task], replicas: u32) -> BTreeSet<u32> {
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
