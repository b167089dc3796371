//! Serving workers: any manager holds sessions, computes what each worker should run from its own
//! applied state, forwards reports, and keeps in memory which nodes are heard.
//!
//! One router compares views and marks what each session has to look at, so that a change costs
//! what it touches and not a look by every session.

pub mod hearing;
pub mod logs;
pub mod publish;
pub mod reports;
pub mod router;
pub mod session;
pub mod table;

use std::sync::Arc;

use cluster_pb::dispatcher::v1 as pb;
use tokio::sync::{broadcast, mpsc, watch};

use hearing::Hearing;
use logs::LogHub;
use reports::Batch;
use table::SessionTable;

/// Endpoint deltas a session may lag behind before it is sent the full set instead.
const ENDPOINTS_BACKLOG: usize = 256;

/// What the sessions of this manager share. In memory only.
pub struct Dispatch {
    pub sessions: SessionTable,
    pub hearing: Hearing,
    pub logs: LogHub,
    /// Endpoint deltas, computed once for all sessions.
    pub endpoints: broadcast::Sender<Arc<pb::Endpoints>>,
    /// Endpoints version that every live worker has acknowledged, as far as this manager knows.
    pub withdrawn: watch::Sender<u64>,
    pub reports: mpsc::Sender<Batch>,
}

impl Dispatch {
    /// The shared part and the receiving end of the report queue, for `reports::run`.
    pub fn new() -> (Arc<Self>, mpsc::Receiver<Batch>) {
        let (reports, receiver) = mpsc::channel(reports::QUEUE);
        let dispatch = Self {
            sessions: SessionTable::default(),
            hearing: Hearing::default(),
            logs: LogHub::default(),
            endpoints: broadcast::Sender::new(ENDPOINTS_BACKLOG),
            withdrawn: watch::Sender::new(0),
            reports,
        };
        (Arc::new(dispatch), receiver)
    }

    /// Raises the acknowledged version; it never goes back.
    pub fn raise_withdrawn(&self, version: u64) {
        self.withdrawn.send_if_modified(|known| {
            let higher = version > *known;
            *known = version.max(*known);
            higher
        });
    }
}
