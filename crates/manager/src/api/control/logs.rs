//! `Logs`: lines of all replicas, wherever they run and whichever manager their workers talk to.

use std::time::Duration;

use cluster_daemon::OnError;
use cluster_model::{NodeState, State};
use cluster_pb::control::v1 as pb;
use cluster_pb::control::v1::logs_response::Item;
use cluster_pb::peer::v1::CollectLogsRequest;
use cluster_pb::peer::v1::peer_client::PeerClient;
use cluster_wire::Failure;
use futures::Stream;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::api::lookup;
use crate::context::Context;
use crate::dispatch::logs::{QUEUE, Sender, Wanted, collect, notice};

/// Lines held back to be put in order; past that they go out as they are.
const SORTED_MAX: usize = 100_000;
/// Bytes of such lines.
const SORTED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// When following: how long the first lines are gathered and put in order.
const FIRST_LINES: Duration = Duration::from_millis(300);
/// How long another manager may take to take the request.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);

pub async fn open(
    context: &Context,
    mut request: pb::LogsRequest,
) -> Result<impl Stream<Item = Result<pb::LogsResponse, Status>> + use<>, Failure> {
    let view = context.read(false).await?;
    let state = &view.state;
    let wanted = match request.task.as_str() {
        "" => Wanted::Service(lookup::service(state, &request.service)?.id),
        text => Wanted::Task(lookup::task(state, text)?.id),
    };
    // The other managers look up by id.
    match wanted {
        Wanted::Service(id) => request.service = id.to_string(),
        Wanted::Task(id) => request.task = id.to_string(),
    }
    let (lines, gathered) = mpsc::channel(QUEUE);
    for text in silent_nodes(state, wanted) {
        // The queue is empty and longer than the list of notices.
        let _ = lines.try_send(notice(text));
    }
    let others: Vec<(String, String)> = state
        .cluster()
        .iter()
        .flat_map(|cluster| cluster.managers.iter())
        .filter(|(id, _)| **id != context.node_id)
        .map(|(_, manager)| (manager.name.clone(), manager.address.clone()))
        .collect();
    let calls = &context.dispatch.calls;
    for (name, address) in others {
        let asking = ask_manager(context.clone(), name, address, request.clone(), lines.clone());
        calls.spawn("ask a manager for lines", OnError::Log, asking);
    }
    let (out, receiver) = mpsc::channel(QUEUE);
    calls.spawn("merge lines", OnError::Log, merge(gathered, out, request.follow));
    calls.spawn("collect lines", OnError::Log, collect(context.clone(), wanted, request, lines));
    Ok(ReceiverStream::new(receiver))
}

/// Nodes with wanted tasks that cannot answer.
fn silent_nodes(state: &State, wanted: Wanted) -> Vec<String> {
    let mut names: Vec<String> = wanted
        .tasks(state)
        .iter()
        .filter_map(|task| state.node(task.node?))
        .filter(|node| node.state != NodeState::Ready)
        .map(|node| format!("worker {} is down: its lines are missing", node.name))
        .collect();
    names.sort();
    names.dedup();
    names.truncate(QUEUE / 2);
    names
}

async fn ask_manager(
    context: Context,
    name: String,
    address: String,
    request: pb::LogsRequest,
    lines: Sender,
) {
    let missing =
        format!("manager {name} did not answer: lines of workers that talk to it are missing");
    let opened = async {
        let channel = context.manager_channel(&address).ok()?;
        let request = CollectLogsRequest { request: Some(request), task_ids: Vec::new() };
        let call = PeerClient::new(channel).collect_logs(request).await;
        call.ok().map(tonic::Response::into_inner)
    };
    let Ok(Some(mut stream)) = timeout(PEER_TIMEOUT, opened).await else {
        // The reader may have gone.
        let _ = lines.send(notice(missing)).await;
        return;
    };
    loop {
        let message = tokio::select! {
            () = lines.closed() => return,
            message = stream.message() => message,
        };
        match message {
            Ok(Some(response)) => {
                if lines.send(response).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(_) => {
                let _ = lines.send(notice(missing)).await;
                return;
            }
        }
    }
}

/// Puts lines in the order of their times: all of them when not following, else those that are
/// there at the start; later ones go out as they come.
async fn merge(
    mut gathered: mpsc::Receiver<pb::LogsResponse>,
    out: mpsc::Sender<Result<pb::LogsResponse, Status>>,
    follow: bool,
) {
    let (mut held, mut bytes) = (Vec::<pb::LogsResponse>::new(), 0);
    let deadline = Instant::now() + FIRST_LINES;
    loop {
        let next = tokio::select! {
            next = gathered.recv() => next,
            () = sleep_until(deadline), if follow => break,
            () = out.closed() => return,
        };
        let Some(response) = next else { break };
        bytes += response.encoded_len();
        held.push(response);
        if held.len() >= SORTED_MAX || bytes >= SORTED_BYTES_MAX {
            break;
        }
    }
    held.sort_by_key(|response| match &response.item {
        Some(Item::Line(line)) => line.unix_nanos,
        _ => 0,
    });
    for response in held {
        if out.send(Ok(response)).await.is_err() {
            return;
        }
    }
    loop {
        let next = tokio::select! {
            next = gathered.recv() => next,
            () = out.closed() => return,
        };
        let Some(response) = next else { return };
        if out.send(Ok(response)).await.is_err() {
            return;
        }
    }
}
