//! Says in words why no node takes a task. Shown by `service ps` and in progress lines, so the
//! text says what is asked for and how much there is.

use std::collections::BTreeMap;

use cluster_model::fit::{self, Obstacle, Seeker};
use cluster_model::spec::Resources;
use cluster_model::{Node, State};

use super::candidate::Candidate;

/// How every explanation of a task without a node begins.
pub(super) const NOWHERE: &str = "no suitable node";

/// Of a task whose predecessor could not even start.
pub(super) const HELD: &str = "waits before the next attempt";

/// Counts what speaks against each node. Equal situations give equal texts.
pub(super) fn nowhere(state: &State, seeker: Seeker<'_>, nodes: &[Candidate<'_>]) -> String {
    let tally = Tally::of(state, seeker, nodes);
    if tally.nodes.is_empty() && seeker.task.extras.target.is_none() {
        return format!("{NOWHERE}: the cluster has no workers");
    }
    let parts = tally.nodes.iter().map(|(obstacle, nodes)| tally.part(*obstacle, nodes.len()));
    let alone = seeker.task.extras.target.map(|target| match state.node(target) {
        Some(node) => format!("it is for {} alone", node.name),
        None => "the node it is for was removed".to_owned(),
    });
    let parts: Vec<String> = alone.into_iter().chain(parts).collect();
    format!("{NOWHERE}: {}", parts.join("; "))
}

/// The nodes that cannot take a task, by what speaks against them.
pub(crate) struct Tally<'a> {
    state: &'a State,
    seeker: Seeker<'a>,
    /// Nodes that a task with a target is not for are left out.
    pub nodes: BTreeMap<Obstacle, Vec<&'a Node>>,
    /// Nodes that can take it.
    pub suitable: Vec<&'a Node>,
    /// Most room of a node that lacks some.
    pub most: Resources,
    pub most_generic: u64,
}

impl<'a> Tally<'a> {
    pub fn of(state: &'a State, seeker: Seeker<'a>, nodes: &[Candidate<'a>]) -> Self {
        let mut tally = Self {
            state,
            seeker,
            nodes: BTreeMap::new(),
            suitable: Vec::new(),
            most: Resources::default(),
            most_generic: 0,
        };
        for candidate in nodes {
            match candidate.obstacle(state, seeker) {
                None => tally.suitable.push(candidate.node),
                Some(Obstacle::Target) => {}
                Some(obstacle) => tally.add(obstacle, candidate),
            }
        }
        tally
    }

    fn add(&mut self, obstacle: Obstacle, candidate: &Candidate<'a>) {
        self.nodes.entry(obstacle).or_default().push(candidate.node);
        let (free, most) = (candidate.free(), &mut self.most);
        match obstacle {
            Obstacle::Cpu => most.cpu_nanos = most.cpu_nanos.max(free.cpu_nanos),
            Obstacle::Memory => most.memory_bytes = most.memory_bytes.max(free.memory_bytes),
            Obstacle::Generic(place) => {
                if let Some((kind, _)) = self.seeker.spec.generic.iter().nth(place) {
                    let free = fit::free_generic(self.state, candidate.node, kind);
                    self.most_generic = self.most_generic.max(free);
                }
            }
            _ => {}
        }
    }

    /// One obstacle with its number of nodes.
    pub fn part(&self, obstacle: Obstacle, count: usize) -> String {
        let nodes = if count == 1 { "node" } else { "nodes" };
        format!("{count} {nodes} {}", self.what(obstacle, count))
    }

    /// What so many nodes are or do.
    pub fn what(&self, obstacle: Obstacle, count: usize) -> String {
        let spec = self.seeker.spec;
        let many = |one: &'static str, more: &'static str| if count == 1 { one } else { more };
        let has = many("has", "have");
        let at_most = many("", "at most ");
        match obstacle {
            Obstacle::Constraint(place) => {
                let does = many("does", "do");
                let constraint = spec.placement.constraints.get(place).map(ToString::to_string);
                format!("{does} not meet constraint {}", constraint.unwrap_or_default())
            }
            Obstacle::Cpu => format!(
                "{has} insufficient CPU (wants {}, {at_most}{} free)",
                cores(spec.reservations.cpu_nanos),
                cores(self.most.cpu_nanos)
            ),
            Obstacle::Memory => format!(
                "{has} insufficient memory (wants {}, {at_most}{} free)",
                bytes(spec.reservations.memory_bytes),
                bytes(self.most.memory_bytes)
            ),
            Obstacle::Generic(place) => match spec.generic.iter().nth(place) {
                Some((kind, wanted)) => format!(
                    "{has} insufficient {kind} (wants {wanted}, {at_most}{} free)",
                    self.most_generic
                ),
                None => format!("{has} insufficient generic resources"),
            },
            Obstacle::HostPort(port) => format!("{has} a task on host port {port}"),
            Obstacle::Published(port) => {
                let owner = self.state.port_owner(port).and_then(|id| self.state.service(id));
                let owner = owner.map_or("another", |service| service.spec.name.as_str());
                let listens = many("listens", "listen");
                format!("{listens} on port {port} for service {owner}")
            }
            Obstacle::MaxPerNode => {
                let max = spec.placement.max_per_node;
                let tasks = if max == 1 { "1 task".to_owned() } else { format!("{max} tasks") };
                format!("{has} the {tasks} of the service allowed per node")
            }
            Obstacle::Promised => {
                format!("{} for a task that comes first", many("keeps its room", "keep their room"))
            }
            Obstacle::Unhealthy => format!("{has} a runtime that does not answer"),
            Obstacle::Down => "down".to_owned(),
            Obstacle::Drained => "drained".to_owned(),
            Obstacle::Paused => "paused".to_owned(),
            Obstacle::Unknown => "not yet heard from".to_owned(),
            Obstacle::Target => "not the one it is for".to_owned(),
        }
    }
}

/// Cores as people write them.
pub(crate) fn cores(nanos: u64) -> String {
    let thousandths = nanos / 1_000_000;
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Never more than there are: the text may be advice on what fits.
pub(crate) fn bytes(bytes: u64) -> String {
    const KIB: u64 = 1024;
    match bytes {
        0 => "0 MiB".to_owned(),
        1..KIB => format!("{bytes} B"),
        KIB..1_048_576 => format!("{} KiB", bytes / KIB),
        _ => format!("{} MiB", bytes / KIB / KIB),
    }
}
