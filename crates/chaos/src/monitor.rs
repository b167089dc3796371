//! Looking at the machines while faults run: who lives, what runs, what it uses.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cluster_lab::{Lab, NodeState, Role};

use crate::census::Census;
use crate::check::Objection;
use crate::check::slots::{Bounds, Circumstances, Judge};
use crate::condition::Conditions;
use crate::gauges::Gauges;
use crate::load::{EVERYWHERE, Shared, WEB};

const PERIOD: Duration = Duration::from_millis(400);
const GAUGE_PERIOD: Duration = Duration::from_secs(5);
/// How long after its last fault a node may still run what it should not: the time to find a
/// manager, be told, and stop it gracefully.
pub const BOUNDS: Bounds =
    Bounds { settle: Duration::from_secs(15), removed: Duration::from_secs(15) };

/// What the monitor saw.
#[derive(Debug, Default)]
pub struct Watched {
    pub objections: Vec<Objection>,
    pub gauges: Gauges,
    /// Samples in which slots could be judged.
    pub judged: u64,
    pub samples: u64,
}

pub struct Monitor {
    stop: Arc<AtomicBool>,
    watched: Arc<Mutex<Watched>>,
    thread: JoinHandle<()>,
}

impl Monitor {
    /// Watches a lab that is opened anew, so that nobody waits for anybody.
    pub(crate) fn start(lab: Lab, shared: Arc<Shared>, conditions: Arc<Conditions>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let watched = Arc::new(Mutex::new(Watched::default()));
        let looking = Looking {
            lab,
            census: Census::default(),
            judge: Judge::new(BOUNDS),
            shared,
            conditions,
            watched: watched.clone(),
            down: BTreeMap::new(),
        };
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || looking.run(&stopped));
        Self { stop, watched, thread }
    }

    pub fn stop(self) -> Watched {
        self.stop.store(true, Ordering::Release);
        // A panic there is told on stderr, and what was seen before it counts.
        let _ = self.thread.join();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *watched)
    }
}

struct Looking {
    lab: Lab,
    census: Census,
    judge: Judge,
    shared: Arc<Shared>,
    conditions: Arc<Conditions>,
    watched: Arc<Mutex<Watched>>,
    /// Nodes without a daemon although nothing is done to them, and since how many looks.
    down: BTreeMap<String, u32>,
}

impl Looking {
    fn run(mut self, stop: &AtomicBool) {
        let mut gauged: Option<Instant> = None;
        while !stop.load(Ordering::Acquire) {
            // Nodes that come or go meanwhile make a look worthless, not wrong.
            let Ok(status) = self.lab.status() else { continue };
            if gauged.is_none_or(|at| at.elapsed() >= GAUGE_PERIOD) {
                gauged = Some(Instant::now());
                let at = self.shared.began.elapsed();
                let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
                for node in &status {
                    watched.gauges.take(at, node, &self.lab.data_path(&node.name));
                }
            }
            let workers: Vec<String> = status
                .iter()
                .filter(|node| node.role == Role::Worker && node.state != NodeState::Stopped)
                .map(|node| node.name.clone())
                .collect();
            if let Ok(live) = self.census.take(&self.lab, &workers) {
                let seen = Seen { conditions: &self.conditions, shared: &self.shared };
                let objections = self.judge.feed(&live, &seen);
                let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
                watched.objections.extend(objections);
                watched.judged = self.judge.judged;
                watched.samples += 1;
            }
            for node in &status {
                self.look_for_daemon(&node.name, node.state);
            }
            std::thread::sleep(PERIOD);
        }
    }

    /// A daemon that nobody killed must run. It is started again, so that the run can go on.
    fn look_for_daemon(&mut self, node: &str, state: NodeState) {
        if state != NodeState::AgentDown || self.conditions.is_impaired(node) {
            self.down.remove(node);
            return;
        }
        let looks = self.down.entry(node.to_owned()).or_default();
        *looks += 1;
        if *looks < 3 {
            return;
        }
        self.down.remove(node);
        let how = self.lab.agent_exit(node).ok().flatten().unwrap_or_default();
        let log = std::fs::read(self.lab.log_path(node)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let last = log.lines().rev().find(|line| line.contains("ERROR")).unwrap_or_default();
        let detail = format!("the daemon of {node} {how}, and nobody killed it; it said: {last}");
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.objections.push(Objection::new("stopped", detail));
        let _ = self.lab.start_agent(node);
    }
}

struct Seen<'a> {
    conditions: &'a Conditions,
    shared: &'a Shared,
}

impl Circumstances for Seen<'_> {
    fn quiet_for(&self, node: &str) -> Duration {
        self.conditions.quiet_for(node)
    }

    fn removed_for(&self, service_id: &str) -> Option<Duration> {
        self.shared.lock().removed.get(service_id).map(Instant::elapsed)
    }

    fn per_slot(&self, service: &str) -> usize {
        if service == WEB { 2 } else { 1 }
    }

    fn is_global(&self, service: &str) -> bool {
        service == EVERYWHERE
    }
}
