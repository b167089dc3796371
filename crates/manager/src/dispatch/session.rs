//! One worker's session.
//!
//! *Flow*: hello; then, subscribed first and read second, welcome, the full set of assignments and
//! of endpoints, and from then on deltas of both, answers to reports, and requests for logs.
//! *Guarantees*: assignment messages are numbered without gaps and stamped (term, version); a
//! session that cannot keep up is ended, never silently skipped.
//! *Assumes*: the worker repeats unanswered reports in its next session.
//! *On failure*: the session ends and the worker opens another, here or elsewhere.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cluster_model::{Command, Desired, NodeDescription, NodeId, NodeState, ServiceId, State, Task, TaskId};
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::dispatcher::v1::manager_message::Item as Out;
use cluster_pb::dispatcher::v1::worker_message::Item as In;
use cluster_wire::{Code, Failure, dispatch as wire, object};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};

use super::reports::Batch;
use super::router::full_endpoints;
use super::table::Mailbox;
use crate::context::{Context, mint};

/// Messages waiting for a slow worker before the session waits for it.
pub const QUEUE: usize = 64;
/// A worker says hello at once.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Assignments in one message.
const ASSIGNMENTS_MAX: usize = 500;
/// Reports of one worker that may wait for their commit.
const REPORTS_PENDING_MAX: usize = 64;
/// How long a worker may leave the session's messages unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a node that is not ready is declared ready again.
const READY_RETRY: Duration = Duration::from_millis(500);

type Sender = mpsc::Sender<Result<pb::ManagerMessage, Status>>;
type Commit = BoxFuture<'static, (u64, Result<(), oneshot::error::RecvError>)>;


/// Runs a session to its end.
pub async fn run(
    context: Context,
    node: NodeId,
    mut inbound: Streaming<pb::WorkerMessage>,
    out: Sender,
) {
    let session = mint();
    let result = match hello(&mut inbound).await {
        Ok(description) => {
            let (mailbox, log_requests) = context.dispatch.sessions.open(node, session);
            tracing::info!(node_id = %node, session_id = %TaskId(session), "session opened");
            let endpoints = context.dispatch.endpoints.subscribe();
            let mut session_loop = Session {
                node,
                description,
                mailbox,
                out: out.clone(),
                sequence: 0,
                specs_sent: HashSet::new(),
                known: BTreeSet::new(),
                declared: None,
                context: context.clone(),
            };
            session_loop.serve(inbound, endpoints, log_requests).await
        }
        Err(failure) => Err(failure),
    };
    context.dispatch.sessions.close(node, session);
    if let Err(failure) = result {
        tracing::info!(node_id = %node, reason = %failure, "session ended");
        // The worker may be gone already.
        let _ = timeout(SEND_TIMEOUT, out.send(Err(failure.into()))).await;
    }
}

async fn hello(inbound: &mut Streaming<pb::WorkerMessage>) -> Result<NodeDescription, Failure> {
    let first = timeout(HELLO_TIMEOUT, inbound.message()).await;
    let refuse = |what: &str| Failure::new(Code::InvalidField, what);
    match first {
        Ok(Ok(Some(pb::WorkerMessage { item: Some(In::Hello(hello)) }))) => {
            let description = hello.description.ok_or_else(|| refuse("field `hello.description`: is missing"))?;
            Ok(object::description_from_pb(description)?)
        }
        Ok(Ok(_)) => Err(refuse("the first message of a session must be hello")),
        Ok(Err(status)) => Err(Failure::new(Code::Internal, status.message())),
        Err(_) => Err(refuse("no hello came in time")),
    }
}

struct Session {
    context: Context,
    node: NodeId,
    description: NodeDescription,
    mailbox: Arc<Mailbox>,
    out: Sender,
    /// Of the last assignments message.
    sequence: u64,
    /// Specs the worker holds.
    specs_sent: HashSet<(ServiceId, u32)>,
    /// Tasks the worker knows of.
    known: BTreeSet<TaskId>,
    /// When the node was last proposed as ready.
    declared: Option<Instant>,
}

