//! Who may get a new connection: routes, local tasks, suspicion and counts.
//!
//! Plain data behind one lock (see [`Core`](super::core::Core)); no I/O, and
//! the time comes in as an argument. Choosing a backend and counting the
//! attempt happen in one critical section, so after
//! [`Table::replace`] every attempt at a removed task is either counted or
//! will be refused by [`Table::promote`].

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::endpoints::{Backend, Endpoints};

#[derive(Debug)]
pub(super) struct Table {
    pub version: u64,
    routes: HashMap<u16, Route>,
    /// Published target ports per task.
    targets: HashMap<String, Vec<u16>>,
    local: HashMap<String, LocalTask>,
    /// Nodes that connections of ours go to.
    nodes: HashMap<String, NodeUse>,
    usage: HashMap<String, Usage>,
    suspects: HashMap<Suspect, Suspicion>,
    backoff: Duration,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Route {
    service_name: String,
    backends: Vec<Arc<Backend>>,
    cursor: usize,
}

#[derive(Debug, Clone)]
struct LocalTask {
    ip: Ipv4Addr,
    gone: CancellationToken,
}

/// Connections of one task that are being made or are open.
#[derive(Debug)]
struct Usage {
    dialing: usize,
    open: usize,
    /// On ports of this machine, dialling or open: no snapshot ends those.
    host: usize,
    /// Ends attempts when the task is removed.
    stop_dialing: CancellationToken,
}

impl Usage {
    fn new(stop: &CancellationToken) -> Self {
        Usage { dialing: 0, open: 0, host: 0, stop_dialing: stop.child_token() }
    }
}

#[derive(Debug)]
struct NodeUse {
    connections: usize,
    cut: CancellationToken,
}

/// What is believed not to answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Suspect {
    Node(String),
    Task(String),
}

#[derive(Debug)]
struct Suspicion {
    failures: u32,
    until: Instant,
}

/// Only in case nobody looks after the node any more.
const NODE_SUSPICION: Duration = Duration::from_secs(60);

/// On whose behalf a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// A client on this published port.
    Published(u16),
    /// Another worker, for this target port.
    Peer(u16),
}

/// What a connection attempt needs to know about its lifetime.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    pub stop_dialing: CancellationToken,
    /// Cuts the established connection.
    pub cut: CancellationToken,
}

impl Table {
    pub fn new(backoff: Duration, stop: CancellationToken) -> Self {
        Table {
            version: 0,
            routes: HashMap::new(),
            targets: HashMap::new(),
            local: HashMap::new(),
            nodes: HashMap::new(),
            usage: HashMap::new(),
            suspects: HashMap::new(),
            backoff,
            stop,
        }
    }

    /// Puts a snapshot in effect. Returns false, changing nothing, when it is
    /// older than the present one.
    pub fn replace(&mut self, snapshot: &Endpoints) -> bool {
        if snapshot.version < self.version {
            return false;
        }
        let mut old = std::mem::take(&mut self.routes);
        for port in &snapshot.ports {
            let mut backends: Vec<_> = port.backends.iter().cloned().map(Arc::new).collect();
            backends.sort_by(|a, b| a.task_id.cmp(&b.task_id));
            backends.dedup_by(|a, b| a.task_id == b.task_id);
            let route = Route {
                service_name: port.service_name.clone(),
                backends,
                cursor: old.remove(&port.published).map_or(0, |route| route.cursor),
            };
            if self.routes.insert(port.published, route).is_some() {
                tracing::warn!(port = port.published, "a port is published twice");
            }
        }
        self.version = snapshot.version;
        self.targets = snapshot.targets();
        let nodes: HashSet<&str> = backends_of(&self.routes).map(|b| b.node_id.as_str()).collect();
        self.suspects.retain(|suspect, _| match suspect {
            Suspect::Node(id) => nodes.contains(id.as_str()),
            Suspect::Task(id) => self.targets.contains_key(id),
        });
        for (task, usage) in &self.usage {
            if !self.targets.contains_key(task) {
                usage.stop_dialing.cancel();
            }
        }
        true
    }

