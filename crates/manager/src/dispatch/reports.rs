//! Reports of all sessions, proposed in batches: at once when idle, grouped while a proposal is
//! under way. One batch at a time, so that a task's reports keep their order.

use cluster_model::{Command, NodeId, StatusReport};
use tokio::sync::{mpsc, oneshot};

use crate::context::Context;

/// Batches of sessions that may wait.
pub const QUEUE: usize = 1024;
/// Reports in one proposal.
const REPORTS_MAX: usize = 4096;

/// One session's reports; answered when they are committed, dropped when that failed.
pub struct Batch {
    pub node: NodeId,
    pub reports: Vec<StatusReport>,
    pub done: oneshot::Sender<()>,
}

pub async fn run(context: Context, mut queue: mpsc::Receiver<Batch>) {
    while let Some(first) = queue.recv().await {
        let mut waiting = vec![first.done];
        let mut reports: Vec<(NodeId, StatusReport)> =
            first.reports.into_iter().map(|report| (first.node, report)).collect();
        while reports.len() < REPORTS_MAX {
            let Ok(batch) = queue.try_recv() else { break };
            reports.extend(batch.reports.into_iter().map(|report| (batch.node, report)));
            waiting.push(batch.done);
        }
        let count = reports.len();
        match context.propose(Command::RecordStatus { reports }).await {
            Ok((index, _)) => {
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
