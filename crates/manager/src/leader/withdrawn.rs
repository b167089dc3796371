//! Gathers what endpoints all live workers follow, so that a task that left the balancers gets its
//! stop signal only when nobody sends to it any more.

use std::time::{Duration, Instant};

use cluster_model::{NodeState, State};

use crate::context::Context;

/// Acknowledgements of one change come from all workers at once: they are looked at together, the
/// less often the longer a look at all of them takes.
const DEBOUNCE: Duration = Duration::from_millis(2);

pub async fn run(context: Context) -> anyhow::Result<()> {
    let mut acknowledged = context.dispatch.hearing.watch_acknowledged();
    let mut feed = context.raft.feed();
    loop {
        let state = context.raft.view().state;
        let begun = Instant::now();
        // Mostly nothing is waited for, and nobody needs to be asked.
        if *context.dispatch.withdrawn.borrow() < state.endpoints_version() {
            gather(&context, &state);
        }
        let pause = DEBOUNCE.max(begun.elapsed() * 4);
        tokio::select! {
            changed = acknowledged.changed() => changed?,
            // A node that went down no longer holds the others up.
            changed = feed.changed() => changed?,
        }
        tokio::time::sleep(pause).await;
    }
}

/// Looks at every node: the version that all of them follow.
fn gather(context: &Context, state: &State) {
    let ready = state.nodes().filter(|node| node.state == NodeState::Ready).map(|node| node.id);
    let version = context.dispatch.hearing.acknowledged_by_all(ready);
    // No live worker at all: whatever version is present is followed by all of them.
    context.dispatch.raise_withdrawn(version.min(state.endpoints_version()));
}
