//! Declares nodes down when their lease ends. Nothing here goes through Raft but the transition.

use std::time::{Duration, Instant};

use cluster_model::{Change, Command, NodeId};
use cluster_planner::liveness;

use crate::context::Context;

/// Longest sleep between looks: a node that becomes ready starts a lease.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// Nodes cannot have been heard by a leader that was none: each gets one lease from `since` on.
pub async fn run(context: Context, since: Instant) -> anyhow::Result<()> {
    loop {
        let view = context.raft.view();
        let Some(lease_ms) = view.state.cluster().map(|cluster| cluster.lease_ms) else {
            tokio::time::sleep(LOOK_PERIOD).await;
            continue;
        };
        let last_heard = |node: NodeId| {
            let heard = context.dispatch.hearing.last_heard(node).unwrap_or(since);
            Some(context.clock.at_ms(heard.max(since)))
        };
        let plan = liveness::plan(&view.state, &last_heard, lease_ms, context.clock.now_ms());
        if !plan.changes.is_empty() {
            for change in &plan.changes {
                if let Change::NodeDown { node, message, .. } = change {
                    tracing::warn!(node_id = %node, reason = %message, "node down");
                }
            }
            let at_ms = context.clock.now_ms();
            if let Err(failure) = context.propose(Command::Plan { at_ms, changes: plan.changes }).await {
                tracing::warn!(reason = %failure, "could not declare nodes down");
            }
        }
        let until = plan.wake_at_ms.map(|at_ms| context.clock.instant_at(at_ms));
        let pause = until.map_or(LOOK_PERIOD, |until| until.saturating_duration_since(Instant::now()));
        tokio::time::sleep(pause.clamp(Duration::from_millis(10), LOOK_PERIOD)).await;
    }
}
