//! Clients that never rest: writers, a drainer, watchers and visitors, all inside the lab as its
//! client, all with real connections.
//!
//! *Flow.* [`Load::start`] creates the standing services, then lets everybody run;
//! [`Load::quiesce`] ends the writers and makes every node usable again; [`Load::finals`] reads
//! what there should be; [`Load::finish`] ends the rest. *Guarantees.* Every write is in the
//! history before it is sent anywhere, with its outcome when known; what is never answered ends
//! as unknown.

mod client;
mod drainer;
mod spec;
mod visitor;
mod watcher;
mod writer;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster_identity::{Context, TlsClient, TlsIdentity};
use cluster_lab::Lab;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;

use crate::check::Objection;
use crate::check::slots::Wanted;
use crate::condition::Conditions;
use crate::error::{Error, Result};
use crate::history::{History, Mark, Micros};

use client::Client;
pub use visitor::Visits;

/// Names that belong to us in any lab.
pub const PREFIX: &str = "chaos-";
pub const WEB: &str = "chaos-web";
pub const EVERYWHERE: &str = "chaos-everywhere";
const OBJECTS: usize = 6;
const WRITERS: u32 = 4;
const WATCHED: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// What all clients share.
pub(crate) struct Shared {
    pub tls: TlsClient,
    pub managers: Vec<String>,
    pub image: String,
    pub began: Instant,
    pub conditions: Arc<Conditions>,
    /// Set when writers shall end, and when everybody shall.
    pub calm: AtomicBool,
    /// Set before the web service is removed: visitors would be turned away.
    pub closed: AtomicBool,
    pub over: AtomicBool,
    run: u32,
    next_mark: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub history: History,
    pub objections: Vec<Objection>,
    /// When the removal of a service was acknowledged.
    pub removed: BTreeMap<String, Instant>,
    pub visits: BTreeMap<String, Visits>,
    /// What each watcher holds now: name, id, version; none while it has no stream.
    pub watched: BTreeMap<String, Option<(String, u64)>>,
}

impl Shared {
    pub fn now(&self) -> Micros {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Acquire)
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// A mark that no other write of any run has, and the label value that carries it.
    pub fn mark(&self) -> (Mark, String) {
        let mark = self.next_mark.fetch_add(1, Ordering::Relaxed);
        (mark, format!("{:08x}-{mark}", self.run))
    }

    /// The mark in a label; what other runs left behind is nobody's.
    pub fn read_mark(&self, label: Option<&String>) -> Mark {
        let ours = label.and_then(|text| text.strip_prefix(&format!("{:08x}-", self.run)));
        ours.and_then(|mark| mark.parse().ok()).unwrap_or(0)
    }
}

/// The clients of one run.
pub struct Load {
    pub(crate) shared: Arc<Shared>,
    runtime: Runtime,
    seed: u64,
    writers: Vec<tokio::task::JoinHandle<()>>,
    others: Vec<tokio::task::JoinHandle<()>>,
}

/// What the load needs to know.
pub struct Setting<'a> {
    pub lab: &'a Lab,
    pub image: &'a str,
    pub seed: u64,
    pub conditions: Arc<Conditions>,
    pub began: Instant,
    pub workers: Vec<(String, Ipv4Addr)>,
}

