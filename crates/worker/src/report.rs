//! Reports on their way to the managers: the latest state of each task, kept until a manager says
//! that it is committed.
//!
//! *Guarantees*: at least once, and per task only forward. What changes while a report travels
//! replaces it. Bounded by the number of tasks, as there is one entry for each. In-memory: after a
//! restart the supervisors tell everything anew from what the runtime and their records know.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster_model::{StatusReport, TaskId};
use cluster_mutants::{Mutant, is};
use cluster_pb::dispatcher::v1 as pb;
use cluster_wire::dispatch::report_to_pb;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Tasks in one message.
const BATCH_MAX: usize = 256;
/// Messages of one session that may wait for their acknowledgement; what comes meanwhile is
/// grouped.
const IN_FLIGHT_MAX: usize = 4;
/// States on the way to another one wait this long, because mostly that one is next.
const PASSING_DELAY: Duration = Duration::from_millis(100);

/// Whether somebody waits for this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    Now,
    /// A state on the way to another.
    Passing,
}

#[derive(Debug, Default)]
pub struct Outbox {
    held: Mutex<Held>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    entries: BTreeMap<TaskId, Entry>,
    generation: u64,
}

#[derive(Debug)]
struct Entry {
    report: StatusReport,
    /// Tells this content from what replaced it.
    generation: u64,
    due: Instant,
    /// Sent in the present session.
    sent: bool,
}

impl Outbox {
    /// Takes a report; one that would go back is dropped.
    pub fn put(&self, report: StatusReport, urgency: Urgency) {
        let mut held = self.lock();
        let mut due = Instant::now();
        if urgency == Urgency::Passing {
            due += PASSING_DELAY;
        }
        if let Some(waiting) = held.entries.get(&report.task) {
            let same = waiting.report.state == report.state;
            if !same && !waiting.report.state.can_advance_to(report.state) {
                return;
            }
            if !waiting.sent {
                due = due.min(waiting.due);
            }
        }
        held.generation += 1;
        let generation = held.generation;
        held.entries.insert(report.task, Entry { report, generation, due, sent: false });
        drop(held);
        self.changed.notify_one();
    }

    /// Nothing waits to be sent or acknowledged.
    pub fn is_empty(&self) -> bool {
        self.lock().entries.is_empty()
    }

    fn take_due(&self, now: Instant) -> Vec<(StatusReport, u64)> {
        let mut held = self.lock();
        let due = held.entries.values_mut().filter(|entry| !entry.sent && entry.due <= now);
        let mut batch = Vec::new();
        for entry in due.take(BATCH_MAX) {
            entry.sent = true;
            batch.push((entry.report.clone(), entry.generation));
        }
        batch
    }

    fn next_due(&self) -> Option<Instant> {
        self.lock().entries.values().filter(|entry| !entry.sent).map(|entry| entry.due).min()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The report side of one session. One at a time per outbox.
#[derive(Debug)]
pub struct Reporting<'a> {
    outbox: &'a Outbox,
    sequence: u64,
    in_flight: VecDeque<(u64, Vec<(TaskId, u64)>)>,
}

impl<'a> Reporting<'a> {
    /// Everything that was not acknowledged is to be sent again.
    pub fn begin(outbox: &'a Outbox) -> Self {
        for entry in outbox.lock().entries.values_mut() {
            entry.sent = false;
        }
        Self { outbox, sequence: 0, in_flight: VecDeque::new() }
    }

    /// The next message, when there is one. Cancel-safe.
    pub async fn next(&mut self) -> pb::Report {
        loop {
            let changed = self.outbox.changed.notified();
            if self.in_flight.len() >= IN_FLIGHT_MAX {
                std::future::pending::<()>().await;
            }
            match self.outbox.next_due() {
                Some(due) if due <= Instant::now() => return self.pack(),
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => changed.await,
            }
        }
    }

    /// The manager has committed reports up to `sequence`.
    pub fn acknowledged(&mut self, sequence: u64) {
        let mut held = self.outbox.lock();
        while let Some((number, _)) = self.in_flight.front() {
            if *number > sequence {
                break;
            }
            let Some((_, tasks)) = self.in_flight.pop_front() else { break };
            for (task, generation) in tasks {
                if held.entries.get(&task).is_some_and(|entry| entry.generation == generation) {
                    held.entries.remove(&task);
                }
            }
        }
    }

    fn pack(&mut self) -> pb::Report {
        let batch = self.outbox.take_due(Instant::now());
        self.sequence += 1;
        let ids = batch.iter().map(|(report, generation)| (report.task, *generation)).collect();
        self.in_flight.push_back((self.sequence, ids));
        if is(Mutant::ForgottenReport) {
            for (report, _) in &batch {
                self.outbox.lock().entries.remove(&report.task);
            }
        }
        pb::Report {
            sequence: self.sequence,
            tasks: batch.iter().map(|(report, _)| report_to_pb(report)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use cluster_model::Observed;

    use super::*;

    fn report(task: u64, state: Observed) -> StatusReport {
        StatusReport::new(TaskId(task), state, 1)
    }

    fn states(report: &pb::Report) -> Vec<&str> {
        report.tasks.iter().map(|task| task.state.as_str()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_latest_state_travels_and_waits_for_its_word() {
        let outbox = Outbox::default();
        let mut session = Reporting::begin(&outbox);
        outbox.put(report(1, Observed::Preparing), Urgency::Passing);
        outbox.put(report(1, Observed::Running), Urgency::Now);
        outbox.put(report(1, Observed::Starting), Urgency::Now);
        let first = session.next().await;
        assert_eq!((first.sequence, states(&first)), (1, vec!["running"]));

        // It moved on while the first report travelled.
        outbox.put(report(1, Observed::Failed), Urgency::Now);
        session.acknowledged(1);
        let second = session.next().await;
        assert_eq!((second.sequence, states(&second)), (2, vec!["failed"]));
        session.acknowledged(2);
        assert!(outbox.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_session_sends_again_what_was_not_acknowledged() {
        let outbox = Outbox::default();
        let mut session = Reporting::begin(&outbox);
        outbox.put(report(1, Observed::Running), Urgency::Now);
        session.next().await;
        outbox.put(report(2, Observed::Running), Urgency::Now);
        session.next().await;
        session.acknowledged(1);
        drop(session);
        let mut session = Reporting::begin(&outbox);
        let again = session.next().await;
        assert_eq!(again.sequence, 1);
        assert_eq!(again.tasks[0].task_id, TaskId(2).to_string());
    }

    #[tokio::test(start_paused = true)]
    async fn passing_states_wait_and_messages_are_grouped_under_load() {
        let outbox = Outbox::default();
        let mut session = Reporting::begin(&outbox);
        let begun = Instant::now();
        outbox.put(report(1, Observed::Preparing), Urgency::Passing);
        session.next().await;
        assert_eq!(begun.elapsed(), PASSING_DELAY);
        for task in 2..5 {
            outbox.put(report(task, Observed::Running), Urgency::Now);
            session.next().await;
        }
        for task in 5..9 {
            outbox.put(report(task, Observed::Running), Urgency::Now);
        }
        let blocked = tokio::time::timeout(Duration::from_secs(5), session.next()).await;
        assert!(blocked.is_err(), "no more than {IN_FLIGHT_MAX} messages travel");
        session.acknowledged(1);
        assert_eq!(session.next().await.tasks.len(), 4);
    }
}