impl Session {
    async fn serve(
        &mut self,
        mut inbound: Streaming<pb::WorkerMessage>,
        mut endpoints: broadcast::Receiver<Arc<pb::Endpoints>>,
        mut log_requests: mpsc::Receiver<pb::LogRequest>,
    ) -> Result<(), Failure> {
        let mut withdrawn = self.context.dispatch.withdrawn.subscribe();
        self.context.dispatch.hearing.acknowledged(self.node, 0);
        let state = self.present_state().await?;
        self.declare_ready(&state)?;
        self.welcome(&state).await?;
        self.send_full_set(&state).await?;
        self.send_endpoints(full_endpoints(&state)).await?;
        let closed = self.mailbox.closed.clone();
        let mut committed: FuturesUnordered<Commit> = FuturesUnordered::new();
        let mut silent_until = self.silence_limit(&state);
        loop {
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(message)) => {
                        if let Some(commit) = self.received(message, committed.len()).await? {
                            committed.push(commit);
                        }
                        silent_until = self.silence_limit(&self.context.raft.view().state);
                    }
                    Ok(None) => return Ok(()),
                    Err(status) => return Err(Failure::new(Code::Internal, format!("stream broke: {}", status.message()))),
                },
                () = self.mailbox.wake.notified() => self.changed().await?,
                delta = endpoints.recv() => match delta {
                    Ok(delta) => self.send(Out::Endpoints((*delta).clone())).await?,
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        let state = self.context.raft.view().state;
                        self.send_endpoints(full_endpoints(&state)).await?;
                    }
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
                changed = withdrawn.changed() => {
                    if changed.is_err() { return Ok(()) }
                    let version = *withdrawn.borrow_and_update();
                    self.send(Out::Withdrawn(pb::Withdrawn { version })).await?;
                }
                Some((sequence, outcome)) = committed.next(), if !committed.is_empty() => {
                    let lost = |_| Failure::new(Code::NoLeader, "reports could not be recorded");
                    outcome.map_err(lost)?;
                    self.send(Out::Reported(pb::Reported { sequence })).await?;
                }
                Some(request) = log_requests.recv() => self.send(Out::LogRequest(request)).await?,
                () = closed.cancelled() => return Err(Failure::new(Code::Stopping, "a newer session of this node took over")),
                () = sleep_until(silent_until) => return Err(Failure::new(Code::Stopping, "the worker went silent")),
            }
        }
    }

    /// This manager's state, caught up if it does not know the node: it may have joined through
    /// another manager a moment ago.
    async fn present_state(&self) -> Result<State, Failure> {
        let state = self.context.raft.view().state;
        if state.node(self.node).is_some() {
            return Ok(state);
        }
        let state = self.context.read(false).await?.state;
        self.check_member(&state)?;
        Ok(state)
    }

    fn check_member(&self, state: &State) -> Result<(), Failure> {
        match state.node(self.node) {
            Some(_) => Ok(()),
            None => Err(Failure::new(Code::Removed, format!("node `{}` is not in the cluster", self.node))),
        }
    }

    /// A session outlives a silence of twice the lease: the node is down by then, but may be back.
    fn silence_limit(&self, state: &State) -> Instant {
        let lease = state.cluster().map_or(3000, |cluster| cluster.lease_ms);
        Instant::now() + Duration::from_millis(lease.saturating_mul(2))
    }

    /// Proposes the node as ready if the state has it otherwise. Runs beside the session; the
    /// outcome shows in the state.
    fn declare_ready(&mut self, state: &State) -> Result<(), Failure> {
        self.check_member(state)?;
        let recorded = state.node(self.node).is_some_and(|node| {
            node.state == NodeState::Ready && node.description == self.description
        });
        let soon = self.declared.is_some_and(|at| at.elapsed() < READY_RETRY);
        if recorded || soon {
            return Ok(());
        }
        self.declared = Some(Instant::now());
        let context = self.context.clone();
        let at_ms = context.clock.now_ms();
        let description = Box::new(self.description.clone());
        let command = Command::NodeReady { id: self.node, description, at_ms };
        let node = self.node;
        tokio::spawn(async move {
            if let Err(failure) = context.propose(command).await {
                tracing::warn!(node_id = %node, reason = %failure, "could not record a node as ready");
            }
        });
        Ok(())
    }

    async fn welcome(&mut self, state: &State) -> Result<(), Failure> {
        let Some(cluster) = state.cluster() else {
            return Err(Failure::new(Code::Bootstrapped, "the cluster is not bootstrapped yet"));
        };
        let name = state.node(self.node).map(|node| node.name.clone()).unwrap_or_default();
        let managers = cluster.managers.values().map(|manager| manager.address.clone()).collect();
        self.send(Out::Welcome(pb::Welcome {
            heartbeat_period_ms: cluster.heartbeat_period_ms,
            lease_ms: cluster.lease_ms,
            node_name: name,
            session_id: TaskId(self.mailbox.session).to_string(),
        }))
        .await?;
        self.send(Out::Managers(pb::Managers { addresses: managers })).await
    }

    /// Answers what has to be waited for before the worker is told that its reports are recorded.
    async fn received(
        &mut self,
        message: pb::WorkerMessage,
        pending: usize,
    ) -> Result<Option<Commit>, Failure> {
        let mut commit = None;
        let hearing = &self.context.dispatch.hearing;
        match message.item {
            Some(In::Acknowledge(acknowledge)) => {
                hearing.acknowledged(self.node, acknowledge.endpoints_version);
            }
            Some(In::Heartbeat(heartbeat)) => {
                hearing.heard(self.node);
                self.note_health(&heartbeat.trouble)?;
            }
            Some(In::Report(report)) => {
                hearing.heard(self.node);
                commit = Some(self.report(report, pending).await?);
            }
            Some(In::Hello(_)) | None => {
                return Err(Failure::new(Code::InvalidField, "a message of an unknown kind came"));
            }
        }
        let state = self.context.raft.view().state;
        self.declare_ready(&state)?;
        Ok(commit)
    }

    /// A runtime in trouble is part of the node's description.
    fn note_health(&mut self, trouble: &str) -> Result<(), Failure> {
        let healthy = trouble.is_empty();
        if healthy == self.description.healthy {
            return Ok(());
        }
        self.description.healthy = healthy;
        self.description.notices.retain(|notice| !notice.starts_with("runtime: "));
        if !healthy {
            let shown: String = trouble.chars().take(200).collect();
            self.description.notices.push(format!("runtime: {shown}"));
        }
        self.declared = None;
        Ok(())
    }

    async fn report(&self, report: pb::Report, pending: usize) -> Result<Commit, Failure> {
        if pending >= REPORTS_PENDING_MAX {
            return Err(Failure::new(Code::Busy, "too many reports wait to be recorded"));
        }
        let reports =
            report.tasks.into_iter().map(wire::report_from_pb).collect::<Result<Vec<_>, _>>()?;
        let (done, committed) = oneshot::channel();
        let batch = Batch { node: self.node, reports, done };
        let stopped = |_| Failure::new(Code::Stopping, "the manager is stopping");
        self.context.dispatch.reports.send(batch).await.map_err(stopped)?;
        let sequence = report.sequence;
        Ok(Box::pin(async move { (sequence, committed.await) }))
    }

    /// Something of this node changed: sends what is new.
    async fn changed(&mut self) -> Result<(), Failure> {
        let dirty = self.mailbox.take_dirty();
        let view = self.context.raft.view();
        let state = view.state;
        self.declare_ready(&state)?;
        let mut tasks = Vec::new();
        let mut removed = Vec::new();
        for id in dirty {
            match state.task(id).filter(|task| task.node == Some(self.node)) {
                Some(task) => tasks.extend(self.assignment(&state, task)),
                None if self.known.remove(&id) => removed.push(id.to_string()),
                None => {}
            }
        }
        if tasks.is_empty() && removed.is_empty() {
            return Ok(());
        }
        self.send_assignments(view.term, view.applied_index, false, tasks, removed).await
    }

    async fn send_full_set(&mut self, state: &State) -> Result<(), Failure> {
        let view = self.context.raft.view();
        let tasks: Vec<Task> = state.tasks_of_node(self.node).cloned().collect();
        let tasks = tasks.iter().filter_map(|task| self.assignment(state, task)).collect();
        // Stamped with the view's position, which is not older than the state sent; what changed in
        // between waits in the mailbox.
        self.send_assignments(view.term, view.applied_index, true, tasks, Vec::new()).await
    }

    fn assignment(&mut self, state: &State, task: &Task) -> Option<pb::Assignment> {
        let service = state.service(task.service)?;
        self.known.insert(task.id);
        let with_spec = self.specs_sent.insert((task.service, task.revision));
        let mut assignment = wire::assignment(service, task, with_spec);
        // What is over for the managers must not run: a node that was given up may still run it.
        if task.status.state.is_terminal() && task.desired < Desired::Shutdown {
            assignment.desired_state = Desired::Shutdown.to_string();
        }
        Some(assignment)
    }

    async fn send_assignments(
        &mut self,
        term: u64,
        version: u64,
        full: bool,
        tasks: Vec<pb::Assignment>,
        removed: Vec<String>,
    ) -> Result<(), Failure> {
        let mut tasks = tasks.into_iter();
        let mut removed = Some(removed);
        loop {
            let part: Vec<pb::Assignment> = tasks.by_ref().take(ASSIGNMENTS_MAX).collect();
            let more = tasks.len() > 0;
            self.sequence += 1;
            let message = pb::Assignments {
                term,
                version,
                sequence: self.sequence,
                full,
                more,
                tasks: part,
                removed: removed.take().unwrap_or_default(),
            };
            self.send(Out::Assignments(message)).await?;
            if !more {
                return Ok(());
            }
        }
    }

    async fn send_endpoints(&mut self, messages: Vec<pb::Endpoints>) -> Result<(), Failure> {
        for message in messages {
            self.send(Out::Endpoints(message)).await?;
        }
        Ok(())
    }

    async fn send(&self, item: Out) -> Result<(), Failure> {
        let message = Ok(pb::ManagerMessage { item: Some(item) });
        match timeout(SEND_TIMEOUT, self.out.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Failure::new(Code::Stopping, "the worker closed the session")),
            Err(_) => Err(Failure::new(Code::Busy, "the worker does not read its messages")),
        }
    }
}
