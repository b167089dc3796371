//! One worker's session.
//!
//! *Flow*: hello; then, subscribed first and read second, welcome, the full set of assignments and
//! of endpoints, and from then on deltas of both, answers to reports, and requests for logs.
//! `inbound` reads and never waits for what `outbound` writes, so that a worker that is slow to
//! read is still heard.
//! *Guarantees*: assignment messages are numbered without gaps and stamped (term, version); a
//! session that cannot keep up is ended, never silently skipped; one of an earlier start of the
//! worker than the state knows is ended.
//! *Assumes*: the worker repeats unanswered reports in its next session.
//! *On failure*: the session ends and the worker opens another, here or elsewhere.

mod inbound;
mod outbound;
mod receipts;

use std::time::Duration;

use cluster_model::{Node, NodeDescription, NodeId, State, TaskId};
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::dispatcher::v1::worker_message::Item as In;
use cluster_wire::{Code, Failure, object};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use self::inbound::Inbound;
use self::outbound::Outbound;
use super::table::SessionTable;
use crate::context::{Context, mint};

/// Messages waiting for a slow worker before the session waits for it.
pub const QUEUE: usize = 64;
/// A worker says hello at once.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a worker may leave the session's messages unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a session waits to begin with the newest state rather than with what is known here.
const CATCH_UP: Duration = Duration::from_secs(1);

type Sender = mpsc::Sender<Result<pb::ManagerMessage, Status>>;

/// Whose session it is.
#[derive(Clone, Copy, Debug)]
struct Who {
    node: NodeId,
    boot: u64,
}

impl Who {
    /// The node as the state has it; an error when this session has no business going on.
    fn standing(self, state: &State) -> Result<&Node, Failure> {
        let Some(node) = state.node(self.node) else {
            return Err(Failure::new(
                Code::Removed,
                format!("node `{}` is not in the cluster", self.node),
            ));
        };
        if node.description.boot > self.boot {
            return Err(Failure::new(
                Code::Stopping,
                "a later start of this worker has taken over",
            ));
        }
        Ok(node)
    }
}

/// Runs a session to its end.
pub async fn run(
    context: Context,
    node: NodeId,
    mut inbound: Streaming<pb::WorkerMessage>,
    out: Sender,
) {
    // What is needed once is not carried along for as long as the session lasts.
    let result = match Box::pin(hello(&mut inbound)).await {
        Ok(description) => serve(&context, node, description, inbound, out.clone()).await,
        Err(failure) => Err(failure),
    };
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
            let description =
                hello.description.ok_or_else(|| refuse("field `hello.description`: is missing"))?;
            Ok(object::description_from_pb(description)?)
        }
        Ok(Ok(_)) => Err(refuse("the first message of a session must be hello")),
        Ok(Err(status)) => Err(Failure::new(Code::Internal, status.message())),
        Err(_) => Err(refuse("no hello came in time")),
    }
}

async fn serve(
    context: &Context,
    node: NodeId,
    description: NodeDescription,
    messages: Streaming<pb::WorkerMessage>,
    out: Sender,
) -> Result<(), Failure> {
    let who = Who { node, boot: description.boot };
    let session = mint();
    let (mailbox, log_requests) = context.dispatch.sessions.open(node, session);
    let _open = Open { table: &context.dispatch.sessions, node, session };
    let endpoints = context.dispatch.endpoints.subscribe();
    // Heard at once where it is known, and what its balancers follow it says itself.
    if who.standing(&context.raft.view().state).is_ok() {
        context.dispatch.hearing.acknowledged(node, 0);
    }
    Box::pin(catch_up(context, who)).await?;
    context.dispatch.hearing.acknowledged(node, 0);
    tracing::info!(node_id = %node, session_id = %TaskId(session), boot = who.boot, "session opened");
    let (reported, recorded) = watch::channel(0);
    let inbound = Inbound::new(context, who, description, reported, out.clone());
    let outbound = Outbound::new(context, who, mailbox.clone(), out);
    tokio::select! {
        ended = inbound.run(messages) => ended,
        ended = outbound.run(endpoints, recorded, log_requests) => ended,
        reason = mailbox.closed() => Err(Failure::new(Code::Stopping, reason)),
    }
}

/// Waits until the state here is at least what any manager has sent this worker before, as far as a
/// leader can be asked. The worker may also have joined through another manager just now.
async fn catch_up(context: &Context, who: Who) -> Result<(), Failure> {
    let asked = match timeout(CATCH_UP, context.read(false)).await {
        Ok(asked) => asked,
        Err(_) => Err(Failure::new(Code::NoLeader, "no leader answered in time")),
    };
    let view = match asked {
        Ok(view) => view,
        // Not to know a node says nothing while this manager may be behind; and a worker that is
        // told that it was removed ends its containers.
        Err(failure) => Some(context.raft.view())
            .filter(|view| view.state.node(who.node).is_some())
            .ok_or(failure)?,
    };
    who.standing(&view.state)?;
    Ok(())
}

/// A session's place in the table, for as long as it lasts.
struct Open<'a> {
    table: &'a SessionTable,
    node: NodeId,
    session: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.table.close(self.node, self.session);
    }
}
