//! Log lines on their way from workers to whoever asked: requests under way on this manager.
//!
//! A request goes out on the worker's session; the worker answers with a stream of its own, which
//! ends when it has sent all, or, following, when the reader has gone.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_model::{NodeId, State, Task, TaskId};
use cluster_pb::control::v1 as control;
use cluster_pb::control::v1::logs_response::Item;
use cluster_pb::dispatcher::v1 as pb;
use cluster_wire::{Code, Failure};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::table::lock;
use crate::context::{Context, mint};

/// Lines waiting for a slow reader; the workers wait with them.
pub const QUEUE: usize = 1024;
/// Requests under way on one manager.
const REQUESTS_MAX: usize = 1024;
/// How long a worker may take to open its stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

pub type Sender = mpsc::Sender<control::LogsResponse>;

#[derive(Default)]
pub struct LogHub {
    requests: Mutex<HashMap<String, Arc<Pending>>>,
}

/// A request to one worker that it has not answered yet.
struct Pending {
    node: NodeId,
    sources: HashMap<String, Source>,
    lines: Sender,
}

/// How lines of a task are labelled.
struct Source {
    service_name: String,
    slot: u32,
    node_name: String,
}

impl LogHub {
    fn register(&self, id: String, pending: Pending) -> Result<(), Failure> {
        let mut requests = lock(&self.requests);
        if requests.len() >= REQUESTS_MAX {
            return Err(Failure::new(Code::Busy, "too many log requests are under way"));
        }
        requests.insert(id, Arc::new(pending));
        Ok(())
    }

    fn take(&self, id: &str) -> Option<Arc<Pending>> {
        lock(&self.requests).remove(id)
    }

    /// Passes a worker's lines on until it has sent all or the reader has gone.
    pub async fn publish(
        &self,
        node: NodeId,
        mut stream: Streaming<pb::PublishLogsRequest>,
    ) -> Result<(), Failure> {
        let broke = |status: tonic::Status| Failure::new(Code::Internal, status.message());
        let Some(first) = stream.message().await.map_err(broke)? else { return Ok(()) };
        let unknown = || Failure::new(Code::NotFound, "nobody waits for these lines");
        let pending = self.take(&first.request_id).ok_or_else(unknown)?;
        if pending.node != node {
            return Err(unknown());
        }
        let mut message = first;
        loop {
            for line in message.lines {
                let Some(response) = label(&pending, line) else { continue };
                if pending.lines.send(response).await.is_err() {
                    return Ok(());
                }
            }
            message = tokio::select! {
                () = pending.lines.closed() => return Ok(()),
                next = stream.message() => match next.map_err(broke)? {
                    Some(message) => message,
                    None => return Ok(()),
                },
            };
        }
    }
}

fn label(pending: &Pending, line: pb::LogLine) -> Option<control::LogsResponse> {
    let source = pending.sources.get(&line.task_id)?;
    let line = control::LogLine {
        task_id: line.task_id,
        service_name: source.service_name.clone(),
        slot: source.slot,
        node_name: source.node_name.clone(),
        stream: line.stream,
        unix_nanos: line.unix_nanos,
        text: line.text,
    };
    Some(control::LogsResponse { item: Some(Item::Line(line)) })
}

/// Tells a reader something beside the lines.
pub fn notice(text: String) -> control::LogsResponse {
    control::LogsResponse { item: Some(Item::Notice(text)) }
}

/// Which tasks a request is about; ids that are not in the state match nothing.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    Service(cluster_model::ServiceId),
    Task(TaskId),
}

impl Wanted {
    pub fn tasks<'a>(&self, state: &'a State) -> Vec<&'a Task> {
        match self {
            Wanted::Service(id) => state.tasks_of_service(*id).collect(),
            Wanted::Task(id) => state.task(*id).into_iter().collect(),
        }
    }
}

/// Asks the workers whose sessions are here for the lines of the wanted tasks, and, when following,
/// of tasks that come later. Returns when all was asked, or when the reader has gone.
pub async fn collect(
    context: Context,
    wanted: Wanted,
    request: control::LogsRequest,
    lines: Sender,
) {
    let mut feed = context.raft.feed();
    let mut asked: HashSet<TaskId> = HashSet::new();
    loop {
        let state = context.raft.view().state;
        ask(&context, &state, wanted, &request, &mut asked, &lines);
        if !request.follow {
            return;
        }
        tokio::select! {
            changed = feed.changed() => if changed.is_err() { return },
            () = lines.closed() => return,
        }
        let service_gone = match wanted {
            Wanted::Service(id) => context.raft.view().state.service(id).is_none(),
            Wanted::Task(id) => context.raft.view().state.task(id).is_none(),
        };
        if service_gone {
            return;
        }
    }
}

fn ask(
    context: &Context,
    state: &State,
    wanted: Wanted,
    request: &control::LogsRequest,
    asked: &mut HashSet<TaskId>,
    lines: &Sender,
) {
    let mut by_node: HashMap<NodeId, Vec<&Task>> = HashMap::new();
    for task in wanted.tasks(state) {
        let Some(node) = task.node.filter(|_| !asked.contains(&task.id)) else { continue };
        by_node.entry(node).or_default().push(task);
    }
    for (node, tasks) in by_node {
        let Some(mailbox) = context.dispatch.sessions.get(node) else { continue };
        asked.extend(tasks.iter().map(|task| task.id));
        let name = state.node(node).map(|node| node.name.clone()).unwrap_or_default();
        let id = format!("{}{}", TaskId(mint()), TaskId(mint()));
        let message = pb::LogRequest {
            request_id: id.clone(),
            task_ids: tasks.iter().map(|task| task.id.to_string()).collect(),
            follow: request.follow,
            tail: request.tail,
            since_ms: request.since_ms,
            cancel: false,
        };
        let sources = tasks.iter().map(|task| (task.id.to_string(), source(state, task, &name)));
        let pending = Pending { node, sources: sources.collect(), lines: lines.clone() };
        let sent = context.dispatch.logs.register(id.clone(), pending).is_ok()
            && mailbox.log_requests.try_send(message).is_ok();
        tokio::spawn(give_up(context.clone(), id, name, lines.clone(), sent));
    }
}

fn source(state: &State, task: &Task, node_name: &str) -> Source {
    let service_name =
        state.service(task.service).map(|service| service.spec.name.clone()).unwrap_or_default();
    Source { service_name, slot: task.slot, node_name: node_name.to_owned() }
}

/// Ends a request that a worker does not answer, and says so.
async fn give_up(context: Context, id: String, node_name: String, lines: Sender, sent: bool) {
    if sent {
        tokio::select! {
            () = tokio::time::sleep(OPEN_TIMEOUT) => {}
            () = answered(&context, &id) => return,
        }
    }
    if context.dispatch.logs.take(&id).is_some() {
        let text = format!("worker {node_name} did not answer: its lines are missing");
        // The reader may have gone.
        let _ = lines.send(notice(text)).await;
    }
}

/// Resolves soon after the worker opened its stream, so that a finished request's reader is not
/// kept open by its timer.
async fn answered(context: &Context, id: &str) {
    let mut check = tokio::time::interval(Duration::from_millis(20));
    loop {
        check.tick().await;
        if !lock(&context.dispatch.logs.requests).contains_key(id) {
            return;
        }
    }
}
