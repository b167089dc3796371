//! Which nodes are left alone, and since when.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shared by all who do something to nodes and all who judge what nodes do.
#[derive(Debug)]
pub struct Conditions {
    began: Instant,
    nodes: Mutex<BTreeMap<String, State>>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    faults: u32,
    since: Instant,
}

impl Conditions {
    pub fn new() -> Self {
        Self { began: Instant::now(), nodes: Mutex::default() }
    }

    /// A fault meets the node.
    pub fn impair(&self, node: &str) {
        self.change(node, |state| state.faults += 1);
    }

    /// One of its faults is over.
    pub fn recover(&self, node: &str) {
        self.change(node, |state| state.faults = state.faults.saturating_sub(1));
    }

    /// How long nothing was done to the node, nor undone.
    pub fn quiet_for(&self, node: &str) -> Duration {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        match nodes.get(node) {
            Some(state) if state.faults > 0 => Duration::ZERO,
            Some(state) => state.since.elapsed(),
            None => self.began.elapsed(),
        }
    }

    /// Whether a fault is under way there.
    pub fn is_impaired(&self, node: &str) -> bool {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get(node).is_some_and(|state| state.faults > 0)
    }

    fn change(&self, node: &str, change: impl FnOnce(&mut State)) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let new = State { faults: 0, since: Instant::now() };
        let state = nodes.entry(node.to_owned()).or_insert(new);
        change(state);
        state.since = Instant::now();
    }
}

impl Default for Conditions {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_quiet_after_its_last_fault() {
        let conditions = Conditions::new();
        conditions.impair("n");
        conditions.impair("n");
        conditions.recover("n");
        assert!(conditions.is_impaired("n"));
        assert_eq!(conditions.quiet_for("n"), Duration::ZERO);
        conditions.recover("n");
        assert!(!conditions.is_impaired("n"));
        assert!(conditions.quiet_for("n") < Duration::from_secs(5));
    }
}
