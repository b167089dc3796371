//! How far a service is from what was asked: a pure function of what the managers told.
//!
//! *Flow.* [`Tracker::observe`] takes each state of the service and its tasks with the moment it
//! came; [`Tracker::verdict`] says whether to go on waiting; [`Tracker::picture`] is what people
//! see, drawn by [`draw`].
//! *Guarantees.* It never waits for ever while nothing happens: a slot that stands still for the
//! patience given, or that failed [`FAILURES_MAX`] times, ends the wait with the reason.

pub mod draw;
mod rollout;
mod slot;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use cluster_pb::types::v1 as pb;
use cluster_pb::types::v1::service_spec::Mode;

pub use self::rollout::Before;
use self::rollout::Moving;
use self::slot::{Seen, Slot, fills, has_failed, slot_numbers, stuck};

/// Failures of one slot after which it is not expected to run.
const FAILURES_MAX: usize = 3;
/// How much longer replicas must stay running once a task has failed meanwhile.
const SETTLE_AFTER_FAILURE: u32 = 10;
/// Slots looked at one by one; of larger services the managers show no more tasks than about
/// this, and the counts on the service tell the rest.
const SLOTS_MAX: u32 = 1500;
/// How long a service with a slot for each node may show no task at all before that is believed.
const NO_NODES_AFTER: Duration = Duration::from_secs(2);
const EXHAUSTED: &str = "restart policy allows no further attempt";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again when something comes, or at this moment.
    Waiting {
        until: Option<Instant>,
    },
    Converged,
    /// As far as it goes without a user's word: canaries wait for promotion.
    Awaiting,
    /// An update that was paused before the change still is.
    StillPaused {
        reason: String,
    },
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
    /// The slot's node, of services with a slot for each.
    pub node: String,
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
    /// Of jobs: slots that are done.
    pub completed: Option<u32>,
    /// What an update waits for or ends with.
    pub rollout: String,
    pub lines: Vec<Line>,
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
    mode: Mode,
    wanted: u32,
    running: u32,
    leaving: u32,
    completed: u32,
    /// Of jobs: how the run ended.
    outcome: String,
    moving: Moving,
    /// When anything moved last: slots that wait for their turn in an update move with the others.
    moved: Instant,
    slots: BTreeMap<u32, Slot>,
    all_running_since: Option<Instant>,
    any_failed: bool,
}

impl Tracker {
    /// `before`: the service before the change, if it existed.
    pub fn new(limits: Limits, before: Before, now: Instant) -> Self {
        Self {
            limits,
            began: now,
            revision_before: before.revision,
            known_failures: None,
            seen: false,
            mode: Mode::Unspecified,
            wanted: 0,
            running: 0,
            leaving: 0,
            completed: 0,
            outcome: String::new(),
            moving: Moving::new(before),
            moved: now,
            slots: BTreeMap::new(),
            all_running_since: None,
            any_failed: false,
        }
    }

    pub fn observe(&mut self, service: &pb::Service, tasks: &[pb::Task], now: Instant) {
        self.seen = true;
        self.mode = service.spec.as_ref().map_or(Mode::Unspecified, pb::ServiceSpec::mode);
        self.wanted = service.desired;
        self.completed = service.completed;
        self.outcome = service.run.as_ref().map(|run| run.outcome.clone()).unwrap_or_default();
        self.moving.observe(service);
        // Of several revisions that run the same, the service counts none as outdated.
        let current = |task: &&pb::Task| {
            task.revision == service.revision || (service.outdated == 0 && fills(task))
        };
        let leaving = self.count_leaving(tasks, current);
        if leaving != self.leaving {
            self.moved = now;
        }
        self.leaving = leaving;
        let revision_before = self.revision_before;
        let is_job = self.is_job();
        // A job's task that completed did what it was for.
        let has_failed =
            |task: &pb::Task| has_failed(task) && !(is_job && task.observed_state == "complete");
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
        self.count_running(service, shown == service.desired, now);
    }

    /// Tasks of older revisions, and slots beyond those that are wanted.
    fn count_leaving(&self, tasks: &[pb::Task], current: impl Fn(&&pb::Task) -> bool) -> u32 {
        let old = count(tasks.iter().filter(|task| fills(task) && !current(task)));
        let slots: BTreeSet<u32> = tasks
            .iter()
            .filter(|task| fills(task))
            .filter(&current)
            .map(|task| task.slot)
            .collect();
        old + count(slots.into_iter()).saturating_sub(self.wanted)
    }

