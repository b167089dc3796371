//! Whether this manager is in touch with the group. One that is cut off from the leader hears its
//! workers in vain: they would be taken for dead. So it lets their sessions go early enough for
//! them to be heard through another manager before their lease ends.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::context::Context;

const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// When this manager last led with a majority, or had an answer of the leader.
pub struct Contact(watch::Sender<Instant>);

impl Default for Contact {
    fn default() -> Self {
        Self(watch::Sender::new(Instant::now()))
    }
}

impl Contact {
    pub fn confirm(&self) {
        self.0.send_replace(Instant::now());
    }

    fn last(&self) -> Instant {
        *self.0.borrow()
    }

    pub fn watch(&self) -> watch::Receiver<Instant> {
        self.0.subscribe()
    }
}

/// Ends sessions that were of no use for two thirds of a lease. A worker that finds no better
/// manager may come back, and is then kept as long again: without any leader the workers go round
/// slowly, and are where they can be heard when there is one.
pub async fn run(context: Context) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(LOOK_PERIOD).await;
        let state = context.raft.view().state;
        let Some(cluster) = state.cluster().filter(|cluster| cluster.managers.len() > 1) else {
            continue;
        };
        let patience = Duration::from_millis(cluster.lease_ms / 3 * 2);
        let Some(before) = Instant::now().checked_sub(patience) else { continue };
        if context.dispatch.contact.last() < before {
            let ended = context.dispatch.sessions.close_opened_before(before, CUT_OFF);
            if ended > 0 {
                tracing::warn!(
                    sessions = ended,
                    "no contact with a leader: workers are sent to other managers"
                );
            }
        }
    }
}

const CUT_OFF: &str = "this manager has lost contact with the leader";
