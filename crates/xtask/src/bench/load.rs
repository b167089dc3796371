//! A steady load on the published port while something happens to the cluster behind it, and how
//! many requests failed.
//!
//! Open loop: a request is due every so often whether or not the ones before were answered, so a
//! cluster that stalls cannot hide it. Bounded in rate, in time and in requests under way.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, ask};

/// Requests a second over all workers.
pub(super) const RATE: u64 = 500;
/// Threads that share the rate: as many requests are under way at most.
const CLIENTS: u64 = 50;
/// A load ends by itself after so long.
const LONGEST: Duration = Duration::from_secs(120);

/// Requests that are being sent.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<Outcome>>>,
}

struct Outcome {
    to: SocketAddr,
    took: Duration,
    error: Option<String>,
}

/// What became of them.
pub(super) struct Told {
    pub sent: usize,
    pub failed: usize,
    pub p99: Duration,
    pub first_error: Option<String>,
}

impl Load {
    /// Starts the load from the client's place and waits until it flows.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let workers = cluster.workers()?;
        ensure!(!workers.is_empty(), "no worker is on");
        let addresses: Arc<Vec<Ipv4Addr>> =
            Arc::new(workers.into_iter().map(|(_, address)| address).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let begin = Instant::now();
        let clients = (0..CLIENTS).map(|number| {
            let (stop, sent, addresses) = (stop.clone(), sent.clone(), addresses.clone());
            // A new thread lives in the namespace of the one that made it.
            let start =
                move || std::thread::spawn(move || client(number, begin, &addresses, &stop, &sent));
            cluster.lab.inside("client", start).context("starting the load")
        });
        let clients = clients.collect::<Result<Vec<_>>>()?;
        let load = Self { stop, sent, clients };
        load.flow()?;
        Ok(load)
    }

    /// Waits for another half second's worth of requests.
    fn flow(&self) -> Result<()> {
        let wanted = self.sent.load(Ordering::Acquire) + RATE / 2;
        let begin = Instant::now();
        while self.sent.load(Ordering::Acquire) < wanted {
            ensure!(begin.elapsed() < Duration::from_secs(20), "the load does not flow");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Lets some more through and ends it. What was sent to `dead` after it died counts as its own
    /// loss, not the cluster's, and is left out.
    pub fn stop(self, dead: Option<Ipv4Addr>) -> Result<Told> {
        self.flow()?;
        self.stop.store(true, Ordering::Release);
        let mut outcomes = Vec::new();
        for client in self.clients {
            outcomes.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?);
        }
        outcomes.retain(|outcome| Some(outcome.to.ip()) != dead.map(Into::into));
        let mut times: Vec<Duration> = outcomes.iter().map(|outcome| outcome.took).collect();
        times.sort_unstable();
        let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
        let failed = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
        let first_error = outcomes.iter().find_map(|outcome| outcome.error.clone());
        Ok(Told { sent: outcomes.len(), failed, p99, first_error })
    }
}

fn client(
    number: u64,
    begin: Instant,
    addresses: &[Ipv4Addr],
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Vec<Outcome> {
    let period = Duration::from_secs(1) * u32::try_from(CLIENTS).unwrap_or(1)
        / u32::try_from(RATE).unwrap_or(1);
    let mut due =
        begin + period * u32::try_from(number).unwrap_or(0) / u32::try_from(CLIENTS).unwrap_or(1);
    let mut turn = usize::try_from(number).unwrap_or(0);
    let mut outcomes = Vec::new();
    while !stop.load(Ordering::Acquire) && begin.elapsed() < LONGEST {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due += period;
        let to = SocketAddr::from((addresses[turn % addresses.len()], 80));
        turn += 1;
        let asked = Instant::now();
        let answer = ask(to, "/");
        sent.fetch_add(1, Ordering::AcqRel);
        let error = answer.err().map(|error| error.to_string());
        outcomes.push(Outcome { to, took: asked.elapsed(), error });
    }
    outcomes
}
