//! Moves a change of the CA on, one phase after the other.

use std::time::Duration;

use cluster_model::Command;

use crate::context::Context;

/// Without any change of the state, a phase that could not be ended is tried again so often.
const RETRY: Duration = Duration::from_secs(5);

pub async fn run(context: Context) -> anyhow::Result<()> {
    let mut feed = context.raft.feed();
    feed.mark_changed();
    loop {
        tokio::select! {
            changed = feed.changed() => changed?,
            () = tokio::time::sleep(RETRY) => {}
        }
        let state = context.raft.view().state;
        let now_ms = context.clock.now_ms();
        let Some(step) = cluster_planner::certs::plan(&state, now_ms) else { continue };
        match context.propose(Command::Secure(step)).await {
            Ok(_) => {
                let phase = context.raft.view().state.rotation().map(|known| known.phase.as_str());
                tracing::info!(phase = phase.unwrap_or("done"), "the change of the CA goes on");
            }
            Err(failure) => {
                tracing::warn!(reason = %failure, "the change of the CA waits");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
