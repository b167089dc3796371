//! Drives one task: asks [`machine::step`], does its answer, reports what came of it.
//!
//! *Flow*: wanted and found facts in, one action at a time, until the task is forgotten. Being
//! dropped at any await is harmless: containers run on, and the next start finds facts anew.
//!
//! *On failure*: what fails before the start rejects the task; a registry that does not answer is
//! asked a few times first. A runtime that does not answer is asked again with back-off, since
//! only it knows what became of the container.

mod ending;
mod preparing;
mod wellbeing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster_daemon::Backoff;
use cluster_image::Image;
use cluster_model::{Observed, StatusReport, TaskId};
use cluster_runtime::{ContainerId, Exit, Signal, State};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::assignments::Assignment;
use crate::node::{Attached, Node};
use crate::probe::{Probing, Standing};
use crate::report::Urgency;
use crate::task::container::{GRACE_LABEL, STOP_SIGNAL_LABEL};
use crate::task::ending::Ending;
use crate::task::machine::{self, Action, Container, Facts, Goal, Stopping};
use crate::task::record::Record;

/// Grace of a container whose assignment is not known any more and that has no label.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// What the managers want of a task.
#[derive(Clone, Debug)]
pub enum Wanted {
    Assigned(Arc<Assignment>),
    /// They no longer speak of it.
    Gone,
}

/// What was here when the supervisor began.
#[derive(Debug, Default)]
pub struct Found {
    pub container: Option<cluster_runtime::Observed>,
    pub attached: Option<Attached>,
}

pub struct Supervisor {
    node: Arc<Node>,
    task: TaskId,
    id: ContainerId,
    wanted: watch::Receiver<Wanted>,
    /// The last one known, for its grace period and ports also after it is gone.
    assignment: Option<Arc<Assignment>>,
    facts: Facts,
    image: Option<Image>,
    attached: Option<Attached>,
    exit: Option<Exit>,
    /// The container's command ran.
    started: bool,
    started_unix_ms: Option<u64>,
    record: Record,
    /// Signal and grace that the container was made with.
    stop_with: (Signal, Duration),
    /// When the grace period, or the patience after SIGKILL, is over.
    deadline: Option<Instant>,
    reported: Observed,
    /// Labels of the container.
    labels: BTreeMap<String, String>,
    /// While the container runs, if it has probes.
    probing: Option<Probing>,
    /// Changes of readiness that this process told.
    changes: u32,
    retry: Backoff,
}

impl Supervisor {
    pub fn new(
        node: Arc<Node>,
        task: TaskId,
        wanted: watch::Receiver<Wanted>,
        found: Found,
        record: Record,
    ) -> Self {
        let id = container_id(task);
        let assignment = match &*wanted.borrow() {
            Wanted::Assigned(assignment) => Some(assignment.clone()),
            Wanted::Gone => None,
        };
        let mut supervisor = Self {
            node,
            task,
            id,
            wanted,
            assignment,
            facts: Facts {
                image: false,
                attached: found.attached.is_some(),
                container: Container::Absent,
                settled: record.ended.is_some(),
                withdrawn: false,
                drained: false,
                doomed: record.doom.is_some(),
                stopping: Stopping::NotAsked,
            },
            image: None,
            attached: found.attached,
            exit: None,
            started: false,
            started_unix_ms: None,
            record,
            stop_with: (Signal::TERM, DEFAULT_GRACE),
            deadline: None,
            reported: Observed::Assigned,
            labels: BTreeMap::new(),
            probing: None,
            changes: 0,
            retry: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
        };
        if let Some(container) = &found.container {
            supervisor.see(container);
        }
        supervisor
    }

    #[tracing::instrument(name = "task", skip_all, fields(task_id = %self.task))]
    pub async fn run(mut self) {
        self.begin().await;
        loop {
            let goal = self.take_wanted();
            self.heed_silence().await;
            let action = machine::step(goal, &self.facts);
            tracing::debug!(?goal, ?action, facts = ?self.facts, "step");
            match action {
                Action::Wait => {
                    if goal == Goal::Ready && self.facts.container == Container::Created {
                        self.tell(Observed::Ready, Urgency::Now);
                    }
                    if !self.wait().await {
                        return;
                    }
                }
                Action::EnsureImage | Action::Attach | Action::Create | Action::Start
                    if !self.may_begin() =>
                {
                    if !self.wait_for_word().await {
                        return;
                    }
                }
                Action::EnsureImage => self.ensure_image().await,
                Action::Attach => self.attach().await,
                Action::Create => self.create().await,
                Action::Start => self.start().await,
                Action::AwaitWithdrawal => self.await_withdrawal().await,
                Action::Drain => self.drain().await,
                Action::Stop => self.stop().await,
                Action::Kill => self.kill().await,
                Action::Settle => self.settle(goal).await,
                Action::Remove => self.remove().await,
                Action::Detach => self.detach().await,
                Action::Forget => {
                    self.forget().await;
                    return;
                }
            }
        }
    }

