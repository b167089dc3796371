//! What a worker says: heartbeats, acknowledgements and reports. Nothing here waits for anything
//! but the worker, so a heartbeat is never kept waiting.

use std::time::{Duration, Instant as Moment};

use cluster_model::{Command, NodeDescription, NodeState, State};
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::dispatcher::v1::manager_message::Item as Out;
use cluster_pb::dispatcher::v1::worker_message::Item as In;
use cluster_wire::{Code, Failure, dispatch as wire};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tonic::Streaming;

use super::{Sender, Who};
use crate::context::Context;
use crate::dispatch::reports::Batch;

/// Reports of one worker that may wait for their commit.
const REPORTS_PENDING_MAX: usize = 64;
/// Begins the notice that says why a node is unhealthy.
const TROUBLE: &str = "unhealthy: ";
/// How often a node that is not ready is declared ready again.
const READY_RETRY: Duration = Duration::from_millis(500);

/// A report's number, once it is recorded.
type Recorded = BoxFuture<'static, Result<u64, Failure>>;

pub(super) struct Inbound<'a> {
    context: &'a Context,
    who: Who,
    description: NodeDescription,
    /// When the node was last proposed as ready.
    declared: Option<Instant>,
    /// That proposal, while it is under way.
    declaring: Option<BoxFuture<'static, ()>>,
    /// Reports up to this one are recorded.
    reported: watch::Sender<u64>,
    /// For answers to heartbeats: one that finds no room is left out, the next counts for it too.
    out: Sender,
    /// The newest heartbeat that is not answered yet, and when it was heard.
    unanswered: Option<(u64, Moment)>,
}

impl<'a> Inbound<'a> {
    pub fn new(
        context: &'a Context,
        who: Who,
        description: NodeDescription,
        reported: watch::Sender<u64>,
        out: Sender,
    ) -> Self {
        let (declared, declaring, unanswered) = (None, None, None);
        Self { context, who, description, declared, declaring, reported, out, unanswered }
    }

    pub async fn run(mut self, mut messages: Streaming<pb::WorkerMessage>) -> Result<(), Failure> {
        let mut silent_at = self.look()?;
        // Set again only when it ends: each message moves the limit.
        let silence = sleep_until(silent_at);
        tokio::pin!(silence);
        // In order: a number stands for all reports before it.
        let mut recorded: FuturesOrdered<Recorded> = FuturesOrdered::new();
        let mut contact = self.context.dispatch.contact.watch();
        loop {
            tokio::select! {
                message = messages.message() => match message {
                    Ok(Some(message)) => {
                        if let Some(report) = self.received(message, recorded.len())? {
                            recorded.push_back(report);
                        }
                        silent_at = self.look()?;
                    }
                    Ok(None) => return Ok(()),
                    Err(status) => {
                        let message = format!("stream broke: {}", status.message());
                        return Err(Failure::new(Code::Internal, message));
                    }
                },
                Some(sequence) = recorded.next(), if !recorded.is_empty() => {
                    self.reported.send_replace(sequence?);
                }
                () = confirmed(&mut contact, self.unanswered) => {
                    if let Some((sequence, _)) = self.unanswered.take() {
                        let answer = Out::Heard(pb::Heard { sequence });
                        // A worker that does not read has its next heartbeat answered.
                        let _ = self.out.try_send(Ok(pb::ManagerMessage { item: Some(answer) }));
                        // What is recorded but not acknowledged can go with it.
                        self.reported.send_modify(|_| {});
                    }
                }
                () = finish(&mut self.declaring) => {}
                () = &mut silence => {
                    if silent_at <= Instant::now() {
                        return Err(Failure::new(Code::Stopping, "the worker went silent"));
                    }
                    silence.as_mut().reset(silent_at);
                }
            }
        }
    }

    /// Whether the session may go on, and until when without another word.
    fn look(&mut self) -> Result<Instant, Failure> {
        let context = self.context;
        context.raft.look(|view| {
            self.declare_ready(&view.state)?;
            Ok(self.silence_limit(&view.state))
        })
    }

    /// A session outlives a silence of twice the lease: the node is down by then, but may be back.
    fn silence_limit(&self, state: &State) -> Instant {
        let lease = state.cluster().map_or(3000, |cluster| cluster.lease_ms);
        Instant::now() + Duration::from_millis(lease.saturating_mul(2))
    }

