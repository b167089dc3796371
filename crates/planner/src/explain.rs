//! Why things are as they are, for people: computed from a view when somebody asks.
//!
//! A task without a node: what speaks against each node and what would help. A task with one: what
//! speaks for its node as things are now; what the scheduler saw then is not kept. A drain: what it
//! still waits for. Nothing here decides anything.

use std::collections::BTreeSet;

use cluster_model::fit;
use cluster_model::spec::Strategy;
use cluster_model::{Availability, Desired, NodeId, Observed, ServiceId, State, Task, TaskId};

use crate::Held;
use crate::drain::{Verdict, survey};
use crate::schedule::{self, Inspection, Standing};

mod remedy;

/// Nodes named as examples.
const EXAMPLES_MAX: usize = 5;
/// Restarts in a row that are called a crash loop.
const CRASH_LOOP_FROM: u32 = 3;

/// About one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// In one sentence.
    pub verdict: String,
    /// What keeps it from other nodes.
    pub obstacles: Vec<Obstructed>,
    /// What would help, best first.
    pub remedies: Vec<String>,
}

/// Nodes with the same obstacle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstructed {
    pub count: usize,
    pub why: String,
    /// Names of some of the nodes.
    pub examples: Vec<String>,
}

/// Why a task is where it is, or nowhere.
pub fn task(view: &State, id: TaskId, now_ms: u64) -> Explanation {
    let Some(task) = view.task(id) else {
        let verdict = format!("this cluster has no such task: `{id}`");
        return Explanation { verdict, ..Explanation::default() };
    };
    if !task.fills_slot() {
        return Explanation { verdict: over(task), ..Explanation::default() };
    }
    if let Some(verdict) = Held::of(view, now_ms).why(task) {
        return Explanation { verdict, ..Explanation::default() };
    }
    let Some(seen) = schedule::inspect(view, task, now_ms) else {
        let verdict = "its service was removed".to_owned();
        return Explanation { verdict, ..Explanation::default() };
    };
    let obstacles = seen.tally.nodes.iter().map(|(obstacle, nodes)| Obstructed {
        count: nodes.len(),
        why: seen.tally.what(*obstacle, nodes.len()),
        examples: nodes.iter().take(EXAMPLES_MAX).map(|node| node.name.clone()).collect(),
    });
    let (mut verdict, remedies) = match &seen.here {
        Some(here) => (placed(task, &seen, here), Vec::new()),
        None => (pending(task, &seen), remedy::all(view, task, &seen.tally)),
    };
    verdict.push_str(&restarts(view, task, now_ms));
    for node in seen.failing.iter().take(EXAMPLES_MAX) {
        verdict.push_str(&format!("; {} goes last, tasks keep failing there", node.name));
    }
    Explanation { verdict, obstacles: obstacles.collect(), remedies }
}

fn over(task: &Task) -> String {
    let state = task.status.state;
    if !state.is_terminal() {
        return format!("is being stopped ({}), now {state}", task.reason);
    }
    let error =
        task.status.details.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!("is over, {state}{error}; {}", task.reason)
}

fn pending(task: &Task, seen: &Inspection<'_>) -> String {
    match &task.status.details.message {
        Some(message) => format!("pending: {message}"),
        None if seen.tally.suitable.is_empty() => "pending: no suitable node".to_owned(),
        None => "pending: the scheduler has not looked at it yet".to_owned(),
    }
}

fn placed(task: &Task, seen: &Inspection<'_>, here: &Standing<'_>) -> String {
    let node = &here.node.name;
    if task.extras.target.is_some() {
        return format!("on {node}, the only node it may run on");
    }
    let Some(next) = &seen.next else {
        return format!("on {node}, the only suitable node");
    };
    let suitable = 1 + seen.tally.suitable.iter().filter(|node| node.id != here.node.id).count();
    if next.compare(here).is_lt() {
        let why = better(seen.strategy, next, here);
        return format!(
            "on {node}; of {suitable} suitable nodes {} would be chosen now: {why}; tasks that \
             run are not moved for that",
            next.node.name
        );
    }
    format!(
        "on {node}, chosen from {suitable} suitable nodes: {}",
        better(seen.strategy, here, next)
    )
}

