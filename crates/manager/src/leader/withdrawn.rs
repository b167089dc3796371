//! Gathers what endpoints all live workers follow, so that a task that left the balancers gets its
//! stop signal only when nobody sends to it any more.

use std::time::Duration;

use cluster_model::NodeState;

use crate::context::Context;

/// Acknowledgements of one change come from all workers at once: they are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(2);

pub async fn run(context: Context) -> anyhow::Result<()> {
    let mut acknowledged = context.dispatch.hearing.watch_acknowledged();
    let mut feed = context.raft.feed();
    loop {
        let state = context.raft.view().state;
        let ready = state.nodes().filter(|node| node.state == NodeState::Ready).map(|node| node.id);
        let version = context.dispatch.hearing.acknowledged_by_all(ready);
        // No live worker at all: whatever version is present is followed by all of them.
        context.dispatch.raise_withdrawn(version.min(state.endpoints_version()));
        tokio::select! {
            changed = acknowledged.changed() => changed?,
            // A node that went down no longer holds the others up.
            changed = feed.changed() => changed?,
        }
        tokio::time::sleep(DEBOUNCE).await;
    }
}
