//! Why a task has no node, for people. The text depends on counts and specs only, so that it stays
//! the same while nothing changes.

use std::sync::Arc;

use cluster_model::State;

use super::filter::{Counts, Refused};

pub fn text(refused: &Counts, state: &State) -> Arc<str> {
    if state.node_count() == 0 {
        return "no suitable node: the cluster has no workers yet".into();
    }
    let parts: Vec<String> = refused.iter().map(|(reason, count)| part(reason, *count)).collect();
    format!("no suitable node: {}", parts.join("; ")).into()
}

fn part(reason: &Refused, count: usize) -> String {
    let (nodes, do_not, have, are) = match count {
        1 => ("1 node", "does not", "has", "is"),
        _ => ("", "do not", "have", "are"),
    };
    let nodes = if nodes.is_empty() { format!("{count} nodes") } else { nodes.to_owned() };
    match reason {
        Refused::Constraint(constraint) => format!("{nodes} {do_not} meet constraint {constraint}"),
        Refused::Cpu { wanted_nanos } => {
            let cores =
                format!("{}.{:03}", wanted_nanos / 1_000_000_000, wanted_nanos / 1_000_000 % 1000);
            format!("{nodes} {have} not enough CPU left (reserves {cores} cores)")
        }
        Refused::Memory { wanted_bytes } => {
            let mebibytes = wanted_bytes / (1024 * 1024);
            format!("{nodes} {have} not enough memory left (reserves {mebibytes} MiB)")
        }
        Refused::Down => format!("{nodes} {are} down"),
        Refused::Unknown => format!("{nodes} {have} joined but not been heard yet"),
        Refused::Drained => format!("{nodes} {are} drained"),
        Refused::Paused => format!("{nodes} {are} paused"),
    }
}
