//! Finding objects by what users type: a full id, an exact name, or a unique id prefix.

use cluster_model::{Node, Service, State, Task};
use cluster_wire::{Code, Failure};

/// Shortest id prefix that is looked up.
const PREFIX_MIN: usize = 2;

pub fn service<'a>(state: &'a State, text: &str) -> Result<&'a Service, Failure> {
    let live = |service: &&Service| !service.removed;
    if let Some(found) = text.parse().ok().and_then(|id| state.service(id)).filter(live) {
        return Ok(found);
    }
    if let Some(found) = state.service_named(text).and_then(|id| state.service(id)) {
        return Ok(found);
    }
    by_prefix("service", text, state.services().filter(live), |service| service.id.to_string())
}

pub fn node<'a>(state: &'a State, text: &str) -> Result<&'a Node, Failure> {
    if let Some(found) = text.parse().ok().and_then(|id| state.node(id)) {
        return Ok(found);
    }
    if let Some(found) = state.node_named(text).and_then(|id| state.node(id)) {
        return Ok(found);
    }
    by_prefix("node", text, state.nodes(), |node| node.id.to_string())
}

pub fn task<'a>(state: &'a State, text: &str) -> Result<&'a Task, Failure> {
    if let Some(found) = text.parse().ok().and_then(|id| state.task(id)) {
        return Ok(found);
    }
    by_prefix("task", text, state.tasks(), |task| task.id.to_string())
}

fn by_prefix<'a, T>(
    kind: &str,
    text: &str,
    all: impl Iterator<Item = &'a T>,
    id: impl Fn(&T) -> String,
) -> Result<&'a T, Failure> {
    if text.len() < PREFIX_MIN {
        return Err(Failure::not_found(kind, text));
    }
    let mut found = all.filter(|object| id(object).starts_with(text));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Failure::not_found(kind, text)),
        (Some(_), Some(_)) => {
            let shown: String = text.chars().take(20).collect();
            Err(Failure::new(
                Code::Ambiguous,
                format!("several {kind}s have ids that begin with `{shown}`"),
            ))
        }
    }
}
