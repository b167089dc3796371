//! Finding objects by what users type: a full id, an exact name, or a unique id prefix.

use cluster_model::{Manager, Node, NodeId, Service, State, Task};
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

/// A machine of the cluster.
pub enum Member<'a> {
    Manager(NodeId, &'a Manager),
    Worker(&'a Node),
}

impl Member<'_> {
    fn id(&self) -> NodeId {
        match self {
            Member::Manager(id, _) => *id,
            Member::Worker(node) => node.id,
        }
    }

    fn name(&self) -> &str {
        match self {
            Member::Manager(_, manager) => &manager.name,
            Member::Worker(node) => &node.name,
        }
    }
}

/// A manager or a worker. Both daemons of one machine may have its name: then only ids tell.
pub fn member<'a>(state: &'a State, text: &str) -> Result<Member<'a>, Failure> {
    let managers = state.cluster().into_iter().flat_map(|cluster| &cluster.managers);
    let managers = managers.map(|(id, manager)| Member::Manager(*id, manager));
    let members: Vec<Member<'a>> = managers.chain(state.nodes().map(Member::Worker)).collect();
    let id = text.parse::<NodeId>().ok();
    let exact = |member: &Member<'_>| Some(member.id()) == id || member.name() == text;
    match members.iter().filter(|member| exact(member)).count() {
        0 => by_prefix("node", text, members.into_iter(), |member| member.id().to_string()),
        1 => members.into_iter().find(exact).ok_or_else(|| Failure::not_found("node", text)),
        _ => {
            let ids: Vec<String> =
                members.iter().filter(|member| exact(member)).map(|m| m.id().to_string()).collect();
            let message =
                format!("a manager and a worker are both called that: {}", ids.join(", "));
            Err(Failure::new(Code::Ambiguous, message))
        }
    }
}

/// A manager, by its id, name or beginning of the id.
pub fn manager(state: &State, text: &str) -> Result<(NodeId, String), Failure> {
    let managers = || state.cluster().into_iter().flat_map(|cluster| &cluster.managers);
    let exact = managers().find(|(id, manager)| {
        manager.name == text || text.parse::<NodeId>().is_ok_and(|asked| asked == **id)
    });
    if let Some((id, manager)) = exact {
        return Ok((*id, manager.name.clone()));
    }
    let found = by_prefix("manager", text, managers(), |(id, _)| id.to_string())?;
    Ok((*found.0, found.1.name.clone()))
}

pub fn task<'a>(state: &'a State, text: &str) -> Result<&'a Task, Failure> {
    if let Some(found) = text.parse().ok().and_then(|id| state.task(id)) {
        return Ok(found);
    }
    by_prefix("task", text, state.tasks(), |task| task.id.to_string())
}

fn by_prefix<T>(
    kind: &str,
    text: &str,
    all: impl Iterator<Item = T>,
    id: impl Fn(&T) -> String,
) -> Result<T, Failure> {
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