    pub fn published(&self) -> Vec<u16> {
        self.routes.keys().copied().collect()
    }

    pub fn service_of(&self, port: u16) -> Option<(&str, usize)> {
        let route = self.routes.get(&port)?;
        Some((&route.service_name, route.backends.len()))
    }

    /// One backend per node, enough to reach its mesh port.
    pub fn nodes(&self) -> HashMap<String, Arc<Backend>> {
        backends_of(&self.routes)
            .map(|backend| (backend.node_id.clone(), backend.clone()))
            .collect()
    }

    /// The next backend in turn, starting at `start` and leaving out `tried`;
    /// suspects come last, because trying them is better than giving up.
    pub fn next(
        &self,
        port: u16,
        start: usize,
        tried: &HashSet<String>,
        now: Instant,
    ) -> Option<Arc<Backend>> {
        let backends = &self.routes.get(&port)?.backends;
        let in_turn = (0..backends.len()).map(|i| &backends[(start + i) % backends.len()]);
        in_turn
            .filter(|backend| !tried.contains(&backend.task_id))
            .min_by_key(|backend| self.is_suspect(backend, now)) // the first of equals
            .cloned()
    }

    /// Moves the turn of `port` on by one connection.
    pub fn take_turn(&mut self, port: u16, now: Instant) -> usize {
        let start = self.routes.get(&port).map_or(0, |route| route.cursor);
        let first = self.next(port, start, &HashSet::new(), now);
        let Some(route) = self.routes.get_mut(&port) else {
            return 0;
        };
        // Step past the one that really gets it, or its neighbour would get
        // the share of every suspect before it.
        let at = first.and_then(|first| route.backends.iter().position(|b| *b == first));
        let at = at.unwrap_or(0);
        route.cursor = (at + 1) % route.backends.len().max(1);
        at
    }

    fn is_suspect(&self, backend: &Backend, now: Instant) -> bool {
        if self.suspects.is_empty() {
            return false;
        }
        let suspects =
            [Suspect::Node(backend.node_id.clone()), Suspect::Task(backend.task_id.clone())];
        suspects.iter().any(|s| self.suspects.get(s).is_some_and(|s| s.until > now))
    }

    /// Remembers a failure. A task is avoided for a short while, longer each
    /// time; a node until the keeper of its connections reaches it again.
    pub fn suspect(&mut self, suspect: Suspect, now: Instant) {
        let is_node = matches!(suspect, Suspect::Node(_));
        let entry = self.suspects.entry(suspect).or_insert(Suspicion { failures: 0, until: now });
        // Failures of connections begun together count once.
        if entry.until <= now {
            entry.failures += 1;
            entry.until = now + self.backoff * (1 << (entry.failures - 1).min(3));
        }
        if is_node {
            entry.until = now + NODE_SUSPICION;
        }
    }

    pub fn trust(&mut self, suspect: &Suspect) {
        self.suspects.remove(suspect);
    }

    pub fn set_local(&mut self, task_id: &str, ip: Ipv4Addr) {
        let same = self.local.get(task_id).is_some_and(|task| task.ip == ip);
        if !same {
            self.remove_local(task_id);
            let gone = self.stop.child_token();
            self.local.insert(task_id.to_owned(), LocalTask { ip, gone });
        }
    }

    /// The container is gone, so whatever is still connected to it is cut.
    pub fn remove_local(&mut self, task_id: &str) {
        if let Some(task) = self.local.remove(task_id) {
            task.gone.cancel();
        }
    }

    pub fn local_ip(&self, task_id: &str) -> Option<Ipv4Addr> {
        self.local.get(task_id).map(|task| task.ip)
    }

    /// Cuts the connections to a node that is lost.
    pub fn lose_node(&mut self, node_id: &str) {
        if let Some(node) = self.nodes.get_mut(node_id) {
            // Whoever connects from now on is not part of the loss.
            std::mem::replace(&mut node.cut, self.stop.child_token()).cancel();
        }
    }

    pub fn is_node_used(&self, node_id: &str) -> bool {
        self.nodes.contains_key(node_id)
    }

