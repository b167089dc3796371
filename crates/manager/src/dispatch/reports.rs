//! Reports of all sessions, proposed in batches: at once when idle, grouped while a proposal is
//! under way. One batch at a time, so that a task's reports keep their order.
//!
//! Recording twice does no harm (`apply` takes reports only forward), so a batch whose outcome is
//! unknown is simply proposed again: a change of leaders ends no session.

use std::sync::Arc;
use std::time::Duration;

use cluster_model::{Command, NodeId, StatusReport};
use cluster_wire::{Code, Failure};
use tokio::sync::{mpsc, oneshot};

use crate::context::Context;

/// Batches of sessions that may wait.
pub const QUEUE: usize = 1024;
/// Reports in one proposal.
const REPORTS_MAX: usize = 4096;
/// Text in one proposal, give or take one session's batch, which the size of messages bounds; both
/// together stay below the largest command.
const TEXT_MAX: usize = 2 * 1024 * 1024;
/// Attempts at one proposal; each waits for a leader by itself.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// One session's reports; answered when they are committed, dropped when that failed.
pub struct Batch {
    pub node: NodeId,
    pub reports: Vec<StatusReport>,
    pub done: oneshot::Sender<()>,
}

impl Batch {
    fn text(&self) -> usize {
        let length = |text: &Option<Arc<str>>| text.as_deref().map_or(0, str::len);
        self.reports.iter().map(|report| length(&report.message) + length(&report.error)).sum()
    }
}

pub async fn run(context: Context, mut queue: mpsc::Receiver<Batch>) {
    while let Some(first) = queue.recv().await {
        let mut text = first.text();
        let mut waiting = vec![first.done];
        let mut reports: Vec<(NodeId, StatusReport)> =
            first.reports.into_iter().map(|report| (first.node, report)).collect();
        while reports.len() < REPORTS_MAX && text < TEXT_MAX {
            let Ok(batch) = queue.try_recv() else { break };
            text += batch.text();
            reports.extend(batch.reports.into_iter().map(|report| (batch.node, report)));
            waiting.push(batch.done);
        }
        let count = reports.len();
        match record(&context, reports).await {
            Ok(index) => {
                tracing::debug!(count, index, "recorded reports");
                for done in waiting {
                    // A session that ended needs no answer: its worker repeats the report.
                    let _ = done.send(());
                }
            }
            // The sessions see their answers dropped and end; the workers repeat.
            Err(failure) => tracing::warn!(count, reason = %failure, "could not record reports"),
        }
    }
}

async fn record(context: &Context, reports: Vec<(NodeId, StatusReport)>) -> Result<u64, Failure> {
    let command = Command::RecordStatus { reports };
    let mut attempt = 1;
    loop {
        let failure = match context.propose(command.clone()).await {
            Ok((index, _)) => return Ok(index),
            Err(failure) => failure,
        };
        if !matches!(failure.code, Code::NoLeader | Code::UnknownOutcome) || attempt == ATTEMPTS {
            return Err(failure);
        }
        tracing::debug!(attempt, reason = %failure, "reports are proposed again");
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}
