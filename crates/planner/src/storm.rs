//! The storm guard: when most of a zone falls silent at once, the network is the likelier cause
//! than so many machines, and starting everything again on the few that are left would bring
//! those down too. Then nothing of that zone is replaced until its nodes return.
//!
//! A zone is the nodes with the same label `zone`; nodes without it are one zone.

use std::collections::BTreeMap;

use cluster_model::{Availability, Node, NodeId, NodeState, State};

/// The label that puts nodes into zones.
pub const ZONE_LABEL: &str = "zone";
/// Fewer silent nodes are no storm.
const SILENT_MIN: usize = 3;
/// They fell silent within so long of each other.
const TOGETHER_MS: u64 = 30_000;

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

/// Whether there is a storm. It is over when at most half of each zone is down: nodes returned, or
/// were drained or removed.
pub fn assess(state: &State) -> Option<Storm> {
    let Storms { zones } = Storms::of(state);
    if zones.is_empty() {
        return None;
    }
    let (down, total) =
        zones.values().fold((0, 0), |(down, total), zone| (down + zone.0, total + zone.1));
    let names: Vec<String> = zones.keys().map(|zone| name(zone)).collect();
    let text = format!(
        "storm guard: {down} of {total} nodes of {} went silent at once, so their tasks are not \
         replaced; this ends by itself when at most half are down. Mend the network or the \
         machines; for machines that will not return: clusterctl node rm NODE",
        names.join(", ")
    );
    Some(Storm { zones: zones.into_keys().collect(), down, total, text })
}

/// Zones with a storm: nodes down, and nodes at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Storms {
    zones: BTreeMap<String, (usize, usize)>,
}

impl Storms {
    pub fn of(state: &State) -> Self {
        let mut zones: BTreeMap<&str, (Vec<u64>, usize)> = BTreeMap::new();
        for node in state.nodes().filter(|node| counts(node)) {
            let (down, total) = zones.entry(zone(node)).or_default();
            *total += 1;
            if node.state == NodeState::Down {
                down.push(node.state_since_ms);
            }
        }
        let stormy = zones.into_iter().filter_map(|(zone, (mut down, total))| {
            down.sort_unstable();
            let together =
                down.windows(SILENT_MIN).any(|some| some[SILENT_MIN - 1] - some[0] <= TOGETHER_MS);
            (together && down.len() * 2 > total).then(|| (zone.to_owned(), (down.len(), total)))
        });
        Self { zones: stormy.collect() }
    }

    /// Why the tasks of a silent node are not replaced, if they are not.
    pub fn holds(&self, state: &State, node: NodeId) -> Option<String> {
        if self.zones.is_empty() {
            return None;
        }
        let node = state.node(node).filter(|node| counts(node))?;
        let (down, total) = self.zones.get(zone(node))?;
        Some(format!(
            "node {} is down with {down} of the {total} nodes of {}; nothing is replaced until at \
             most half are (storm guard)",
            node.name,
            name(zone(node))
        ))
    }
}

/// Drained nodes are out of service by an operator's word, unknown ones never were in it.
fn counts(node: &Node) -> bool {
    node.spec.availability != Availability::Drain && node.state != NodeState::Unknown
}

fn zone(node: &Node) -> &str {
    node.spec.labels.get(ZONE_LABEL).map_or("", String::as_str)
}

fn name(zone: &str) -> String {
    if zone.is_empty() { "the cluster".to_owned() } else { format!("zone {zone}") }
}