    /// Counts an attempt at `task_id`; `None` when it must not be made.
    pub fn begin(&mut self, via: Via, task_id: &str, remote: Option<&str>) -> Option<Tokens> {
        if !self.is_listed(via, task_id) {
            return None;
        }
        let stop = &self.stop;
        let cut = match remote {
            Some(id) => {
                let node = self
                    .nodes
                    .entry(id.to_owned())
                    .or_insert_with(|| NodeUse { connections: 0, cut: stop.child_token() });
                node.connections += 1;
                node.cut.clone()
            }
            None => self.local.get(task_id)?.gone.clone(),
        };
        let usage = self.usage.entry(task_id.to_owned()).or_insert_with(|| Usage::new(stop));
        if usage.stop_dialing.is_cancelled() {
            // Removed and listed again while old connections drain.
            usage.stop_dialing = stop.child_token();
        }
        usage.dialing += 1;
        let stop_dialing = usage.stop_dialing.clone();
        Some(Tokens { stop_dialing, cut })
    }

    /// Turns an attempt into an open connection, unless the task was removed
    /// meanwhile; then the attempt is still to be ended.
    pub fn promote(&mut self, via: Via, task_id: &str) -> bool {
        let listed = self.is_listed(via, task_id);
        if let Some(usage) = self.usage.get_mut(task_id).filter(|_| listed) {
            usage.dialing -= 1;
            usage.open += 1;
        }
        listed
    }

    pub fn end_dial(&mut self, task_id: &str, remote: Option<&str>) {
        self.end(task_id, remote, |usage| usage.dialing -= 1);
    }

    pub fn end_open(&mut self, task_id: &str, remote: Option<&str>) {
        self.end(task_id, remote, |usage| usage.open -= 1);
    }

    fn end(&mut self, task_id: &str, remote: Option<&str>, change: impl FnOnce(&mut Usage)) {
        if let Some(usage) = self.usage.get_mut(task_id) {
            change(usage);
            if usage.dialing == 0 && usage.open == 0 && usage.host == 0 {
                self.usage.remove(task_id);
            }
        }
        if let Some((id, node)) = remote.and_then(|id| Some((id, self.nodes.get_mut(id)?))) {
            node.connections -= 1;
            if node.connections == 0 {
                self.nodes.remove(id);
            }
        }
    }

    /// Counts a connection from a port of this machine to a task here; none when it does not run.
    pub fn begin_host(&mut self, task_id: &str) -> Option<(Ipv4Addr, CancellationToken)> {
        let LocalTask { ip, gone } = self.local.get(task_id)?.clone();
        let stop = &self.stop;
        let usage = self.usage.entry(task_id.to_owned()).or_insert_with(|| Usage::new(stop));
        usage.host += 1;
        Some((ip, gone))
    }

    pub fn end_host(&mut self, task_id: &str) {
        self.end(task_id, None, |usage| usage.host -= 1);
    }

    pub fn open(&self, task_id: &str) -> usize {
        self.usage.get(task_id).map_or(0, |usage| usage.open + usage.host)
    }

    pub fn is_idle(&self, task_id: &str) -> bool {
        !self.usage.contains_key(task_id)
    }

    /// Whether an attempt at a task that is not listed is still under way.
    pub fn has_stale_dials(&self) -> bool {
        let mut usage = self.usage.iter();
        usage.any(|(task, usage)| usage.dialing > 0 && !self.targets.contains_key(task))
    }

    fn is_listed(&self, via: Via, task_id: &str) -> bool {
        match via {
            Via::Published(port) => self
                .routes
                .get(&port)
                .is_some_and(|route| route.backends.iter().any(|b| b.task_id == task_id)),
            Via::Peer(target) => {
                self.targets.get(task_id).is_some_and(|ports| ports.contains(&target))
            }
        }
    }
}

fn backends_of(routes: &HashMap<u16, Route>) -> impl Iterator<Item = &Arc<Backend>> {
    routes.values().flat_map(|route| &route.backends)
}

#[cfg(test)]
mod tests;
