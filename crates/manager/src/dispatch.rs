//! Serving workers: any manager holds sessions, computes what each worker should run from its own
//! applied state, forwards reports, and keeps in memory which nodes are heard.
//!
//! One router compares views and marks what each session has to look at, so that a change costs
//! what it touches and not a look by every session.

pub mod contact;
mod counts;
pub mod hearing;
pub mod logs;
pub mod publish;
pub mod reports;
pub mod router;
pub mod session;
pub mod table;

use std::sync::{Arc, Mutex};

use cluster_daemon::Scope;
use cluster_model::State;
use cluster_pb::dispatcher::v1 as pb;
use tokio::sync::{Semaphore, broadcast, mpsc, watch};

use contact::Contact;
use counts::KeptCounts;
use hearing::Hearing;
use logs::LogHub;
use reports::Batch;
use table::{SessionTable, lock};

use crate::managers::wellbeing::Wellbeing;

/// Endpoint deltas a session may lag behind before it is sent the full set instead.
const ENDPOINTS_BACKLOG: usize = 256;
/// Sessions that send all a worker has to know first at the same time. When thousands of workers come
/// at once, those whose turn it is are served soon; the others are heard meanwhile.
const OPENINGS: usize = 64;

/// What the sessions of this manager share. In memory only.
pub struct Dispatch {
    pub sessions: SessionTable,
    pub hearing: Hearing,
    pub logs: LogHub,
    pub contact: Contact,
    /// How the managers are doing.
    pub wellbeing: Wellbeing,
    /// Endpoint deltas, computed once for all sessions. The messages of one delta travel together,
    /// so that a session that lags misses all of them or none.
    pub endpoints: broadcast::Sender<Arc<Vec<pb::Endpoints>>>,
    /// The state that the last delta led to, written before the delta is sent: a session that begins
    /// with another could miss what came and went between two deltas.
    pub told: Mutex<State>,
    pub counts: KeptCounts,
    /// Endpoints version that every live worker has acknowledged, as far as this manager knows.
    pub withdrawn: watch::Sender<u64>,
    pub reports: mpsc::Sender<Batch>,
    /// Turns for the first messages of sessions.
    pub openings: Semaphore,
    /// Owns the tasks that outlast a handler: sessions, watches, streams of lines. They end with
    /// the router, without which none of them would hear anything.
    pub calls: Scope,
}

impl Dispatch {
    /// The shared part and the receiving end of the report queue, for `reports::run`.
    pub fn new() -> (Arc<Self>, mpsc::Receiver<Batch>) {
        let (reports, receiver) = mpsc::channel(reports::QUEUE);
        let dispatch = Self {
            sessions: SessionTable::default(),
            hearing: Hearing::default(),
            contact: Contact::default(),
            wellbeing: Wellbeing::default(),
            logs: LogHub::default(),
            endpoints: broadcast::Sender::new(ENDPOINTS_BACKLOG),
            told: Mutex::default(),
            counts: KeptCounts::default(),
            withdrawn: watch::Sender::new(0),
            reports,
            openings: Semaphore::new(OPENINGS),
            calls: Scope::root("calls"),
        };
        (Arc::new(dispatch), receiver)
    }

    /// All endpoints as the deltas so far make them; the deltas that follow begin there. Subscribe to
    /// those first.
    pub fn full_endpoints(&self) -> Vec<pb::Endpoints> {
        let told = lock(&self.told).clone();
        router::full_endpoints(&told)
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