impl Load {
    pub fn start(setting: Setting<'_>) -> Result<Self> {
        let context = Context::load(&setting.lab.client_context_file())?;
        let identity = TlsIdentity::new(context.identity()?)?;
        // Threads are born in the namespace of the thread that makes them.
        let runtime = setting.lab.inside("client", || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2).enable_all().build()
        })?;
        let runtime = runtime.map_err(|source| Error::Runtime { source })?;
        let shared = Arc::new(Shared {
            tls: TlsClient::manager(&identity),
            managers: context.managers.clone(),
            image: setting.image.to_owned(),
            began: setting.began,
            conditions: setting.conditions,
            calm: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            over: AtomicBool::new(false),
            run: rand::rng().random(),
            next_mark: AtomicU64::new(1),
            inner: Mutex::default(),
        });
        let (writers, others) = (Vec::new(), Vec::new());
        let mut load = Self { shared, runtime, seed: setting.seed, writers, others };
        load.remove_all()?;
        let port = load.run(|mut client| async move { spec::standing(&mut client).await })?;
        load.spawn_all(&setting.workers, port);
        Ok(load)
    }

    fn spawn_all(&mut self, workers: &[(String, Ipv4Addr)], port: u16) {
        let names: Vec<String> = (0..OBJECTS).map(|n| format!("{PREFIX}{n}")).collect();
        for number in 0..WRITERS {
            let client = self.client(number + 1);
            self.writers.push(self.runtime.spawn(writer::run(client, names.clone())));
        }
        let roller = self.client(WRITERS + 1);
        self.writers.push(self.runtime.spawn(writer::roll(roller, WEB.to_owned())));
        let drainer = self.client(WRITERS + 2);
        let nodes: Vec<String> = workers.iter().map(|(name, _)| name.clone()).collect();
        self.writers.push(self.runtime.spawn(drainer::run(drainer, nodes)));
        let watched = names.iter().take(WATCHED).cloned().chain([WEB.to_owned()]);
        for (number, name) in (0u32..).zip(watched) {
            let client = self.client(WRITERS + 3 + number);
            self.others.push(self.runtime.spawn(watcher::run(client, name)));
        }
        for (name, address) in workers {
            let target = SocketAddr::from((*address, port));
            let visitor = visitor::run(self.shared.clone(), name.clone(), target);
            self.others.push(self.runtime.spawn(visitor));
        }
    }

    fn client(&self, number: u32) -> Client {
        let random = StdRng::seed_from_u64(self.seed.wrapping_add(u64::from(number) << 32));
        Client::new(self.shared.clone(), number, random)
    }

    /// Runs one conversation to its end on the clients' threads.
    fn run<T, F>(&self, talk: impl FnOnce(Client) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = self.runtime.spawn(talk(self.client(0)));
        self.runtime.block_on(task).unwrap_or_else(|error| {
            Err(Error::Talk { doing: "asking the cluster", reason: error.to_string() })
        })
    }

    /// Ends the writers; afterwards nothing changes but what the cluster does by itself.
    pub fn quiesce(&mut self) -> Result<()> {
        self.shared.calm.store(true, Ordering::Release);
        for writer in self.writers.drain(..) {
            // A writer that panicked left its history; the panic is told on stderr.
            let _ = self.runtime.block_on(writer);
        }
        self.run(|mut client| async move { drainer::undrain_all(&mut client, PATIENCE).await })
    }

    /// What the API says should run, read once the writers are gone; part of the history.
    pub fn finals(&self) -> Result<Vec<Wanted>> {
        self.run(|mut client| async move { spec::wanted(&mut client, PATIENCE).await })
    }

    /// Objects to every watcher that does not hold the last state of its service.
    pub fn watch_gaps(&self, wanted: &[Wanted], within: Duration) -> Vec<Objection> {
        let deadline = Instant::now() + within;
        loop {
            let gaps = watcher::gaps(&self.shared, wanted);
            if gaps.is_empty() || Instant::now() > deadline {
                return gaps;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Removes every service of ours, those of earlier runs included.
    pub fn remove_all(&self) -> Result<()> {
        self.shared.closed.store(!self.others.is_empty(), Ordering::Release);
        self.run(|mut client| async move { spec::remove_all(&mut client, PATIENCE).await })
    }

    /// Takes a node out of the cluster, for another to take its place.
    pub fn remove_node(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.run(|mut client| async move { client.remove_node(&name, PATIENCE).await })
    }

    /// The manager that leads.
    pub fn leader(&self, within: Duration) -> Result<String> {
        self.run(move |mut client| async move { client.leader(within).await })
    }

    /// Managers with a vote.
    pub fn voters(&self) -> Result<Vec<String>> {
        self.run(|mut client| async move { client.voters(PATIENCE).await })
    }

    /// Ends everybody; what they saw.
    pub fn finish(mut self) -> (History, Vec<Objection>, BTreeMap<String, Visits>) {
        self.shared.over.store(true, Ordering::Release);
        for other in self.others.drain(..) {
            let _ = self.runtime.block_on(other);
        }
        self.runtime.shutdown_timeout(Duration::from_secs(2));
        let mut inner = self.shared.lock();
        let (history, objections) =
            (std::mem::take(&mut inner.history), std::mem::take(&mut inner.objections));
        (history, objections, std::mem::take(&mut inner.visits))
    }
}
