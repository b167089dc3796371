//! Objects of the state as users see them: model -> protobuf.

use cluster_model::endpoint::{Backend, ServiceEndpoints};
use cluster_model::node::{Availability, Generic, NodeDescription, NodeState};
use cluster_model::service::Event;
use cluster_model::spec::Mode;
use cluster_model::{
    Desired, JobOutcome, JobRun, Node, PublishedPort, Reason, Revision, Rollout, RolloutKind,
    RolloutState, Service, State, Task,
};
use cluster_pb::dispatcher::v1 as dispatcher;
use cluster_pb::types::v1 as pb;

use crate::DecodeError;
use crate::spec::{
    refuse, resources_from_pb, resources_to_pb, service_spec_to_pb, task_spec_to_pb,
};

/// Kinds of generic resources that one node may have.
const GENERIC_KINDS_MAX: usize = 64;

/// How the tasks of a service stand. It follows from the service, its tasks and their nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub running: u32,
    pub outdated: u32,
    /// Done what they are for, in the present revision.
    pub completed: u32,
    pub slots: u32,
}

/// Looks at every task of a service.
pub fn counts(state: &State, service: &Service) -> Counts {
    let mut counts = Counts::default();
    let mut last_slot = None;
    for task in state.tasks_of_service(service.id) {
        let done = task.reason == Reason::Completed && task.revision == service.revision;
        counts.completed += u32::from(done);
        if task.fills_slot() {
            // Two tasks of a slot may run beside each other during an update.
            counts.slots += u32::from(last_slot.replace(task.slot) != Some(task.slot));
            counts.running += u32::from(runs(state, task));
            counts.outdated += u32::from(state.is_outdated(service, task));
        }
    }
    counts
}

pub fn service(state: &State, service: &Service) -> pb::Service {
    service_with(state, service, counts(state, service))
}

/// The same where the tasks have been counted already.
pub fn service_with(state: &State, service: &Service, counts: Counts) -> pb::Service {
    let mode = service.spec.mode;
    let Counts { running, outdated, completed, slots } = counts;
    let desired = match mode {
        Mode::Replicated { replicas } => replicas,
        Mode::ReplicatedJob { completions, .. } => completions,
        Mode::Global => slots.max(eligible(state, service)),
        Mode::GlobalJob => (slots + completed).max(eligible(state, service)),
    };
    pb::Service {
        id: service.id.to_string(),
        version: service.version,
        created_at_ms: service.created_at_ms,
        updated_at_ms: service.updated_at_ms,
        spec: Some(service_spec_to_pb(&service.spec)),
        revision: service.revision,
        ports: ports(service),
        running,
        desired,
        outdated,
        rollout: service.rollout.as_ref().map(rollout),
        previous: service.previous.unwrap_or(0),
        completed,
        run: mode.is_job().then(|| job_run(service.run)),
        parent_id: service.parent.map(|id| id.to_string()).unwrap_or_default(),
        // Only the planner knows calendars.
        next_launch_ms: 0,
        last_launch_ms: match service.spec.job.schedule {
            Some(_) => service.last_launch_ms,
            None => 0,
        },
        events: service.events.iter().map(event).collect(),
    }
}

/// Nodes that take a task of a service with a slot for each node.
fn eligible(state: &State, service: &Service) -> u32 {
    let Some(spec) = service.task_spec(service.revision) else { return 0 };
    let takes = |node: &&Node| node.accepts_tasks() && spec.placement.admits(node);
    u32::try_from(state.nodes().filter(takes).count()).unwrap_or(u32::MAX)
}

/// The task does what it is for, on a node that is heard.
fn runs(state: &State, task: &Task) -> bool {
    task.serves() && task.node.is_some_and(|node| !state.is_down(node))
}

pub fn event(event: &Event) -> pb::Event {
    pb::Event { at_ms: event.at_ms, text: event.text.to_string() }
}

fn rollout(rollout: &Rollout) -> pb::Rollout {
    pb::Rollout {
        kind: match rollout.kind {
            RolloutKind::Update => "update",
            RolloutKind::Rollback => "rollback",
        }
        .to_owned(),
        state: match rollout.state {
            RolloutState::Running => "running",
            RolloutState::AwaitingPromotion => "awaiting-promotion",
            RolloutState::PausedByUser => "paused-by-user",
            RolloutState::Paused => "paused",
            RolloutState::Completed => "completed",
        }
        .to_owned(),
        from: rollout.from,
        to: rollout.to,
        started_at_ms: rollout.started_at_ms,
        since_ms: rollout.since_ms,
        total: rollout.total,
        failures: rollout.failures,
        done: rollout.done,
        promoted: rollout.promoted,
        message: rollout.message.to_string(),
    }
}

