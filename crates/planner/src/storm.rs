//! The storm guard: when most of a zone falls silent at once, the network is the likelier cause
//! than so many machines, and starting everything again on the few that are left would bring
//! those down too. Then nothing of that zone is replaced until its nodes return.
//!
//! A zone is the nodes with the same label `zone`; nodes without it are one zone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use cluster_model::{Availability, Node, NodeState, State};

/// The label that puts nodes into zones.
pub const ZONE_LABEL: &str = "zone";
/// Fewer silent nodes are no storm.
const SILENT_MIN: usize = 3;
/// They fell silent within so long of each other.
const TOGETHER_MS: u64 = 5_000;
/// Once nodes return, the others get so long to follow before they are replaced.
pub const RETURN_MS: u64 = 5_000;

/// A storm under way, for logs and the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storm {
    /// The zones in which nothing is replaced; the empty name is the nodes without one.
    pub zones: Vec<String>,
    /// Nodes of these zones that are down, of how many.
    pub down: usize,
    pub total: usize,
    /// What is held and what to do, for people.
    pub text: String,
}

/// Whether there is a storm. It is over when at most half of each zone is down, because nodes
/// returned (and the others had a moment to follow), or were drained or removed.
pub fn assess(state: &State, now_ms: u64) -> Option<Storm> {
    let zones = zones(state, now_ms);
    if zones.is_empty() {
        return None;
    }
    let (down, total) =
        zones.values().fold((0, 0), |(down, total), zone| (down + zone.down, total + zone.total));
    let names: Vec<String> = zones.keys().map(|zone| name(zone)).collect();
    let text = format!(
        "storm guard: {down} of {total} nodes of {} went silent at once, so their tasks are not \
         replaced; this ends by itself when at most half are down. Mend the network or the \
         machines; for machines that will not return: clusterctl node rm NODE",
        names.join(", ")
    );
    Some(Storm { zones: zones.into_keys().collect(), down, total, text })
}

/// Zones with a storm; looked for when a silent node is met first, so that a pass over services
/// without one costs nothing.
pub(crate) struct Storms {
    state: State,
    now_ms: u64,
    zones: OnceLock<BTreeMap<String, Zone>>,
}

/// What holds a node's tasks back.
pub(crate) struct Hold<'a> {
    zone: &'a str,
    down: usize,
    total: usize,
    /// When it ends if nothing else happens.
    pub ends_ms: Option<u64>,
}

impl fmt::Display for Hold<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (down, total, zone) = (self.down, self.total, name(self.zone));
        write!(
            f,
            "{down} of the {total} nodes of {zone}; nothing is replaced until at most half are \
             (storm guard)"
        )
    }
}

#[derive(Clone, Copy, Debug)]
struct Zone {
    down: usize,
    total: usize,
    /// When it ends if nothing else happens.
    ends_ms: Option<u64>,
}

impl Storms {
    pub fn of(state: &State, now_ms: u64) -> Self {
        Self { state: state.clone(), now_ms, zones: OnceLock::new() }
    }

    /// The storm because of which the tasks of a silent node are not replaced, if there is one.
    pub fn holds(&self, node: &Node) -> Option<Hold<'_>> {
        let zones = self.zones.get_or_init(|| zones(&self.state, self.now_ms));
        if zones.is_empty() || !counts(node) {
            return None;
        }
        let (name, zone) = zones.get_key_value(zone(node))?;
        Some(Hold { zone: name, down: zone.down, total: zone.total, ends_ms: zone.ends_ms })
    }
}

fn zones(state: &State, now_ms: u64) -> BTreeMap<String, Zone> {
    let mut zones: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
    for node in state.nodes().filter(|node| counts(node)) {
        zones.entry(zone(node)).or_default().push(node);
    }
    let stormy = zones
        .into_iter()
        .filter_map(|(zone, nodes)| Some((zone.to_owned(), Zone::of(&nodes, now_ms)?)));
    stormy.collect()
}

impl Zone {
    /// None when it has no storm.
    fn of(nodes: &[&Node], now_ms: u64) -> Option<Self> {
        let total = nodes.len();
        let silent = |node: &&&Node| node.state == NodeState::Down;
        let down = nodes.iter().filter(silent).count();
        if down == 0 {
            return None;
        }
        let most = |fell_ms: &mut Vec<u64>| {
            fell_ms.sort_unstable();
            let span = |some: &[u64]| some[SILENT_MIN - 1] - some[0];
            let together = fell_ms.windows(SILENT_MIN).any(|some| span(some) <= TOGETHER_MS);
            together && fell_ms.len() * 2 > total
        };
        let mut fell_ms: Vec<u64> =
            nodes.iter().filter(silent).map(|node| node.last_down_ms).collect();
        if most(&mut fell_ms) {
            return Some(Self { down, total, ends_ms: None });
        }
        // Some are back: the others are given the time to follow.
        let back = |node: &&&Node| {
            node.state == NodeState::Ready
                && node.last_down_ms > 0
                && node.state_since_ms.saturating_add(RETURN_MS) > now_ms
        };
        fell_ms.extend(nodes.iter().filter(back).map(|node| node.last_down_ms));
        let last_back = nodes.iter().filter(back).map(|node| node.state_since_ms).max()?;
        let ends_ms = Some(last_back.saturating_add(RETURN_MS));
        most(&mut fell_ms).then_some(Self { down, total, ends_ms })
    }
}

/// Drained nodes are out of service by an operator's word, unknown ones never were in it.
pub(crate) fn counts(node: &Node) -> bool {
    node.spec.availability != Availability::Drain && node.state != NodeState::Unknown
}

pub(crate) fn zone(node: &Node) -> &str {
    node.spec.labels.get(ZONE_LABEL).map_or("", String::as_str)
}

fn name(zone: &str) -> String {
    if zone.is_empty() { "the cluster".to_owned() } else { format!("zone {zone}") }
}
