//! What every part of a running worker shares, and the seams to the machine: images, network and
//! balancers, each behind a trait so that scale tests run the same worker on simulated ones.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use cluster_image::{Image, Progress, Reference};
use cluster_model::StatusReport;
use cluster_network::Endpoints;
use cluster_network::mesh::{HostPort, HostPortError};
use cluster_runtime::Runtime;
use tokio::sync::{Semaphore, watch};

use crate::contact::Contact;
use crate::data_dir::DataDir;
use crate::health::Health;
use crate::pulse::Pulse;
use crate::report::{Outbox, Urgency};

/// Tasks that are being set up or started at once: enough to keep the cores busy.
const STARTING_MAX: usize = 6;
/// Images that are being fetched at once.
const FETCHING_MAX: usize = 32;
/// Probes' commands that are being started at once; how many run is bounded by the tasks.
const PROBING_MAX: usize = 8;

/// Images of this node.
#[async_trait]
pub trait Images: Send + Sync {
    /// The image, fetched first where it is missing. Safe to stop waiting for.
    async fn ensure(
        &self,
        reference: &Reference,
        progress: watch::Sender<Progress>,
    ) -> Result<Image, cluster_image::Error>;
}

/// A container's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// File that pins its network namespace; the runtime makes one of its own when there is none.
    pub netns: Option<PathBuf>,
    pub ip: Ipv4Addr,
}

/// Why a container got no network; the text is the whole chain of causes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NetworkError(pub String);

/// The network that containers of this node live on.
#[async_trait]
pub trait Network: Send + Sync {
    /// Gives a container its place; the same answer again for one that has it.
    async fn attach(&self, id: &str) -> Result<Attached, NetworkError>;
    /// Takes it away; none is fine.
    async fn detach(&self, id: &str) -> Result<(), NetworkError>;
    /// Keeps what `live` has, removes the rest. Once, before any `attach`.
    async fn recover(
        &self,
        live: &HashSet<String>,
    ) -> Result<HashMap<String, Attached>, NetworkError>;
}

/// Whatever listens on published ports.
#[async_trait]
pub trait Balancers: Send + Sync {
    /// Follows a picture and says which version is followed then.
    async fn apply(&self, endpoints: Arc<Endpoints>) -> u64;
    /// The container of `task` runs here at this address.
    fn set_local(&self, task: &str, ip: Ipv4Addr);
    fn remove_local(&self, task: &str);
    /// Opens ports of this machine that lead to the task while its container runs. All or none,
    /// unless `insist`: then one that cannot be opened is tried again until it can.
    async fn open_host(
        &self,
        task: &str,
        ports: &[HostPort],
        insist: bool,
    ) -> Result<(), HostPortError>;
    /// Closes them: nothing new comes when this returns. Open connections go on.
    async fn close_host(&self, task: &str);
    /// Resolves when no connection to the task is open here; may be never.
    async fn drained(&self, task: &str);
    /// Takes in nothing new any more, and resolves when nothing is open here; may be never.
    async fn leave(&self) {}
    /// Cuts what is open to a node that was removed.
    fn node_gone(&self, _node: &str) {}
}

/// The machine as the worker uses it.
#[derive(Clone)]
pub struct Parts {
    pub runtime: Arc<dyn Runtime>,
    pub images: Arc<dyn Images>,
    pub network: Arc<dyn Network>,
    pub balancers: Arc<dyn Balancers>,
}

/// What is known of the managers' side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hearing {
    /// A session is open and has its full set.
    pub connected: bool,
    /// A session of this process has had its full set, so what was written down before is not old
    /// news: new containers may be made.
    pub synced: bool,
    /// Every live worker follows endpoints of this version.
    pub withdrawn: u64,
    /// The supervisors have been told what the open session's full set says.
    pub present: bool,
}

/// Shared by sessions and supervisors.
pub struct Node {
    pub id: String,
    pub name: String,
    /// Counts starts of the worker on its data folder.
    pub boot: u64,
    pub data: DataDir,
    /// Folders of the machine that binds may come from; anything when empty.
    pub allowed_binds: Vec<PathBuf>,
    pub parts: Parts,
    pub outbox: Outbox,
    pub health: Health,
    pub contact: Contact,
    pub hearing: watch::Sender<Hearing>,
    /// Of the loop that keeps the session.
    pub pulse: Pulse,
    pub(crate) starting: Semaphore,
    pub(crate) fetching: Semaphore,
    pub(crate) probing: Semaphore,
}

impl Node {
    pub fn new(
        id: String,
        name: String,
        boot: u64,
        data: DataDir,
        allowed_binds: Vec<PathBuf>,
        parts: Parts,
    ) -> Self {
        Self {
            id,
            name,
            boot,
            contact: Contact::load(data.contact()),
            data,
            allowed_binds,
            parts,
            outbox: Outbox::default(),
            health: Health::default(),
            hearing: watch::Sender::new(Hearing::default()),
            pulse: Pulse::default(),
            starting: Semaphore::new(STARTING_MAX),
            fetching: Semaphore::new(FETCHING_MAX),
            probing: Semaphore::new(PROBING_MAX),
        }
    }

    pub(crate) fn report(&self, report: StatusReport, urgency: Urgency) {
        self.outbox.put(report, urgency);
    }
}
