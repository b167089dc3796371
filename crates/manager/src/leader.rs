//! What only the leader does: planning, judging leases, gathering acknowledgements.
//!
//! One scope per term of leadership: losing it drops one value, and every loop under it stops.
//! A new leader plans only after it has applied all entries of earlier terms. The other managers
//! meanwhile tell the leader which nodes they hear.

mod liveness;
mod planning;
mod tell;
mod withdrawn;

use std::time::{Duration, Instant};

use cluster_daemon::{Backoff, Scope};

use crate::context::Context;
use crate::raft::Leadership;

/// Follows leadership for as long as the manager runs.
pub async fn run(context: Context, scope: Scope) {
    let mut leadership = context.raft.leadership();
    let mut present: Option<(Leadership, Scope)> = None;
    loop {
        let now = leadership.borrow_and_update().clone();
        let same = present.as_ref().is_some_and(|(known, _)| same_role(known, &now));
        if !same {
            // Dropping the scope of the role that ended stops all its loops.
            drop(present.take());
            present = begin(&context, &scope, now.clone()).map(|role| (now, role));
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

fn same_role(known: &Leadership, now: &Leadership) -> bool {
    known.term == now.term && known.leader == now.leader && known.this_node_leads_and_caught_up == now.this_node_leads_and_caught_up
}

fn begin(context: &Context, scope: &Scope, leadership: Leadership) -> Option<Scope> {
    let term = leadership.term;
    if leadership.this_node_leads_and_caught_up {
        tracing::info!(term, "leading");
        let role = scope.child("leader");
        let since = Instant::now();
        role.spawn_restarting("planning", backoff(), {
            let context = context.clone();
            move || planning::run(context.clone())
        });
        role.spawn_restarting("liveness", backoff(), {
            let context = context.clone();
            move || liveness::run(context.clone(), since)
        });
        role.spawn_restarting("withdrawn", backoff(), {
            let context = context.clone();
            move || withdrawn::run(context.clone())
        });
        return Some(role);
    }
    let (leader, address) = leadership.leader?;
    if leader == context.node_id {
        return None;
    }
    tracing::info!(term, leader = %leader, "following");
    let role = scope.child("follower");
    role.spawn_restarting("tell", backoff(), {
        let context = context.clone();
        move || tell::run(context.clone(), address.clone())
    });
    Some(role)
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(2))
}
