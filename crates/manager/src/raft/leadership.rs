//! Who leads, as this manager knows it, and the watcher that keeps it and fatal errors current.

use std::time::Duration;

use cluster_model::NodeId;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;

use super::config::Timing;
use super::types::{Metrics, Raft};

/// How often a leader looks whether it still has its majority.
const LOOK: Duration = Duration::from_millis(500);

/// Who leads the group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The current term.
    pub term: u64,
    /// The leader and its address, if one is known.
    pub leader: Option<(NodeId, String)>,
    /// This manager leads, a majority follows it, and it has applied every entry of earlier
    /// terms: it may plan.
    pub this_node_leads_and_caught_up: bool,
}

/// The leader as openraft's metrics tell it.
pub(crate) fn leader_of(metrics: &Metrics) -> Option<(NodeId, String)> {
    let id = metrics.current_leader?;
    let node = metrics.membership_config.membership().get_node(&id)?;
    Some((NodeId(id), node.addr.clone()))
}

fn leadership_of(metrics: &Metrics, patience: Duration) -> Leadership {
    // The first entry of a term follows all entries of earlier terms.
    let caught_up =
        metrics.last_applied.is_some_and(|id| id.leader_id.term == metrics.current_term);
    let alone = metrics.membership_config.voter_ids().count() == 1;
    let followed = alone || metrics.last_quorum_acked.is_none_or(|at| at.elapsed() < patience);
    let leads = metrics.current_leader == Some(metrics.id) && metrics.running_state.is_ok();
    Leadership {
        term: metrics.current_term,
        leader: leader_of(metrics),
        this_node_leads_and_caught_up: leads && caught_up && followed,
    }
}

/// Keeps `leadership` and `fatal` current until consensus has stopped.
pub(crate) async fn watch_over(
    raft: Raft,
    timing: Timing,
    leadership: watch::Sender<Leadership>,
    fatal: watch::Sender<Option<String>>,
    mut failures: [watch::Receiver<Option<String>>; 2],
) {
    let mut metrics = raft.metrics();
    let patience = timing.election_max * 4;
    loop {
        let (now, stopped) = {
            let metrics = metrics.borrow_watched();
            (leadership_of(&metrics, patience), metrics.running_state.clone().err())
        };
        let first = failures.iter_mut().find_map(|failure| failure.borrow_and_update().clone());
        if let Some(reason) = first.or_else(|| stopped.map(|error| error.to_string())) {
            leadership.send_modify(|last| last.this_node_leads_and_caught_up = false);
            fatal.send_replace(Some(reason));
            return;
        }
        let leads = now.this_node_leads_and_caught_up;
        leadership.send_if_modified(|last| {
            let changed = *last != now;
            if changed {
                tracing::info!(term = now.term, leader = ?now.leader, leads, "leadership changed");
                *last = now;
            }
            changed
        });
        let [log, machine] = &mut failures;
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() {
                leadership.send_modify(|last| last.this_node_leads_and_caught_up = false);
                return;
            },
            Ok(()) = log.changed() => {},
            Ok(()) = machine.changed() => {},
            () = tokio::time::sleep(LOOK), if leads => {},
        }
    }
}
