//! Objects of the state as users see them: model -> protobuf.

use cluster_model::endpoint::ServiceEndpoints;
use cluster_model::node::{Availability, NodeDescription, NodeState};
use cluster_model::{Node, Service, State, Task};
use cluster_pb::dispatcher::v1 as dispatcher;
use cluster_pb::types::v1 as pb;

use crate::DecodeError;
use crate::spec::{refuse, resources_from_pb, resources_to_pb, service_spec_to_pb};

pub fn service(state: &State, service: &Service) -> pb::Service {
    let mut running = 0;
    let mut outdated = 0;
    for task in state.tasks_of_service(service.id).filter(|task| task.fills_slot()) {
        running += u32::from(task.serves());
        outdated += u32::from(task.revision != service.revision);
    }
    pb::Service {
        id: service.id.to_string(),
        version: service.version,
        created_at_ms: service.created_at_ms,
        updated_at_ms: service.updated_at_ms,
        spec: Some(service_spec_to_pb(&service.spec)),
        revision: service.revision,
        ports: ports(service),
        running,
        desired: service.spec.replicas(),
        outdated,
    }
}

pub fn ports(service: &Service) -> Vec<pb::PortSpec> {
    let port = |port: &cluster_model::PublishedPort| pb::PortSpec {
        published: port.published.into(),
        target: port.target.into(),
    };
    service.ports.iter().map(port).collect()
}

pub fn task(state: &State, task: &Task) -> pb::Task {
    let service = state.service(task.service);
    let spec = service.and_then(|service| service.task_spec(task.revision));
    let node = task.node.and_then(|id| state.node(id));
    let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().unwrap_or("").to_owned();
    pb::Task {
        id: task.id.to_string(),
        service_id: task.service.to_string(),
        service_name: service.map(|service| service.spec.name.clone()).unwrap_or_default(),
        slot: task.slot,
        revision: task.revision,
        version: task.version,
        created_at_ms: task.created_at_ms,
        node_id: task.node.map(|id| id.to_string()).unwrap_or_default(),
        node_name: node.map(|node| node.name.clone()).unwrap_or_default(),
        desired_state: task.desired.to_string(),
        observed_state: task.status.state.to_string(),
        observed_at_ms: task.status.at_ms,
        message: text(&task.status.message),
        error: text(&task.status.error),
        reason: task.reason.to_string(),
        exit_code: task.status.exit_code,
        oom: task.status.oom,
        started_at_ms: task.status.started_at_ms,
        restarts: task.restarts,
        not_before_ms: task.not_before_ms,
        image: spec.map(|spec| spec.container.image.clone()).unwrap_or_default(),
    }
}

pub fn node(state: &State, node: &Node) -> pb::Node {
    let usage = state.usage(node.id);
    pb::Node {
        id: node.id.to_string(),
        version: node.version,
        name: node.name.clone(),
        created_at_ms: node.created_at_ms,
        availability: availability_to_str(node.spec.availability).to_owned(),
        labels: node.spec.labels.clone(),
        state: match node.state {
            NodeState::Unknown => "unknown",
            NodeState::Ready => "ready",
            NodeState::Down => "down",
        }
        .to_owned(),
        message: node.message.to_string(),
        state_since_ms: node.state_since_ms,
        description: Some(description_to_pb(&node.description)),
        reserved: Some(resources_to_pb(usage.reserved)),
        tasks: usage.tasks,
        role: "worker".to_owned(),
        manager_status: String::new(),
    }
}

pub fn availability_to_str(availability: Availability) -> &'static str {
    match availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    }
}

pub fn availability_from_str(text: &str) -> Result<Availability, DecodeError> {
    match text {
        "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => Err(refuse("availability", "is unknown; use active, pause or drain")),
    }
}

pub fn description_to_pb(description: &NodeDescription) -> pb::NodeDescription {
    pb::NodeDescription {
        address: description.address.clone(),
        mesh_port: description.mesh_port.into(),
        os: description.os.clone(),
        arch: description.arch.clone(),
        boot: description.boot,
        capacity: Some(resources_to_pb(description.capacity)),
        labels: description.labels.clone(),
        agent_version: description.agent_version.clone(),
        runtime: description.runtime.clone(),
        notices: description.notices.clone(),
        healthy: description.healthy,
    }
}

pub fn description_from_pb(pb: pb::NodeDescription) -> Result<NodeDescription, DecodeError> {
    let mesh_port = u16::try_from(pb.mesh_port)
        .map_err(|_| refuse("description.mesh_port", format!("{} is not a port", pb.mesh_port)))?;
    if pb.address.parse::<std::net::IpAddr>().is_err() {
        return Err(refuse("description.address", "is not an IP address"));
    }
    cluster_model::validate::labels("description.labels", pb.labels.iter())
        .map_err(|invalid| refuse(invalid.field, invalid.problem))?;
    Ok(NodeDescription {
        address: pb.address,
        mesh_port,
        os: pb.os,
        arch: pb.arch,
        boot: pb.boot,
        capacity: resources_from_pb(pb.capacity),
        labels: pb.labels,
        agent_version: pb.agent_version,
        runtime: pb.runtime,
        notices: pb.notices.into_iter().take(16).collect(),
        healthy: pb.healthy,
    })
}

pub fn endpoints(endpoints: &ServiceEndpoints) -> dispatcher::ServiceEndpoints {
    let port = |port: &cluster_model::PublishedPort| pb::PortSpec {
        published: port.published.into(),
        target: port.target.into(),
    };
    let backend = |backend: &cluster_model::endpoint::Backend| dispatcher::Backend {
        task_id: backend.task.to_string(),
        node_id: backend.node.to_string(),
        address: backend.address.clone(),
        mesh_port: backend.mesh_port.into(),
    };
    dispatcher::ServiceEndpoints {
        service_id: endpoints.service.to_string(),
        service_name: endpoints.name.clone(),
        ports: endpoints.ports.iter().map(port).collect(),
        backends: endpoints.backends.iter().map(backend).collect(),
    }
}
