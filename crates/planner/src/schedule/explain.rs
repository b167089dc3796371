//! Says in words why no node takes a task. Shown by `service ps` and in progress lines, so the
//! text says what is asked for and how much there is.

use std::collections::BTreeMap;

use cluster_model::TaskSpec;
use cluster_model::spec::Resources;

use super::filter::{Candidate, Obstacle, obstacle};

/// Of a task whose predecessor could not even start.
pub(super) const HELD: &str = "waits before the next attempt";

/// Counts what speaks against each node. Equal situations give equal texts.
pub(super) fn nowhere(spec: &TaskSpec, nodes: &[Candidate<'_>]) -> String {
    let mut counts: BTreeMap<Obstacle, u32> = BTreeMap::new();
    let mut most = Resources::default();
    for candidate in nodes {
        let Some(obstacle) = obstacle(candidate, spec) else { continue };
        *counts.entry(obstacle).or_default() += 1;
        let free = candidate.free();
        match obstacle {
            Obstacle::Cpu => most.cpu_nanos = most.cpu_nanos.max(free.cpu_nanos),
            Obstacle::Memory => most.memory_bytes = most.memory_bytes.max(free.memory_bytes),
            _ => {}
        }
    }
    if counts.is_empty() {
        return "no suitable node: the cluster has no workers".to_owned();
    }
    let parts: Vec<String> =
        counts.into_iter().map(|(obstacle, count)| part(obstacle, count, spec, most)).collect();
    format!("no suitable node: {}", parts.join("; "))
}

fn part(obstacle: Obstacle, count: u32, spec: &TaskSpec, most: Resources) -> String {
    let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
    let many = |one: &'static str, more: &'static str| if count == 1 { one } else { more };
    let has = many("has", "have");
    let at_most = many("", "at most ");
    match obstacle {
        Obstacle::Constraint(place) => {
            let does = many("does", "do");
            let constraint = spec.placement.constraints.get(place).map(ToString::to_string);
            format!("{nodes} {does} not meet constraint {}", constraint.unwrap_or_default())
        }
        Obstacle::Cpu => format!(
            "{nodes} {has} insufficient CPU (wants {}, {at_most}{} free)",
            cores(spec.reservations.cpu_nanos),
            cores(most.cpu_nanos)
        ),
        Obstacle::Memory => format!(
            "{nodes} {has} insufficient memory (wants {}, {at_most}{} free)",
            bytes(spec.reservations.memory_bytes),
            bytes(most.memory_bytes)
        ),
        Obstacle::Unhealthy => format!("{nodes} {has} a runtime that does not answer"),
        Obstacle::Down => format!("{nodes} down"),
        Obstacle::Drained => format!("{nodes} drained"),
        Obstacle::Paused => format!("{nodes} paused"),
        Obstacle::Unknown => format!("{nodes} not yet heard from"),
    }
}

fn cores(nanos: u64) -> String {
    let thousandths = nanos / 1_000_000;
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn bytes(bytes: u64) -> String {
    const KIB: u64 = 1024;
    match bytes {
        0 => "0 MiB".to_owned(),
        1..1_048_576 => format!("{} KiB", bytes.div_ceil(KIB)),
        _ => format!("{} MiB", bytes / KIB / KIB),
    }
}
