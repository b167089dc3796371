//! While it runs: probes, and being cut off from all managers.

use std::time::Duration;

use cluster_model::{Observed, StatusReport};

use super::{Supervisor, now_ms};
use crate::node::Node;
use crate::probe::{Machine, Patient, Plan, Probing, Standing};
use crate::report::Urgency;
use crate::task::machine::{Container, Stopping};

/// A machine that slept is noticed within this: its clock for waiting slept too.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

impl Supervisor {
    /// The container has just started: without probes that is enough to be running.
    pub(super) fn watch_start(&mut self) {
        let plan = self.plan();
        if plan.is_empty() {
            return self.tell(Observed::Running, Urgency::Now);
        }
        self.begin_probing(Machine::new(plan, 0), 0);
    }

    /// The container was here before this process: it is told as what it was.
    pub(super) fn watch_adopted(&mut self, started_unix_ms: Option<u64>) {
        let plan = self.plan();
        if plan.is_empty() {
            return self.tell(Observed::Running, Urgency::Now);
        }
        let age_ms = started_unix_ms.map_or(0, |started| now_ms().saturating_sub(started));
        let machine = match self.record.ready {
            Some(ready) => {
                self.tell_ready(ready, None);
                Machine::adopted(plan, age_ms, ready)
            }
            None => {
                self.tell(Observed::Starting, Urgency::Passing);
                Machine::new(plan, age_ms)
            }
        };
        self.begin_probing(machine, age_ms);
    }

    fn plan(&self) -> Plan {
        match &self.assignment {
            Some(assignment) => Plan::of(&assignment.spec.health, &self.labels),
            None => Plan::default(),
        }
    }

    fn begin_probing(&mut self, machine: Machine, age_ms: u64) {
        let ip = self.attached.as_ref().map(|attached| attached.ip);
        let patient = Patient { id: self.id.clone(), ip, age_ms };
        self.probing = Some(Probing::begin(self.node.clone(), patient, machine));
    }

    pub(super) async fn stands(&mut self, standing: Standing, why: Option<String>) {
        match standing {
            Standing::Starting => {
                if let Some(why) = why {
                    self.tell_with(
                        Observed::Starting,
                        Urgency::Now,
                        Some(format!("starting: {why}")),
                    );
                }
            }
            Standing::Ready => {
                self.tell_ready(true, None);
                self.write_record().await;
            }
            Standing::NotReady(why) => {
                tracing::info!(reason = why, "not ready: no new connections");
                self.tell_ready(false, Some(format!("not ready: {why}")));
                self.write_record().await;
            }
            Standing::Unhealthy(why) => {
                let why = format!("unhealthy: {why}");
                // Out of the balancers before it stops answering.
                if self.reported == Observed::Running {
                    self.tell_ready(false, Some(why.clone()));
                }
                self.doom(why).await;
            }
        }
    }

    /// It is to end here whatever the managers want; written down first, so that a restarted worker
    /// gives the same reason.
    pub(super) async fn doom(&mut self, why: String) {
        tracing::warn!(reason = why, "the task is ended");
        self.facts.doomed = true;
        self.record.doom = Some(why);
        self.probing = None;
        self.write_record().await;
        self.node.parts.balancers.close_host(self.id.as_str()).await;
    }

    fn tell_ready(&mut self, ready: bool, message: Option<String>) {
        let readiness = self.next_change();
        self.record.ready = Some(ready);
        self.reported = Observed::Running;
        let report = StatusReport {
            message: message.map(Into::into),
            ready,
            readiness,
            ..StatusReport::new(self.task, Observed::Running, now_ms())
        };
        self.node.report(report, Urgency::Now);
    }

    /// Grows with everything that this node says of the task, over restarts too.
    pub(super) fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.node.boot << 32 | u64::from(self.changes)
    }

    /// Managers may have given the slot to another node by now, or will soon.
    pub(super) fn is_cut_off(&self) -> bool {
        let after_ms = self.stop_after_ms();
        after_ms > 0 && self.node.contact.silence_ms() >= after_ms
    }

    pub(super) fn stop_after_ms(&self) -> u64 {
        self.assignment.as_ref().map_or(0, |assignment| assignment.stop_after_ms)
    }

    /// Only what runs is ended, unless it is ending anyway; what is prepared is kept, see
    /// [`Self::may_begin`].
    pub(super) fn heeds_silence(&self) -> bool {
        let runs = self.facts.container == Container::Running && !self.facts.settled;
        runs && !self.facts.doomed && self.facts.stopping == Stopping::NotAsked
    }

    /// Ends a running container of a task that nobody has heard of for too long.
    pub(super) async fn heed_silence(&mut self) {
        if self.heeds_silence() && self.is_cut_off() {
            let seconds = Duration::from_millis(self.stop_after_ms()).as_secs_f64();
            let why = format!("stopped by itself: no manager heard this node for {seconds} s");
            self.record.cut_off = true;
            self.doom(why).await;
        }
    }

    /// A task that ends by itself when it is cut off does not start while it may be: only what a
    /// manager in touch says now counts.
    pub(super) fn may_begin(&self) -> bool {
        let hearing = *self.node.hearing.borrow();
        let in_touch = self.node.contact.was_heard() && !self.is_cut_off();
        hearing.synced && (self.stop_after_ms() == 0 || (hearing.present && in_touch))
    }
}

/// Resolves when nothing has been heard for so long; never for 0.
pub(super) async fn silent(node: &Node, after_ms: u64) {
    if after_ms == 0 {
        return std::future::pending().await;
    }
    loop {
        let silence_ms = node.contact.silence_ms();
        if silence_ms >= after_ms {
            return;
        }
        let rest = Duration::from_millis(after_ms - silence_ms);
        tokio::time::sleep(rest.min(LOOK_PERIOD)).await;
    }
}
