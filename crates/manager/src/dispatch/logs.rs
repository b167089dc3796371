//! Log lines on their way from workers to whoever asked: requests under way on this manager.
//!
//! A request goes out on the worker's session; the worker answers with a stream of its own, which
//! ends when it has sent all, or, following, when the reader has gone. Bounded: requests at once,
//! lines waiting; a reader that does not read stops the workers' reading, nothing piles up.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use cluster_daemon::OnError;
use cluster_model::{NodeId, State, Task, TaskId};
use cluster_pb::control::v1 as control;
use cluster_pb::control::v1::logs_response::Item;
use cluster_pb::dispatcher::v1 as pb;
use cluster_wire::{Code, Failure};
use tokio::sync::{mpsc, oneshot};
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
    requests: Mutex<HashMap<String, Pending>>,
}

/// A request to one worker that it has not answered yet.
struct Pending {
    node: NodeId,
    node_name: String,
    sources: HashMap<String, Source>,
    lines: Sender,
    /// Dropped when the worker has opened its stream.
    opened: oneshot::Sender<()>,
}

/// How lines of a task are labelled.
struct Source {
    service_name: String,
    slot: u32,
}

impl LogHub {
    fn register(&self, id: String, pending: Pending) -> bool {
        let mut requests = lock(&self.requests);
        let room = requests.len() < REQUESTS_MAX;
        if room {
            requests.insert(id, pending);
        }
        room
    }

    fn take(&self, id: &str) -> Option<Pending> {
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
        let Pending { node: asked, node_name, sources, lines, opened } =
            self.take(&first.request_id).ok_or_else(unknown)?;
        drop(opened);
        if asked != node {
            return Err(unknown());
        }
        let mut message = first;
        loop {
            for line in message.lines {
                let Some(response) = label(&sources, &node_name, line) else { continue };
                if lines.send(response).await.is_err() {
                    return Ok(());
                }
            }
            let next = tokio::select! {
                () = lines.closed() => return Ok(()),
                next = stream.message() => next,
            };
            message = match next {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(()),
                Err(status) => {
                    let text =
                        format!("worker {node_name} broke off: further lines may be missing");
                    // The reader may have gone.
                    let _ = lines.send(notice(text)).await;
                    return Err(broke(status));
                }
            };
        }
    }
}

fn label(
    sources: &HashMap<String, Source>,
    node_name: &str,
    line: pb::LogLine,
) -> Option<control::LogsResponse> {
    let source = sources.get(&line.task_id)?;
    let line = control::LogLine {
        task_id: line.task_id,
        service_name: source.service_name.clone(),
        slot: source.slot,
        node_name: node_name.to_owned(),
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

    /// Nothing new will come of it.
    fn is_over(&self, state: &State) -> bool {
        match self {
            Wanted::Service(id) => state.service(*id).is_none(),
            Wanted::Task(id) => state.task(*id).is_none_or(|task| task.status.state.is_terminal()),
        }
    }
}

/// Asks the workers whose sessions are here for the lines of the wanted tasks, and, when following,
/// of tasks that come later and of workers that come back. Returns when all was asked, or when the
/// reader has gone.
pub async fn collect(
    context: Context,
    wanted: Wanted,
    request: control::LogsRequest,
    lines: Sender,
) {
    let mut feed = context.raft.feed();
    let mut opened = context.dispatch.sessions.watch_opened();
    let mut asked = Asked::default();
    loop {
        let state = context.raft.view().state;
        ask(&context, &state, wanted, &request, &mut asked, &lines);
        if !request.follow || wanted.is_over(&state) {
            return;
        }
        tokio::select! {
            changed = feed.changed() => if changed.is_err() { return },
            changed = opened.changed() => if changed.is_err() { return },
            () = lines.closed() => return,
        }
    }
}

/// The tasks of one request that exist, and the session whose worker was asked for each; none when
/// its worker has none here. An end of a session ends the worker's streams.
#[derive(Default)]
struct Asked {
    sessions: HashMap<TaskId, Option<u64>>,
    begun: bool,
}

impl Asked {
    /// The tasks to ask a session for now: new ones, whose lines are wanted from the beginning,
    /// and others, whose earlier lines the reader has had from another session.
    fn due<'a>(&self, tasks: &[&'a Task], session: Option<u64>) -> (Vec<&'a Task>, Vec<&'a Task>) {
        let due = tasks.iter().copied().filter(|task| match self.sessions.get(&task.id) {
            None => true,
            Some(known) => {
                session.is_some() && *known != session && !task.status.state.is_terminal()
            }
        });
        due.partition(|task| !self.begun || !self.sessions.contains_key(&task.id))
    }
}