    /// Proposes the node as ready if the state has it otherwise, one proposal at a time, beside the
    /// session; the outcome shows in the state. Each message is an occasion: a node that was taken
    /// for dead is ready again as soon as it is heard.
    fn declare_ready(&mut self, state: &State) -> Result<(), Failure> {
        let node = self.who.standing(state)?;
        let recorded = node.state == NodeState::Ready && node.description == self.description;
        let soon = self.declared.is_some_and(|at| at.elapsed() < READY_RETRY);
        if recorded || soon || self.declaring.is_some() {
            return Ok(());
        }
        self.declared = Some(Instant::now());
        let (context, id) = (self.context.clone(), self.who.node);
        let description = Box::new(self.description.clone());
        self.declaring = Some(Box::pin(async move {
            let at_ms = context.clock.now_ms();
            let command = Command::NodeReady { id, description, at_ms };
            if let Err(failure) = context.propose(command).await {
                tracing::warn!(node_id = %id, reason = %failure, "could not record a node as ready");
            }
        }));
        Ok(())
    }

    /// Answers a report's recording, to be waited for.
    fn received(
        &mut self,
        message: pb::WorkerMessage,
        pending: usize,
    ) -> Result<Option<Recorded>, Failure> {
        let (hearing, node) = (&self.context.dispatch.hearing, self.who.node);
        match message.item {
            Some(In::Acknowledge(acknowledge)) => {
                hearing.acknowledged(node, acknowledge.endpoints_version);
            }
            Some(In::Heartbeat(heartbeat)) => {
                hearing.heard(node);
                if heartbeat.sequence > 0 {
                    self.unanswered = Some((heartbeat.sequence, Moment::now()));
                }
                self.note_health(&heartbeat.trouble);
            }
            Some(In::Report(report)) => {
                hearing.heard(node);
                return Ok(Some(self.report(report, pending)?));
            }
            Some(In::Hello(_)) => {
                return Err(Failure::new(Code::InvalidField, "hello came twice"));
            }
            // A newer worker may say what we do not know; it is alive.
            None => hearing.heard(node),
        }
        Ok(None)
    }

    /// Trouble is part of the node's description.
    fn note_health(&mut self, trouble: &str) {
        let healthy = trouble.is_empty();
        if healthy == self.description.healthy {
            return;
        }
        self.description.healthy = healthy;
        self.description.notices.retain(|notice| !notice.starts_with(TROUBLE));
        if !healthy {
            let shown: String = trouble.chars().take(200).collect();
            self.description.notices.push(format!("{TROUBLE}{shown}"));
        }
        self.declared = None;
    }

    fn report(&self, report: pb::Report, pending: usize) -> Result<Recorded, Failure> {
        if pending >= REPORTS_PENDING_MAX {
            return Err(Failure::new(Code::Busy, "too many reports wait to be recorded"));
        }
        let reports =
            report.tasks.into_iter().map(wire::report_from_pb).collect::<Result<Vec<_>, _>>()?;
        let (done, recorded) = oneshot::channel();
        let batch = Batch { node: self.who.node, reports, done };
        let (queue, sequence) = (self.context.dispatch.reports.clone(), report.sequence);
        Ok(Box::pin(async move {
            let stopping = |_| Failure::new(Code::Stopping, "this manager is stopping");
            queue.send(batch).await.map_err(stopping)?;
            let lost = |_| Failure::new(Code::NoLeader, "reports could not be recorded");
            recorded.await.map_err(lost)?;
            Ok(sequence)
        }))
    }
}

/// Resolves when this manager has been in touch with the leader since it heard the heartbeat: a
/// worker that is heard only by a manager that is cut off itself is not heard.
async fn confirmed(contact: &mut watch::Receiver<Moment>, unanswered: Option<(u64, Moment)>) {
    let in_touch = match unanswered {
        Some((_, heard)) => contact.wait_for(|last| *last >= heard).await.is_ok(),
        None => false,
    };
    if !in_touch {
        std::future::pending().await
    }
}

/// Sees a future through, if there is one.
async fn finish(running: &mut Option<BoxFuture<'static, ()>>) {
    match running {
        Some(future) => {
            future.await;
            *running = None;
        }
        None => std::future::pending().await,
    }
}