/// What makes one node better than another.
fn better(strategy: Strategy, one: &Standing<'_>, two: &Standing<'_>) -> String {
    let other = &two.node.name;
    for (level, (mine, theirs)) in one.shares.iter().zip(&two.shares).enumerate() {
        if mine != theirs {
            return format!(
                "its branch of spread level {} is further below its share ({} tasks; that of \
                 {other} has {})",
                level + 1,
                mine.has,
                theirs.has
            );
        }
    }
    if one.score.wishes != two.score.wishes {
        let (mine, theirs) = (-one.score.wishes, -two.score.wishes);
        return format!("its affinities weigh more ({mine}; {other}: {theirs})");
    }
    match strategy {
        Strategy::Spread if one.of_service != two.of_service => format!(
            "fewest tasks of the service ({}; {other} has {})",
            one.of_service, two.of_service
        ),
        Strategy::BinPack if one.fullness != two.fullness => format!(
            "the fullest ({} %; {other} {} %)",
            one.fullness / 10_000,
            two.fullness / 10_000
        ),
        Strategy::Spread if one.tasks != two.tasks => {
            format!("fewest tasks ({}; {other} has {})", one.tasks, two.tasks)
        }
        Strategy::BinPack if one.tasks != two.tasks => {
            format!("most tasks ({}; {other} has {})", one.tasks, two.tasks)
        }
        Strategy::Spread | Strategy::BinPack => format!("as good as {other}, and first by id"),
    }
}

/// What the task's restarts have to do with it.
fn restarts(view: &State, task: &Task, now_ms: u64) -> String {
    let mut text = String::new();
    if task.restarts >= CRASH_LOOP_FROM {
        text.push_str(&format!("; crash loop: restarted {} times in a row", task.restarts));
    } else if task.restarts > 0 {
        text.push_str(&format!("; restart {}", task.restarts));
    }
    let failed = schedule::failed_before(view, task);
    if failed > 0 {
        text.push_str(&format!("; {failed} remembered failures in its slot"));
    }
    let wait_ms = task.extras.not_before_ms.saturating_sub(now_ms);
    if task.desired == Desired::Ready && wait_ms > 0 {
        text.push_str(&format!("; starts in {}", seconds(wait_ms)));
    } else if task.desired == Desired::Ready && task.status.state == Observed::Ready {
        text.push_str("; starts when the task before it has ended");
    }
    text
}

fn seconds(ms: u64) -> String {
    format!("{} s", ms.div_ceil(1_000))
}

/// What a drain of a node still waits for, one line a task; nothing when the node is empty or not
/// drained.
pub fn drain(view: &State, node: NodeId, now_ms: u64) -> Vec<String> {
    let drained = view.node(node).is_some_and(|node| node.spec.availability == Availability::Drain);
    if !drained {
        return Vec::new();
    }
    let live: Vec<&Task> = view.tasks_of_node(node).filter(|task| task.holds_resources()).collect();
    let services: BTreeSet<ServiceId> = live.iter().map(|task| task.service).collect();
    let mut lines = Vec::new();
    for service in services.into_iter().filter_map(|service| view.service(service)) {
        let leaving = survey(view, service, now_ms);
        for task in live.iter().filter(|task| task.service == service.id) {
            let verdict = leaving.iter().find(|leaving| leaving.task.id == task.id);
            let why = match verdict.map(|leaving| leaving.verdict) {
                _ if fit::leaving(task) => format!("is being stopped ({})", task.reason),
                Some(verdict) => waits(verdict, now_ms),
                None if task.extras.target.is_some() => {
                    "belongs to the node and is to be stopped".into()
                }
                None => "is to be stopped".into(),
            };
            lines.push(format!("{} {why}", schedule::name(view, task)));
        }
    }
    lines
}

fn waits(verdict: Verdict, now_ms: u64) -> String {
    let until = |until_ms: Option<u64>| {
        until_ms.map_or(String::new(), |at_ms| {
            format!(", at most {} more", seconds(at_ms.saturating_sub(now_ms)))
        })
    };
    match verdict {
        Verdict::Now => "moves at once".to_owned(),
        Verdict::Finishes { until_ms } => format!("is left to finish{}", until(until_ms)),
        Verdict::Waits { unhealthy, allowed, slot, until_ms } => {
            let slot = slot.map_or(String::new(), |slot| format!(", slot {slot} among them"));
            format!(
                "waits: {unhealthy} slots are without a healthy task{slot}, {allowed} may be{}",
                until(until_ms)
            )
        }
    }
}