fn ask(
    context: &Context,
    state: &State,
    wanted: Wanted,
    request: &control::LogsRequest,
    asked: &mut Asked,
    lines: &Sender,
) {
    let mut by_node: HashMap<NodeId, Vec<&Task>> = HashMap::new();
    for task in wanted.tasks(state) {
        let Some(node) = task.node else { continue };
        by_node.entry(node).or_default().push(task);
    }
    let mut sessions = HashMap::new();
    for (node, tasks) in by_node {
        let mailbox = context.dispatch.sessions.get(node);
        let session = mailbox.as_ref().map(|mailbox| mailbox.session);
        let (new, again) = asked.due(&tasks, session);
        if let Some(mailbox) = mailbox {
            let from_now = control::LogsRequest { tail: Some(0), ..request.clone() };
            for (tasks, request) in [(new, request), (again, &from_now)] {
                if !tasks.is_empty() {
                    ask_worker(context, state, node, &mailbox.log_requests, &tasks, request, lines);
                }
            }
        }
        // Of a worker that is away we remember whom we asked before: it may come back unchanged.
        let known = |task: &Task| asked.sessions.get(&task.id).copied().flatten();
        sessions.extend(tasks.iter().map(|task| (task.id, session.or_else(|| known(task)))));
    }
    *asked = Asked { sessions, begun: true };
}

fn ask_worker(
    context: &Context,
    state: &State,
    node: NodeId,
    worker: &mpsc::Sender<pb::LogRequest>,
    tasks: &[&Task],
    request: &control::LogsRequest,
    lines: &Sender,
) {
    let node_name = state.node(node).map(|node| node.name.clone()).unwrap_or_default();
    let id = format!("{}{}", TaskId(mint()), TaskId(mint()));
    let message = pb::LogRequest {
        request_id: id.clone(),
        task_ids: tasks.iter().map(|task| task.id.to_string()).collect(),
        follow: request.follow,
        tail: request.tail,
        since_ms: request.since_ms,
        cancel: false,
    };
    let sources = tasks.iter().map(|task| (task.id.to_string(), source(state, task))).collect();
    let (opened, open) = oneshot::channel();
    let pending =
        Pending { node, node_name: node_name.clone(), sources, lines: lines.clone(), opened };
    let hub = &context.dispatch.logs;
    let sent = hub.register(id.clone(), pending) && worker.try_send(message).is_ok();
    let waiting = give_up(context.clone(), id, node_name, lines.clone(), sent.then_some(open));
    context.dispatch.calls.spawn("log request", OnError::Log, waiting);
}

fn source(state: &State, task: &Task) -> Source {
    let service_name =
        state.service(task.service).map(|service| service.spec.name.clone()).unwrap_or_default();
    Source { service_name, slot: task.slot }
}

/// Ends a request that a worker does not answer, or that could not be put to it, and says so.
async fn give_up(
    context: Context,
    id: String,
    node_name: String,
    lines: Sender,
    open: Option<oneshot::Receiver<()>>,
) {
    if let Some(open) = open {
        tokio::select! {
            // The worker has opened its stream.
            _ = open => return,
            () = lines.closed() => {}
            () = tokio::time::sleep(OPEN_TIMEOUT) => {}
        }
    }
    context.dispatch.logs.take(&id);
    let text = format!("worker {node_name} did not answer: its lines are missing");
    // The reader may have gone.
    let _ = lines.send(notice(text)).await;
}
