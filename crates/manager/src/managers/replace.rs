//! The leader replaces voters that were silent for too long by spares, if users want that.
//!
//! The planner decides each time from what is heard now; nothing is remembered, and a new leader
//! counts silence anew.

use std::time::{Duration, Instant};

use cluster_planner::managers::{Replacement, replacement};

use super::survey;
use crate::context::Context;

/// How often the managers are looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// A look that is so late means that this process stood still: what others said meanwhile waits to
/// be read.
const STALL: Duration = Duration::from_secs(4);

pub async fn run(context: Context) -> anyhow::Result<()> {
    let mut looked = Instant::now();
    loop {
        tokio::time::sleep(LOOK_PERIOD).await;
        let stalled = looked.elapsed() > STALL;
        looked = Instant::now();
        if !stalled {
            look(&context).await;
        }
    }
}

async fn look(context: &Context) {
    let state = context.raft.view().state;
    let Some(cluster) = state.cluster() else { return };
    let wellbeing = &context.dispatch.wellbeing;
    let members = context.raft.members();
    wellbeing.retain(|id| members.iter().any(|member| member.id == id));
    let Some(seats) = survey::seats(context) else { return };
    let name = |id| seats.iter().find(|seat| seat.id == id).map_or("", |seat| seat.name.as_str());
    match replacement(&seats, cluster.upkeep.replace_dead_after_ms) {
        Replacement::Nothing { .. } => {
            wellbeing.hold("");
        }
        Replacement::Held(why) => {
            if wellbeing.hold(&why) {
                tracing::warn!(reason = why, "a dead manager is not replaced");
            }
        }
        Replacement::Swap { promote, demote } => {
            wellbeing.hold("");
            match context.raft.swap_here(promote, demote).await {
                Ok(index) => tracing::warn!(
                    promoted = name(promote),
                    demoted = name(demote),
                    index,
                    "a spare votes in place of a dead manager"
                ),
                Err(error) => {
                    tracing::warn!(error = %error, "a dead manager could not be replaced");
                }
            }
        }
    }
}
