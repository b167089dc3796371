//! What would give a pending task a node.

use cluster_model::constraint::{Constraint, Key, Rule};
use cluster_model::fit::Obstacle;
use cluster_model::spec::TaskSpec;
use cluster_model::{Node, State, Task};

use crate::schedule::{Tally, bytes, cores};

/// Remedies offered.
const REMEDIES_MAX: usize = 8;

pub(super) fn all(view: &State, task: &Task, tally: &Tally<'_>) -> Vec<String> {
    let service = view.service(task.service);
    let name = service.map_or("SERVICE", |service| service.spec.name.as_str());
    let Some(spec) = service.and_then(|service| service.rules_of(task.revision)) else {
        return Vec::new();
    };
    let mut remedies: Vec<String> = tally
        .nodes
        .iter()
        .filter_map(|(obstacle, nodes)| one(view, *obstacle, nodes, spec, name, tally))
        .collect();
    let room = tally.nodes.keys().any(|obstacle| {
        obstacle.is_room() || matches!(obstacle, Obstacle::MaxPerNode | Obstacle::Promised)
    });
    if task.extras.target.is_none() && (room || tally.nodes.is_empty()) && tally.suitable.is_empty()
    {
        remedies.push("add a node: `clusterctl cluster token --role worker` prints how".to_owned());
    }
    remedies.dedup();
    remedies.truncate(REMEDIES_MAX);
    remedies
}

fn one(
    view: &State,
    obstacle: Obstacle,
    nodes: &[&Node],
    spec: &TaskSpec,
    service: &str,
    tally: &Tally<'_>,
) -> Option<String> {
    let node = nodes.first().map_or("NODE", |node| node.name.as_str());
    Some(match obstacle {
        Obstacle::Constraint(place) => constraint(spec.placement.constraints.get(place)?, service),
        Obstacle::Cpu => match tally.most.cpu_nanos / 1_000_000 {
            0 => "free CPU: no node has any left".to_owned(),
            _ => format!("lower --reserve-cpu to at most {}", cores(tally.most.cpu_nanos)),
        },
        Obstacle::Memory => match tally.most.memory_bytes {
            0 => "free memory: no node has any left".to_owned(),
            most => format!("lower --reserve-memory to at most {}", bytes(most)),
        },
        Obstacle::Generic(place) => {
            let (kind, _) = spec.generic.iter().nth(place)?;
            format!("reserve fewer {kind}: at most {} are free on one node", tally.most_generic)
        }
        Obstacle::HostPort(port) => format!("use another host port than {port}"),
        Obstacle::Published(port) => {
            let owner = view.service(view.port_owner(port)?)?;
            format!(
                "use another host port than {port}: every worker listens on it for service {}",
                owner.spec.name
            )
        }
        Obstacle::MaxPerNode => format!(
            "raise the bound: clusterctl service update --replicas-max-per-node {} {service}",
            spec.placement.max_per_node.saturating_add(1)
        ),
        Obstacle::Promised => return None,
        Obstacle::Unhealthy => format!("mend the container runtime of {node}"),
        Obstacle::Down | Obstacle::Unknown => format!("start the worker of {node}"),
        Obstacle::Drained | Obstacle::Paused => {
            format!("activate {node}: clusterctl node update --availability active {node}")
        }
        Obstacle::Target => return None,
    })
}

fn constraint(constraint: &Constraint, service: &str) -> String {
    let label = match &constraint.key {
        Key::NodeLabel(name) => name,
        Key::NodeId
        | Key::NodeHostname
        | Key::NodeIp
        | Key::NodeRole
        | Key::PlatformOs
        | Key::PlatformArch
        | Key::EngineLabel(_) => {
            return format!(
                "add a node with {constraint}, or drop the constraint: clusterctl service update \
                 --constraint-rm '{constraint}' {service}"
            );
        }
    };
    let add = |value: &str| {
        format!("label a node: clusterctl node update --label-add {label}={value} NODE")
    };
    match &constraint.rule {
        Rule::Equal(value) | Rule::AtMost(value) | Rule::AtLeast(value) => add(value),
        Rule::In(values) => add(values.first().map_or("", String::as_str)),
        Rule::Exists => add("true"),
        Rule::Less(_) | Rule::Greater(_) => {
            format!("give a node a label such that {constraint}")
        }
        Rule::NotEqual(_) | Rule::NotIn(_) | Rule::NotExists => {
            format!("take the label from a node: clusterctl node update --label-rm {label} NODE")
        }
    }
}
