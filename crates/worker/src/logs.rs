//! Output of tasks for whoever asks through a manager: one stream of lines per request, opened by
//! us on the manager that asked.
//!
//! Bounded: requests at once, lines per message, messages on their way; a reader that does not read
//! stops the runtime's reading, nothing piles up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cluster_daemon::{OnError, Scope};
use cluster_model::TaskId;
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::dispatcher::v1::dispatcher_client::DispatcherClient;
use cluster_runtime::{Error as RuntimeError, LogLine, LogQuery, LogStream, OutputStream};
use futures::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::node::Node;
use crate::task::supervisor::container_id;

const REQUESTS_MAX: usize = 64;
/// With the runtime's bound on a line this stays well under gRPC's on a message.
const LINES_MAX: usize = 64;
const MESSAGES_MAX: usize = 8;
/// How often a task that is followed but has no container yet is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// The log requests of one session.
pub struct Requests {
    node: Arc<Node>,
    channel: Channel,
    scope: Scope,
    running: HashMap<String, CancellationToken>,
}

impl Requests {
    pub fn new(node: Arc<Node>, channel: Channel, scope: Scope) -> Self {
        Self { node, channel, scope, running: HashMap::new() }
    }

    pub fn take(&mut self, request: pb::LogRequest) {
        self.running.retain(|_, token| !token.is_cancelled());
        if request.cancel {
            if let Some(token) = self.running.remove(&request.request_id) {
                token.cancel();
            }
            return;
        }
        if self.running.len() >= REQUESTS_MAX {
            tracing::warn!(request_id = request.request_id, "too many log requests; one refused");
            return;
        }
        let token = CancellationToken::new();
        self.running.insert(request.request_id.clone(), token.clone());
        let (node, channel) = (self.node.clone(), self.channel.clone());
        self.scope.spawn("logs", OnError::Log, async move {
            let request_id = request.request_id.clone();
            let published = publish(node, channel, request);
            if let Some(Err(status)) = token.run_until_cancelled(published).await {
                tracing::debug!(request_id, error = %status, "log stream ended");
            }
            token.cancel();
        });
    }
}

async fn publish(
    node: Arc<Node>,
    channel: Channel,
    request: pb::LogRequest,
) -> Result<(), tonic::Status> {
    let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
    let request_id = request.request_id.clone();
    let feed = async move {
        let message = |lines| pb::PublishLogsRequest { request_id: request_id.clone(), lines };
        // Says that we are there, also when there is nothing to say.
        if sender.send(message(Vec::new())).await.is_err() {
            return;
        }
        let tasks = request.task_ids.iter().filter_map(|id| id.parse::<TaskId>().ok());
        let streams: Vec<_> = tasks.map(|task| lines(&node, task, &request)).collect();
        let mut lines = stream::select_all(streams).ready_chunks(LINES_MAX);
        while let Some(batch) = lines.next().await {
            if sender.send(message(batch)).await.is_err() {
                return;
            }
        }
    };
    let mut client = DispatcherClient::new(channel);
    let call = client.publish_logs(ReceiverStream::new(receiver));
    tokio::pin!(feed);
    tokio::pin!(call);
    tokio::select! {
        ended = &mut call => return ended.map(drop),
        () = &mut feed => {}
    }
    // The sender went with the feed; the manager answers when it has read all.
    call.await.map(drop)
}

fn lines(
    node: &Arc<Node>,
    task: TaskId,
    request: &pb::LogRequest,
) -> stream::BoxStream<'static, pb::LogLine> {
    let query = LogQuery {
        tail: request.tail.map(|tail| usize::try_from(tail).unwrap_or(usize::MAX)),
        since_unix_nanos: (request.since_ms > 0)
            .then(|| request.since_ms.saturating_mul(1_000_000)),
        follow: request.follow,
    };
    let node = node.clone();
    let task_id = task.to_string();
    stream::once(open(node, task, query))
        .flatten()
        .filter_map(move |line| {
            let line = match line {
                Ok(line) => Some(wire_line(&task_id, line)),
                Err(RuntimeError::NotFound { .. }) => None,
                Err(error) => {
                    tracing::warn!(
                        task_id,
                        error = &error as &dyn std::error::Error,
                        "reading output failed"
                    );
                    None
                }
            };
            std::future::ready(line)
        })
        .boxed()
}

/// Who follows a task that is being prepared sees its output when it comes.
async fn open(node: Arc<Node>, task: TaskId, query: LogQuery) -> LogStream {
    let id = container_id(task);
    while query.follow && matches!(node.parts.runtime.inspect(&id).await, Ok(None)) {
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    node.parts.runtime.logs(&id, query)
}

fn wire_line(task_id: &str, line: LogLine) -> pb::LogLine {
    pb::LogLine {
        task_id: task_id.to_owned(),
        stream: match line.stream {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        }
        .to_owned(),
        unix_nanos: line.unix_nanos,
        text: line.text,
    }
}
