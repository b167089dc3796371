//! Following one service: its tasks now, and again whenever it or they change.

use cluster_daemon::OnError;
use cluster_model::{ServiceId, Task};
use cluster_pb::control::v1::WatchServiceResponse;
use cluster_wire::{Failure, object};
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::task::Shown;
use crate::api::lookup;
use crate::context::Context;
use crate::raft::View;

/// Views a slow reader may lag behind; each supersedes the one before, so few are enough.
const QUEUE: usize = 4;
/// Tasks sent of one service; the counts on the service object are always of all of them.
const TASKS_MAX: usize = 2000;

pub async fn service(
    context: &Context,
    text: &str,
) -> Result<impl Stream<Item = Result<WatchServiceResponse, Status>> + use<>, Failure> {
    // Subscribed first, read second: a change in between wakes the first wait.
    let mut feed = context.raft.feed();
    let view = context.read(false).await?;
    let id = lookup::service(&view.state, text)?.id;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (raft, clock) = (context.raft.clone(), context.clock);
    let following = async move {
        let mut last = view;
        if sender.send(Ok(response(&last, id, clock.now_ms()))).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                changed = feed.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
            let view = raft.view();
            let changes = view.state.changes(&last.state);
            let own = changes.services.contains(&id)
                || changes.tasks.iter().any(|task| task.service == id);
            let has_tasks_on = |node| view.state.services_of_node(node).contains(&id);
            let nodes = !own && changes.nodes.iter().any(|node| has_tasks_on(*node));
            let before = std::mem::replace(&mut last, view);
            if last.state.service(id).is_none_or(|service| service.removed) {
                return;
            }
            if !own && !nodes {
                continue;
            }
            let now_ms = clock.now_ms();
            let shown = response(&last, id, now_ms);
            // Whether a node is heard decides what its tasks count for and why they wait; most else
            // that changes of it is not seen here.
            if nodes && is_same(&response(&before, id, now_ms), &shown) {
                continue;
            }
            if sender.send(Ok(shown)).await.is_err() {
                return;
            }
        }
    };
    context.dispatch.calls.spawn("watch", OnError::Log, following);
    Ok(ReceiverStream::new(receiver))
}

fn is_same(one: &WatchServiceResponse, two: &WatchServiceResponse) -> bool {
    (&one.service, &one.tasks) == (&two.service, &two.tasks)
}

fn response(view: &View, id: ServiceId, now_ms: u64) -> WatchServiceResponse {
    let state = &view.state;
    let shown = Shown::of(state, now_ms);
    let mut tasks: Vec<&Task> = state.tasks_of_service(id).collect();
    tasks.sort_by_key(|task| (!task.fills_slot(), task.slot, task.id));
    WatchServiceResponse {
        service: state.service(id).map(|service| object::service(state, service)),
        tasks: tasks.iter().take(TASKS_MAX).map(|task| shown.task(task)).collect(),
        index: view.applied_index,
    }
}