    fn count_running(&mut self, service: &pb::Service, all_shown: bool, now: Instant) {
        self.any_failed |= self.slots.values().any(|slot| !slot.failed.is_empty());
        self.running = match all_shown {
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

    fn is_job(&self) -> bool {
        matches!(self.mode, Mode::ReplicatedJob | Mode::GlobalJob)
    }

    pub fn verdict(&self, now: Instant) -> Verdict {
        if !self.seen {
            let until = self.began + self.limits.patience;
            if now < until {
                return Verdict::Waiting { until: Some(until) };
            }
            return Verdict::Stuck { reason: "no manager shows the change yet".to_owned() };
        }
        if self.is_job() {
            return self.job_verdict(now);
        }
        if let Some(verdict) = self.moving.verdict() {
            return verdict;
        }
        if let Some(since) = self.all_running_since {
            return self.settled(since, now);
        }
        // What fails is the update's business while it lasts: its policy says what comes of it.
        if !self.moving.is_active()
            && let Some(reason) = self.failing()
        {
            return Verdict::Failing { reason };
        }
        self.patience(now)
    }

    fn job_verdict(&self, now: Instant) -> Verdict {
        let mut failures = self.slots.values().rev().map(|slot| slot.last_failure.as_str());
        let last = failures.find(|failure| !failure.is_empty()).map(|last| format!(": {last}"));
        match self.outcome.as_str() {
            "succeeded" => Verdict::Converged,
            "failed" => {
                Verdict::Failing { reason: format!("the job failed{}", last.unwrap_or_default()) }
            }
            "timed-out" => Verdict::Failing {
                reason: "the job ran longer than --max-run-duration lets it".to_owned(),
            },
            // No node takes it: the wait would last until one joins.
            _ if self.mode == Mode::GlobalJob && self.wanted == 0 => {
                self.settled(self.all_running_since.unwrap_or(now), now)
            }
            _ => self.patience(now),
        }
    }

    fn settled(&self, since: Instant, now: Instant) -> Verdict {
        if self.moving.is_active() {
            // Watched for the policy's monitor time; the managers end that.
            return Verdict::Waiting { until: None };
        }
        let factor = if self.any_failed { SETTLE_AFTER_FAILURE } else { 1 };
        let settle = match (self.mode, self.wanted) {
            (Mode::Global | Mode::GlobalJob, 0) => NO_NODES_AFTER,
            // Nothing has to prove itself where nothing is wanted.
            (_, 0) => Duration::ZERO,
            _ => self.limits.settle * factor,
        };
        match now >= since + settle {
            true => Verdict::Converged,
            false => Verdict::Waiting { until: Some(since + settle) },
        }
    }

    fn failing(&self) -> Option<String> {
        if let Some((number, slot)) = self.slots.iter().find(|(_, slot)| slot.exhausted) {
            return Some(format!("slot {number}: {}; its {EXHAUSTED}", slot.last_failure));
        }
        let (number, slot) =
            self.slots.iter().find(|(_, slot)| slot.failed.len() >= FAILURES_MAX)?;
        let times = slot.failed.len();
        Some(format!("slot {number} failed {times} times, last: {}", slot.last_failure))
    }

    /// The slot that stands still for longest decides.
    fn patience(&self, now: Instant) -> Verdict {
        let patience = self.limits.patience;
        // Some waits are asked for: a turn in an update or among a job's tasks, a back-off, a job's
        // own time.
        let asked_for = |slot: &Slot| match (self.is_job(), self.moving.is_active()) {
            (true, _) => slot.waits_its_turn || slot.waits_for_start || slot.done,
            (false, true) => slot.waits_its_turn,
            (false, false) => false,
        };
        let still = |slot: &Slot| if slot.waits_its_turn { self.moved } else { slot.since };
        let behind = self.slots.iter().filter(|(_, slot)| !slot.running && !asked_for(slot));
        let (since, reason) = match behind.min_by_key(|(_, slot)| still(slot)) {
            Some((number, slot)) => (still(slot), stuck(*number, slot)),
            None if self.is_job() || self.moving.is_active() => {
                return Verdict::Waiting { until: None };
            }
            None => (self.moved, draw::overall(&self.picture())),
        };
        if now >= since + patience {
            return Verdict::Stuck { reason };
        }
        Verdict::Waiting { until: Some(since + patience) }
    }

    pub fn picture(&self) -> Picture {
        let is_shown = |slot: &&Slot| !(self.is_job() && (slot.waits_its_turn || slot.done));
        Picture {
            wanted: self.wanted,
            running: self.running,
            leaving: self.leaving,
            completed: self.is_job().then_some(self.completed),
            rollout: self.moving.describe(),
            lines: self.slots.values().filter(is_shown).map(|slot| slot.line.clone()).collect(),
        }
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