fn job_run(run: JobRun) -> pb::JobRun {
    pb::JobRun {
        started_at_ms: run.started_at_ms,
        finished_at_ms: run.finished_at_ms,
        outcome: match run.outcome {
            JobOutcome::Unfinished => "unfinished",
            JobOutcome::Succeeded => "succeeded",
            JobOutcome::Failed => "failed",
            JobOutcome::TimedOut => "timed-out",
        }
        .to_owned(),
    }
}

/// The kept revisions of a service, the newest first.
pub fn revisions(state: &State, service: &Service) -> Vec<pb::Revision> {
    let tasks = |number: u32| {
        let tasks = state.tasks_of_service(service.id);
        let count = tasks.filter(|task| task.fills_slot() && task.revision == number).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let revision = |(number, revision): (&u32, &Revision)| pb::Revision {
        number: *number,
        created_at_ms: revision.created_at_ms,
        task: Some(task_spec_to_pb(&revision.task)),
        current: *number == service.revision,
        previous: Some(*number) == service.previous,
        tasks: tasks(*number),
    };
    service.revisions.iter().rev().map(revision).collect()
}

pub fn ports(service: &Service) -> Vec<pb::PortSpec> {
    let port = |port: &cluster_model::PublishedPort| pb::PortSpec {
        published: port.published.into(),
        target: port.target.into(),
        host: false,
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
        message: text(&task.status.details.message),
        error: text(&task.status.details.error),
        reason: task.reason.to_string(),
        exit_code: task.status.details.exit_code,
        oom: task.status.oom,
        started_at_ms: task.status.started_at_ms,
        restarts: task.restarts,
        not_before_ms: task.extras.not_before_ms,
        image: spec.map(|spec| spec.container.image.clone()).unwrap_or_default(),
        ready: task.status.ready,
        beside: task.extras.beside.map(|id| id.to_string()).unwrap_or_default(),
        crash_loop: task.reason == Reason::Restart
            && task.restarts > 1
            && task.desired == Desired::Ready,
        target_node_name: task
            .extras
            .target
            .and_then(|id| state.node(id))
            .map(|node| node.name.clone())
            .unwrap_or_default(),
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
        state: node_state_to_str(node.state).to_owned(),
        message: node.message.to_string(),
        state_since_ms: node.state_since_ms,
        description: Some(description_to_pb(&node.description)),
        reserved: Some(resources_to_pb(usage.reserved)),
        tasks: usage.tasks,
        role: "worker".to_owned(),
        manager_status: String::new(),
        drain_deadline_ms: match node.spec.availability {
            Availability::Drain => node.spec.drain.deadline_at_ms.unwrap_or(0),
            _ => 0,
        },
        // Only the planner knows what a drain waits for.
        drain_waits: Vec::new(),
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
        generic: description.generic.iter().map(generic_to_pb).collect(),
    }
}

fn generic_to_pb((kind, generic): (&String, &Generic)) -> pb::GenericResource {
    let (count, names) = match generic {
        Generic::Count(count) => (*count, Vec::new()),
        Generic::Named(names) => (0, names.clone()),
    };
    pb::GenericResource { kind: kind.clone(), count, names }
}

fn generic_from_pb(pb: pb::GenericResource) -> (String, Generic) {
    let generic = match pb.names.is_empty() {
        true => Generic::Count(pb.count),
        false => Generic::Named(pb.names),
    };
    (pb.kind, generic)
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
        generic: pb.generic.into_iter().take(GENERIC_KINDS_MAX).map(generic_from_pb).collect(),
    })
}

pub fn endpoints(endpoints: &ServiceEndpoints) -> dispatcher::ServiceEndpoints {
    dispatcher::ServiceEndpoints {
        service_id: endpoints.service.to_string(),
        service_name: endpoints.name.clone(),
        ports: endpoints.ports.iter().map(mesh_port).collect(),
        backends: endpoints.backends.iter().map(backend).collect(),
        delta: false,
        gone: Vec::new(),
    }
}

/// A change of a service's endpoints, in which nothing has changed yet.
pub fn endpoints_change(service: &Service) -> dispatcher::ServiceEndpoints {
    dispatcher::ServiceEndpoints {
        service_id: service.id.to_string(),
        service_name: service.spec.name.clone(),
        ports: service.ports.iter().map(mesh_port).collect(),
        backends: Vec::new(),
        delta: true,
        gone: Vec::new(),
    }
}

pub fn backend(backend: &Backend) -> dispatcher::Backend {
    dispatcher::Backend {
        task_id: backend.task.to_string(),
        node_id: backend.node.to_string(),
        address: backend.address.clone(),
        mesh_port: backend.mesh_port.into(),
    }
}

fn mesh_port(port: &PublishedPort) -> pb::PortSpec {
    pb::PortSpec { published: port.published.into(), target: port.target.into(), host: false }
}

pub fn node_state_to_str(state: NodeState) -> &'static str {
    match state {
        NodeState::Unknown => "unknown",
        NodeState::Ready => "ready",
        NodeState::Down => "down",
    }
}