    /// Tells what was found: an end, a run that goes on, or a task that is new here.
    async fn begin(&mut self) {
        if let Some(ended) = self.record.ended.clone() {
            self.reported = ended.state;
            self.node.report(ended, Urgency::Now);
            return;
        }
        match self.facts.container {
            Container::Running => {
                if let Some(attached) = &self.attached {
                    self.node.parts.balancers.set_local(&self.task.to_string(), attached.ip);
                } else {
                    tracing::warn!("a running container has no network any more");
                }
                if self.facts.doomed {
                    return;
                }
                // It runs already, so a port that is taken is waited for.
                if let Err(error) = self.open_host_ports(true).await {
                    tracing::warn!(%error, "a port of the host is not open");
                }
                self.watch_adopted(self.started_unix_ms);
            }
            Container::Absent if self.record.created => {
                let vanished = Ending::vanished();
                self.conclude(vanished, now_ms()).await;
            }
            Container::Absent => self.tell(Observed::Accepted, Urgency::Passing),
            Container::Created | Container::Exited => {}
        }
    }

    fn take_wanted(&mut self) -> Goal {
        match &*self.wanted.borrow_and_update() {
            Wanted::Assigned(assignment) => {
                let goal = Goal::of(assignment.desired);
                self.assignment = Some(assignment.clone());
                goal
            }
            Wanted::Gone => Goal::Gone,
        }
    }

    /// Until something changes; false when the worker ends.
    async fn wait(&mut self) -> bool {
        let node = self.node.clone();
        let (id, deadline) = (self.id.clone(), self.deadline);
        let lives = matches!(self.facts.container, Container::Created | Container::Running);
        let exit = async {
            match lives {
                true => node.parts.runtime.wait(&id).await,
                false => std::future::pending().await,
            }
        };
        let stop_after_ms = if self.heeds_silence() { self.stop_after_ms() } else { 0 };
        let standing = async {
            match &mut self.probing {
                Some(probing) if lives => probing.changed().await,
                _ => std::future::pending::<(Standing, Option<String>)>().await,
            }
        };
        let over = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.wanted.changed() => changed.is_ok(),
            ended = exit => {
                self.ended(ended).await;
                true
            }
            (standing, why) = standing => {
                self.stands(standing, why).await;
                true
            }
            // Looked at before the next step.
            () = wellbeing::silent(&node, stop_after_ms) => true,
            () = over => {
                self.facts.stopping = Stopping::Overdue;
                self.deadline = None;
                true
            }
        }
    }

    /// Nothing new is begun before a manager has said that it is still wanted.
    async fn wait_for_word(&mut self) -> bool {
        let node = self.node.clone();
        let mut hearing = node.hearing.subscribe();
        let heard = node.contact.news.notified();
        tokio::pin!(heard);
        heard.as_mut().enable();
        // What was heard may have come between.
        if self.may_begin() {
            return true;
        }
        tokio::select! {
            heard = hearing.changed() => heard.is_ok(),
            changed = self.wanted.changed() => changed.is_ok(),
            () = heard => true,
        }
    }

    async fn ended(&mut self, ended: cluster_runtime::Result<Exit>) {
        match ended {
            Ok(exit) => {
                self.exit = Some(exit);
                self.facts.container = Container::Exited;
                self.probing = None;
                self.deadline = None;
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "lost sight of a container"
                );
                self.look().await;
            }
        }
    }

    /// Asks the runtime what is, as often as it takes.
    async fn look(&mut self) {
        loop {
            let inspect = self.node.parts.runtime.inspect(&self.id);
            match self.node.health.watch(format!("inspect of {}", self.id), inspect).await {
                Ok(Some(container)) => {
                    self.see(&container);
                    // A runtime that answers this but not what was asked before is not asked in
                    // a tight loop.
                    tokio::time::sleep(self.retry.next_delay()).await;
                    return;
                }
                Ok(None) => {
                    self.facts.container = Container::Absent;
                    if !self.facts.settled && self.record.created {
                        self.conclude(Ending::vanished(), now_ms()).await;
                    }
                    return;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot look at a container"
                    );
                    tokio::time::sleep(self.retry.next_delay()).await;
                }
            }
        }
    }

    fn see(&mut self, container: &cluster_runtime::Observed) {
        self.started |= container.started_unix_ms.is_some();
        self.started_unix_ms = container.started_unix_ms;
        self.labels.clone_from(&container.labels);
        self.facts.container = match container.state {
            State::Created => Container::Created,
            State::Running => Container::Running,
            State::Exited(exit) => {
                self.exit = Some(exit);
                Container::Exited
            }
        };
        self.started |= container.state == State::Running;
        let label = |key: &str| container.labels.get(key);
        if let Some(signal) = label(STOP_SIGNAL_LABEL).and_then(|text| text.parse().ok()) {
            self.stop_with.0 = signal;
        }
        if let Some(grace) = label(GRACE_LABEL).and_then(|text| text.parse().ok()) {
            self.stop_with.1 = Duration::from_millis(grace);
        }
    }

    fn tell(&mut self, state: Observed, urgency: Urgency) {
        self.tell_with(state, urgency, None);
    }

    fn tell_with(&mut self, state: Observed, urgency: Urgency, message: Option<String>) {
        if state < self.reported || (state == self.reported && message.is_none()) {
            return;
        }
        self.reported = state;
        // Of two messages about one state the later one counts.
        let readiness = match message {
            Some(_) => self.next_change(),
            None => 0,
        };
        let report = StatusReport {
            message: message.map(Into::into),
            readiness,
            ..StatusReport::new(self.task, state, now_ms())
        };
        self.node.report(report, urgency);
    }
}

/// The container of a task: ids of tasks are ids of containers.
pub(crate) fn container_id(task: TaskId) -> ContainerId {
    // 13 letters and digits are always an id.
    ContainerId::new(task.to_string()).unwrap_or_else(|_| unreachable!("task ids name containers"))
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
