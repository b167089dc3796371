//! What only the leader does: planning, judging leases, gathering acknowledgements.
//!
//! One scope per term of leadership: losing it drops one value, and every loop under it stops.
//! A new leader plans only after it has applied all entries of earlier terms. The other managers
//! meanwhile tell the leader which nodes they hear.

mod certificates;
mod liveness;
mod planning;
mod tell;
mod withdrawn;

use std::time::{Duration, Instant};

use cluster_daemon::{Backoff, Scope};

use crate::context::Context;
use crate::dispatch::contact;
use crate::managers::replace;
use crate::raft::Leadership;

/// How long workers may take to find a manager that begins anew: twice their longest back-off and
/// some handshakes, on a busy machine.
const RETURN_GRACE: Duration = Duration::from_secs(20);
/// An election that takes longer finds workers that wait before they dial again.
const QUICK_ELECTION: Duration = Duration::from_secs(1);

/// Follows leadership for as long as the manager runs.
/// After a recovery workers get more time to come back before any is taken for lost.
pub async fn run(context: Context, scope: Scope, mut recovered: bool) {
    scope.spawn_restarting("contact", backoff(), {
        let context = context.clone();
        move || contact::run(context.clone())
    });
    let mut leadership = context.raft.leadership();
    let mut present: Option<(Leadership, Scope)> = None;
    // When the last leader was missed first, until there is one again.
    let mut leaderless: Option<Instant> = None;
    loop {
        let now = leadership.borrow_and_update().clone();
        let same = present.as_ref().is_some_and(|(known, _)| known == &now);
        if !same {
            // Dropping the scope of the role that ended stops all its loops.
            if let Some((_, role)) = present.take() {
                drop(role);
                leaderless = Some(Instant::now());
            }
            let mut since = leases_since(leaderless, Instant::now());
            if recovered && now.this_node_leads_and_caught_up {
                since = Instant::now() + RETURN_GRACE;
                recovered = false;
            }
            let leads = now.this_node_leads_and_caught_up.then(Instant::now);
            context.dispatch.wellbeing.leads(leads);
            if let Some(role) = begin(&context, &scope, &now, since) {
                present = Some((now, role));
                leaderless = None;
            }
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// From when on a new leader counts the silence of nodes it has not heard. The leader before it
/// heard them until it was missed, so a worker that dies with its leader is noticed in time; after
/// a longer gap, workers are given the time to find a manager.
fn leases_since(leaderless: Option<Instant>, now: Instant) -> Instant {
    leaderless
        .filter(|missed| now.saturating_duration_since(*missed) <= QUICK_ELECTION)
        .unwrap_or(now)
}

fn begin(
    context: &Context,
    scope: &Scope,
    leadership: &Leadership,
    since: Instant,
) -> Option<Scope> {
    let term = leadership.term;
    if leadership.this_node_leads_and_caught_up {
        tracing::info!(term, "leading");
        let role = scope.child("leader");
        role.spawn_restarting("planning", backoff(), {
            let context = context.clone();
            move || planning::run(context.clone())
        });
        role.spawn_restarting("certificates", backoff(), {
            let context = context.clone();
            move || certificates::run(context.clone())
        });
        role.spawn_restarting("liveness", backoff(), {
            let context = context.clone();
            move || liveness::run(context.clone(), since)
        });
        role.spawn_restarting("managers", backoff(), {
            let context = context.clone();
            move || replace::run(context.clone())
        });
        role.spawn_restarting("withdrawn", backoff(), {
            let context = context.clone();
            move || withdrawn::run(context.clone())
        });
        return Some(role);
    }
    let (leader, address) = leadership.leader.clone()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_go_on_over_a_quick_change_of_leaders_only() {
        let now = Instant::now();
        let missed = now - QUICK_ELECTION / 2;
        assert_eq!(leases_since(Some(missed), now), missed);
        assert_eq!(leases_since(Some(now - QUICK_ELECTION * 2), now), now);
        assert_eq!(leases_since(None, now), now, "the first leader after a start");
    }
}
