//! The way down: out of the balancers, stop signal, SIGKILL, the last word, clearing away.

use std::time::Duration;

use cluster_runtime::Signal;
use tokio::time::Instant;

use super::wellbeing::silent;
use super::{Supervisor, now_ms};
use crate::report::Urgency;
use crate::task::ending::Ending;
use crate::task::machine::{Container, Goal, Stopping};
use crate::task::record::Record;

/// Longest wait for other workers' balancers before the stop signal.
const WITHDRAWAL_MAX: Duration = Duration::from_secs(3);
/// Longest wait for requests in flight of a task that gives no time for draining.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// A container that outlives SIGKILL for so long gets another.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Supervisor {
    pub(super) async fn await_withdrawal(&mut self) {
        let node = self.node.clone();
        self.probing = None;
        node.parts.balancers.close_host(self.id.as_str()).await;
        // The last word on it also when the task was let go of meanwhile.
        let version = self.assignment.as_ref().map_or(0, |assignment| assignment.withdrawn);
        let serves =
            self.assignment.as_ref().is_some_and(|assignment| !assignment.target_ports.is_empty());
        if version > 0 && serves {
            let mut hearing = node.hearing.subscribe();
            let withdrawn = async {
                let let_go =
                    hearing.wait_for(|heard| !heard.connected || heard.withdrawn >= version);
                // An error says that the worker ends.
                let _ = let_go.await;
            };
            let id = self.id.clone();
            tokio::select! {
                () = withdrawn => {}
                () = tokio::time::sleep(WITHDRAWAL_MAX) => {
                    tracing::warn!(version, "balancers of other workers did not let go in time");
                }
                () = silent(&node, self.stop_after_ms()) => {}
                ended = node.parts.runtime.wait(&id) => return self.ended(ended).await,
            }
        }
        self.facts.withdrawn = true;
    }

    /// Nothing new comes any more; what is open gets its time. Every connection to the task passes
    /// this node's relay, so this node knows of all.
    pub(super) async fn drain(&mut self) {
        let Some(assignment) = self.assignment.clone() else {
            self.facts.drained = true;
            return;
        };
        let node = self.node.clone();
        let served = assignment.withdrawn > 0 && !assignment.target_ports.is_empty();
        if served || !assignment.spec.host_ports.is_empty() {
            let patience = match assignment.spec.drain_timeout_ms {
                0 => DRAIN_MAX,
                patience_ms => Duration::from_millis(patience_ms),
            };
            let id = self.id.clone();
            tokio::select! {
                () = node.parts.balancers.drained(id.as_str()) => {}
                // Clients may keep idle connections for ever.
                () = tokio::time::sleep(patience) => {
                    tracing::debug!(?patience, "connections are still open");
                }
                () = silent(&node, self.stop_after_ms()) => {}
                ended = node.parts.runtime.wait(&id) => return self.ended(ended).await,
            }
        }
        self.facts.drained = true;
    }

    pub(super) async fn stop(&mut self) {
        self.probing = None;
        let (signal, grace) = self.stop_with;
        let grace = self.capped(grace);
        if grace.is_zero() && self.is_cut_off() {
            return self.kill().await;
        }
        tracing::debug!(%signal, ?grace, "stopping");
        self.send(signal).await;
        self.facts.stopping = Stopping::Asked;
        self.deadline = Some(Instant::now() + grace);
    }

    /// Of a task that is cut off, what is left of the time after which managers count on its end: a
    /// machine that slept, or a worker that did not run, may have used it up.
    fn capped(&self, grace: Duration) -> Duration {
        if !self.is_cut_off() {
            return grace;
        }
        let drain_ms = self.assignment.as_ref().map_or(0, |task| task.spec.drain_timeout_ms);
        let whole = Duration::from_millis(self.stop_after_ms().saturating_add(drain_ms));
        let silence = Duration::from_millis(self.node.contact.silence_ms());
        grace.min(whole.saturating_add(grace).saturating_sub(silence))
    }

    pub(super) async fn kill(&mut self) {
        tracing::info!("the container's time to stop is over, and it is killed");
        self.send(Signal::KILL).await;
        self.facts.stopping = Stopping::Killed;
        self.deadline = Some(Instant::now() + KILL_PATIENCE);
    }

    async fn send(&mut self, signal: Signal) {
        let node = self.node.clone();
        let sent = node.parts.runtime.signal(&self.id, signal);
        if let Err(error) = node.health.watch(format!("signal to {}", self.id), sent).await {
            tracing::warn!(%signal, error = &error as &dyn std::error::Error, "signal not sent");
            self.look().await;
        }
    }

    /// Works out how the attempt ended.
    pub(super) async fn settle(&mut self, goal: Goal) {
        let asked = goal >= Goal::Stopped;
        let doom = self.record.doom.clone();
        let (ending, at_ms) = match (&self.exit, doom) {
            (exit, Some(why)) => {
                let at_ms = exit.map_or_else(now_ms, |exit| exit.at_unix_ms);
                (Ending::doomed(why, self.record.cut_off, exit.as_ref()), at_ms)
            }
            (Some(exit), None) => (Ending::of(exit, asked, self.started), exit.at_unix_ms),
            (None, None) => (Ending::asked(), now_ms()),
        };
        self.conclude(ending, at_ms).await;
    }

    /// The last word on the attempt: told, and written down so that a restart tells the same.
    pub(super) async fn conclude(&mut self, ending: Ending, at_ms: u64) {
        self.probing = None;
        self.node.parts.balancers.close_host(self.id.as_str()).await;
        self.node.parts.balancers.remove_local(self.id.as_str());
        let report = ending.report(self.task, at_ms);
        tracing::info!(
            state = %report.state, error = report.error.as_deref(), exit_code = report.exit_code,
            "task ended"
        );
        self.facts.settled = true;
        self.reported = report.state;
        self.record.ended = Some(report.clone());
        if report.exit_code.is_some() {
            // The runtime keeps the exit, so nothing is lost by telling first.
            self.node.report(report, Urgency::Now);
            self.write_record().await;
        } else {
            self.write_record().await;
            self.node.report(report, Urgency::Now);
        }
    }

    pub(super) async fn write_record(&self) {
        let (record, dir): (Record, _) = (self.record.clone(), self.node.data.task(self.task));
        let written = cluster_daemon::blocking(move || record.store(&dir)).await;
        let error: &dyn std::error::Error = match &written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(error) => error,
        };
        tracing::warn!(error, "a task's record is not on disk");
    }

    pub(super) async fn remove(&mut self) {
        let node = self.node.clone();
        let removed = node.parts.runtime.remove(&self.id, true);
        match node.health.watch(format!("remove of {}", self.id), removed).await {
            Ok(()) => self.facts.container = Container::Absent,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "container not removed");
                tokio::time::sleep(self.retry.next_delay()).await;
            }
        }
    }

    pub(super) async fn detach(&mut self) {
        match self.node.parts.network.detach(self.id.as_str()).await {
            Ok(()) => {
                self.attached = None;
                self.facts.attached = false;
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "network not removed");
                tokio::time::sleep(self.retry.next_delay()).await;
            }
        }
    }

    pub(super) async fn forget(&mut self) {
        let dir = self.node.data.task(self.task);
        let removed = cluster_daemon::blocking(move || std::fs::remove_dir_all(dir)).await;
        match removed {
            Ok(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, "a task's files stay behind");
            }
            _ => tracing::debug!("task forgotten"),
        }
    }
}
