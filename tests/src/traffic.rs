//! Steady requests to a published port while something else happens.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster_lab::Place;

use crate::cluster::SOON;
use crate::{Cluster, eventually, http};

/// Pause between two requests to one address.
const PERIOD: Duration = Duration::from_millis(10);

/// Requests that are under way; `stop` lets some more through and tells how all went.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<Client>,
}

struct Client {
    good: Arc<AtomicU32>,
    thread: JoinHandle<Answers>,
}

/// How one address answered.
#[derive(Debug)]
pub struct Answers {
    pub address: Ipv4Addr,
    pub good: u32,
    /// When, since the start, a request failed, and how.
    pub failed: Vec<(Duration, String)>,
    /// Longest time without a good answer.
    pub longest_gap: Duration,
}

impl Traffic {
    /// Starts one client for each address, in the client's namespace.
    pub fn start(cluster: &Cluster, addresses: &[Ipv4Addr], port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = addresses.iter().map(|address| {
            let (stop, address, good) = (stop.clone(), *address, Arc::new(AtomicU32::new(0)));
            let count = good.clone();
            let started = cluster.lab().inside(Place::Client, move || {
                // A new thread lives in the namespace of the one that made it.
                std::thread::spawn(move || client(address, port, &stop, &count))
            });
            Client { good, thread: started.expect("a client inside the lab") }
        });
        let clients = clients.collect();
        let traffic = Self { stop, clients };
        traffic.flows();
        traffic
    }

    /// Waits until every address has answered some more requests.
    pub fn flows(&self) {
        for client in &self.clients {
            let wanted = client.good.load(Ordering::Acquire) + 20;
            eventually("requests are answered", SOON, || {
                client.good.load(Ordering::Acquire) >= wanted || client.thread.is_finished()
            });
        }
    }

    pub fn stop(self) -> Vec<Answers> {
        self.flows();
        self.stop.store(true, Ordering::Release);
        let ended = |client: Client| client.thread.join().expect("the client ends");
        self.clients.into_iter().map(ended).collect()
    }
}

fn client(address: Ipv4Addr, port: u16, stop: &AtomicBool, good: &AtomicU32) -> Answers {
    let started = Instant::now();
    let mut last = started;
    let mut answers = Answers { address, good: 0, failed: Vec::new(), longest_gap: Duration::ZERO };
    while !stop.load(Ordering::Acquire) {
        match http::get(address, port, "/") {
            Ok((200, _)) => {
                answers.good = good.fetch_add(1, Ordering::AcqRel) + 1;
                answers.longest_gap = answers.longest_gap.max(last.elapsed());
                last = Instant::now();
            }
            Ok((status, _)) => answers.failed.push((started.elapsed(), format!("{status}"))),
            Err(error) => answers.failed.push((started.elapsed(), error)),
        }
        std::thread::sleep(PERIOD);
    }
    answers.longest_gap = answers.longest_gap.max(last.elapsed());
    answers
}
