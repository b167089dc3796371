//! Whether this manager is in touch with the group. One that is cut off from the leader hears its
//! workers in vain: they would be taken for dead. So it lets their sessions go early enough for
//! them to be heard through another manager before their lease ends.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::table::lock;
use crate::context::Context;

const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// Sessions that are ended in one look, or an eighth of all where that is more. All managers may have lost
/// the leader because they are busy, and workers that all come back at once keep them so. The leader
/// excuses them for longer than that takes (`hearing`).
const SENT_AWAY: usize = 250;
const SENT_AWAY_PART: usize = 8;
/// A look that is so late means that this process stood still: answers of the leader may wait to be
/// read.
const STALL: Duration = Duration::from_secs(1);

pub struct Contact {
    /// When this manager last led with a majority, or had an answer of the leader.
    last: watch::Sender<Instant>,
    /// When this process last went on after it had stood still: paused, or without its turn.
    resumed: Mutex<Option<Instant>>,
}

impl Default for Contact {
    fn default() -> Self {
        Self { last: watch::Sender::new(Instant::now()), resumed: Mutex::default() }
    }
}

impl Contact {
    pub fn confirm(&self) {
        self.last.send_replace(Instant::now());
    }

    pub fn watch(&self) -> watch::Receiver<Instant> {
        self.last.subscribe()
    }

    pub fn resumed(&self) -> Option<Instant> {
        *lock(&self.resumed)
    }
}

/// Ends sessions that were of no use for two thirds of a lease. A worker that finds no better
/// manager may come back, and is then kept as long again: without any leader the workers go round
/// slowly, and are where they can be heard when there is one.
pub async fn run(context: Context) -> anyhow::Result<()> {
    let contact = &context.dispatch.contact;
    let mut looked = Instant::now();
    loop {
        tokio::time::sleep(LOOK_PERIOD).await;
        let now = Instant::now();
        if now.saturating_duration_since(looked) > STALL {
            tracing::warn!(
                "this manager stood still; nobody is blamed for what was not heard meanwhile"
            );
            *lock(&contact.resumed) = Some(now);
        }
        looked = now;
        let state = context.raft.view().state;
        let Some(cluster) = state.cluster().filter(|cluster| cluster.managers.len() > 1) else {
            continue;
        };
        let patience = Duration::from_millis(cluster.lease_ms / 3 * 2);
        let Some(before) = Instant::now().checked_sub(patience) else { continue };
        let last = Some(*contact.last.borrow());
        if last.max(contact.resumed()) < Some(before) {
            let sessions = &context.dispatch.sessions;
            let max = SENT_AWAY.max(sessions.count().div_ceil(SENT_AWAY_PART));
            let ended = sessions.close_opened_before(before, CUT_OFF, max);
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
