//! All simulated workers of a run.

use std::any::Any;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use cluster_identity::{
    ChannelOptions, Identity, JoinToken, KeyAndCsr, Role, TlsClient, TlsIdentity, connect_lazy,
    now_unix,
};
use cluster_pb::ca::v1::JoinRequest;
use cluster_pb::ca::v1::ca_client::CaClient;
use cluster_pb::types::v1::{NodeDescription, Resources};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::TrySendError};
use tonic::transport::Channel;

use crate::ledger::Ledger;
use crate::managers::Managers;
use crate::worker::{Behaviour, Order, Worker};

/// What shapes may tell one worker before it has looked.
const ORDERS_MAX: usize = 1024;
/// Joins under way at a time.
const JOINS: usize = 64;
/// Classes of nodes: label `class` of the engine, from `c0`.
pub const CLASSES: u32 = 10;
/// Zones and racks: labels `zone` and `rack` of the engine. A rack lies in one zone.
pub const ZONES: u32 = 4;
pub const RACKS: u32 = 40;
const CPU_NANOS: u64 = 16_000_000_000;
const MEMORY_BYTES: u64 = 64 << 30;
const POLL: Duration = Duration::from_millis(10);

/// What workers share.
pub struct Shared {
    pub managers: Vec<String>,
    pub ledger: Ledger,
    pub behaviour: Behaviour,
    sessions: AtomicUsize,
    /// How late the workers' process got its turn at worst, in microseconds.
    lag_us: AtomicU64,
    /// Connections of frozen workers, kept so that nobody hears them close.
    frozen: Mutex<Vec<Box<dyn Any + Send>>>,
}

impl Shared {
    pub fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Counts a session until the answer is dropped.
    pub fn open_session(self: &Arc<Self>) -> impl Drop + use<> {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        OpenSession(self.clone())
    }

    pub fn keep(&self, connection: impl Any + Send) {
        let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        frozen.push(Box::new(connection));
    }
}

struct OpenSession(Arc<Shared>);

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

pub struct Member {
    pub name: String,
    pub orders: mpsc::Sender<Order>,
}

pub struct Fleet {
    pub shared: Arc<Shared>,
    pub members: Vec<Member>,
    /// From the first join to the last ready node.
    pub joined_in: Duration,
}

impl Fleet {
    /// Joins workers, which then run on the given threads, and waits until the managers take all of
    /// them for ready.
    pub async fn join(
        managers: &Managers,
        count: u32,
        behaviour: Behaviour,
        patience: Duration,
        workers: &Handle,
    ) -> Result<Self> {
        let token = managers.api.token("worker").await?;
        let addresses = managers.addresses();
        let shared = Arc::new(Shared {
            managers: addresses.clone(),
            ledger: Ledger::open(),
            behaviour,
            sessions: AtomicUsize::new(0),
            lag_us: AtomicU64::new(0),
            frozen: Mutex::default(),
        });
        workers.spawn(watch_lag(shared.clone()));
        eprintln!("scale: {count} workers join");
        let begun = Instant::now();
        let digest = token.parse::<JoinToken>().context("reading the join token")?.ca_digest;
        let tls = TlsClient::pinned(digest)?;
        let options = ChannelOptions::default();
        let doors: Vec<CaClient<Channel>> = addresses
            .iter()
            .map(|address| Ok(CaClient::new(connect_lazy(address, &tls, &options)?)))
            .collect::<Result<_>>()?;
        let joins = (0..count).map(|number| {
            let door = doors[number as usize % doors.len()].clone();
            let (token, shared) = (token.clone(), shared.clone());
            workers.spawn(async move {
                let identity = join(door, token, number).await?;
                let (orders, receiver) = mpsc::channel(ORDERS_MAX);
                let tls = TlsIdentity::new(identity)?;
                let worker =
                    Worker::new(number, tls, describe(number, behaviour), shared, receiver);
                tokio::spawn(worker.run());
                Ok(Member { name: name_of(number), orders })
            })
        });
        let members: Vec<Member> = stream::iter(joins)
            .buffered(JOINS)
            .map(|joined| joined.context("a join was interrupted").and_then(std::convert::identity))
            .try_collect()
            .await?;
        let mut fleet = Self { shared, members, joined_in: Duration::ZERO };
        fleet.wait_until_ready(managers, patience).await?;
        fleet.joined_in = begun.elapsed();
        eprintln!("scale: all ready after {:.1} s", fleet.joined_in.as_secs_f64());
        Ok(fleet)
    }

    async fn wait_until_ready(&self, managers: &Managers, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let ready = managers.api.cluster().await?.workers_ready;
            if ready as usize >= self.members.len() {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < patience,
                "{ready} of {} workers are ready after {patience:?}; allow more with --patience",
                self.members.len()
            );
            tokio::time::sleep(POLL * 10).await;
        }
    }

    /// Sessions that are open now.
    pub fn sessions(&self) -> usize {
        self.shared.sessions.load(Ordering::Relaxed)
    }

    /// How late the workers' process got its turn at worst since the last call. Workers on machines
    /// of their own would not have waited: what is longer than their patience is the bench's doing.
    pub fn lag(&self) -> Duration {
        Duration::from_micros(self.shared.lag_us.swap(0, Ordering::Relaxed))
    }

    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// Tells a worker what becomes of it. A frozen one hears nothing, as it should.
    pub fn order(&self, place: usize, order: Order) -> Result<()> {
        match self.members[place].orders.try_send(order) {
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
            Err(TrySendError::Full(_)) => {
                bail!("{} has not read its last {ORDERS_MAX} orders", self.members[place].name)
            }
        }
    }
}

async fn watch_lag(shared: Arc<Shared>) {
    loop {
        let begun = Instant::now();
        tokio::time::sleep(POLL).await;
        let late = begun.elapsed().saturating_sub(POLL).as_micros();
        shared.lag_us.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn name_of(number: u32) -> String {
    format!("worker-{number}")
}

async fn join(mut door: CaClient<Channel>, token: String, number: u32) -> Result<Identity> {
    let key = KeyAndCsr::generate()?;
    let csr_der = pem::parse(&key.csr_pem).context("reading a request of our own")?.into_contents();
    let request = JoinRequest {
        token,
        csr_der,
        name: name_of(number),
        role: Role::Worker.to_string(),
        now_ms: now_unix() * 1000,
    };
    let answer = door.join(request).await.context("joining")?.into_inner();
    Ok(Identity::new(answer.chain, key.key_pem, answer.ca)?)
}

fn describe(number: u32, behaviour: Behaviour) -> NodeDescription {
    let labels = [
        ("class", format!("c{}", number % CLASSES)),
        ("zone", format!("z{}", number % RACKS % ZONES)),
        ("rack", format!("r{}", number % RACKS)),
    ];
    let cpu_nanos = if behaviour.cpu_nanos > 0 { behaviour.cpu_nanos } else { CPU_NANOS };
    NodeDescription {
        address: format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255),
        mesh_port: 7200,
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        boot: 1,
        capacity: Some(Resources { cpu_nanos, memory_bytes: MEMORY_BYTES }),
        labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime: "simulated".to_owned(),
        healthy: true,
        ..Default::default()
    }
}
