//! Specs: protobuf <-> model.

use cluster_model::spec::{
    ContainerSpec, HostPort, Mount, MountKind, PortSpec, Resources, RestartCondition,
    RestartPolicy, ServiceSpec, TaskSpec,
};
use cluster_pb::types::v1 as pb;

mod policy;

pub use policy::{strategy_from_str, strategy_to_str};

/// Grace given to a container between its stop signal and SIGKILL when the spec names none.
pub const STOP_GRACE_PERIOD_MS: u64 = 10_000;

/// A field that does not decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: {problem}")]
pub struct DecodeError {
    pub field: String,
    pub problem: String,
}

pub(crate) fn refuse(field: impl Into<String>, problem: impl ToString) -> DecodeError {
    DecodeError { field: field.into(), problem: problem.to_string() }
}

pub fn service_spec_from_pb(spec: pb::ServiceSpec) -> Result<ServiceSpec, DecodeError> {
    let mode = policy::mode_from_pb(&spec)?;
    let task = spec.task.ok_or_else(|| refuse("task", "is missing"))?;
    let mut task = task_spec_from_pb(task)?;
    let mut ports = Vec::new();
    for (place, port) in spec.ports.iter().enumerate() {
        match port.host {
            false => ports.push(port_from_pb(&format!("ports[{place}]"), port)?),
            true => {
                let port = host_port_from_pb(&format!("ports[{place}]"), port)?;
                if !task.host_ports.contains(&port) {
                    task.host_ports.push(port);
                }
            }
        }
    }
    Ok(ServiceSpec {
        name: spec.name,
        labels: spec.labels,
        mode,
        task,
        ports,
        update: policy::update_from_pb("update", spec.update)?,
        rollback: policy::update_from_pb("rollback", spec.rollback)?,
        disconnect: policy::disconnect_from_pb(spec.disconnect)?,
        priority: policy::priority_from_pb(spec.priority)?,
        max_unavailable: policy::amount("max_unavailable", &spec.max_unavailable)?,
        job: policy::job_from_pb(spec.job)?,
    })
}

pub fn service_spec_to_pb(spec: &ServiceSpec) -> pb::ServiceSpec {
    let ports = spec.ports.iter().map(|port| pb::PortSpec {
        published: port.published.into(),
        target: port.target.into(),
        host: false,
    });
    let (mode, max_concurrent) = policy::mode_to_pb(spec.mode);
    pb::ServiceSpec {
        name: spec.name.clone(),
        labels: spec.labels.clone(),
        replicas: spec.replicas(),
        task: Some(task_spec_to_pb(&spec.task)),
        ports: ports.collect(),
        mode: mode.into(),
        max_concurrent,
        update: Some(policy::update_to_pb(&spec.update)),
        rollback: Some(policy::update_to_pb(&spec.rollback)),
        disconnect: Some(policy::disconnect_to_pb(spec.disconnect)),
        priority: Some(spec.priority.into()),
        max_unavailable: spec.max_unavailable.to_string(),
        job: Some(policy::job_to_pb(&spec.job)),
    }
}

fn port_from_pb(field: &str, port: &pb::PortSpec) -> Result<PortSpec, DecodeError> {
    Ok(PortSpec {
        published: port_number(&format!("{field}.published"), port.published)?,
        target: port_number(&format!("{field}.target"), port.target)?,
    })
}

fn host_port_from_pb(field: &str, port: &pb::PortSpec) -> Result<HostPort, DecodeError> {
    let PortSpec { published, target } = port_from_pb(field, port)?;
    Ok(HostPort { published, target })
}

pub(crate) fn port_number(field: &str, value: u32) -> Result<u16, DecodeError> {
    u16::try_from(value).map_err(|_| refuse(field, format!("{value} is not a port of 1-65535")))
}

pub fn task_spec_from_pb(spec: pb::TaskSpec) -> Result<TaskSpec, DecodeError> {
    let placement = policy::placement_from_pb(&spec)?;
    let container = spec.container.ok_or_else(|| refuse("task.container", "is missing"))?;
    let host_ports = spec
        .host_ports
        .iter()
        .enumerate()
        .map(|(place, port)| host_port_from_pb(&format!("host_ports[{place}]"), port));
    Ok(TaskSpec {
        container: container_from_pb(container)?,
        limits: resources_from_pb(spec.limits),
        reservations: resources_from_pb(spec.reservations),
        restart: restart_from_pb(spec.restart)?,
        placement,
        force_update: spec.force_update,
        generic: spec.generic,
        host_ports: host_ports.collect::<Result<_, _>>()?,
        health: policy::health_from_pb(spec.health)?,
        drain_timeout_ms: spec.drain_timeout_ms,
    })
}

pub fn task_spec_to_pb(spec: &TaskSpec) -> pb::TaskSpec {
    let placement = &spec.placement;
    let host_ports = spec.host_ports.iter().map(|port| pb::PortSpec {
        published: port.published.into(),
        target: port.target.into(),
        host: true,
    });
    pb::TaskSpec {
        container: Some(container_to_pb(&spec.container)),
        limits: Some(resources_to_pb(spec.limits)),
        reservations: Some(resources_to_pb(spec.reservations)),
        restart: Some(restart_to_pb(spec.restart)),
        constraints: placement.constraints.iter().map(ToString::to_string).collect(),
        force_update: spec.force_update,
        spread_over: placement.spread_over.iter().map(ToString::to_string).collect(),
        max_per_node: placement.max_per_node,
        strategy: placement.strategy.map(policy::strategy_to_str).unwrap_or_default().to_owned(),
        affinities: placement.affinities.iter().map(policy::affinity_to_pb).collect(),
        generic: spec.generic.clone(),
        health: Some(policy::health_to_pb(&spec.health)),
        drain_timeout_ms: spec.drain_timeout_ms,
        host_ports: host_ports.collect(),
    }
}

fn container_from_pb(spec: pb::ContainerSpec) -> Result<ContainerSpec, DecodeError> {
    let env = spec.env.iter().enumerate().map(|(place, pair)| match pair.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(refuse(format!("env[{place}]"), "is not KEY=VALUE")),
    });
    let env = env.collect::<Result<_, _>>()?;
    let mounts =
        spec.mounts.into_iter().enumerate().map(|(place, mount)| mount_from_pb(place, mount));
    Ok(ContainerSpec {
        image: spec.image,
        entrypoint: spec.entrypoint,
        args: spec.args,
        env,
        workdir: spec.workdir,
        user: spec.user,
        hostname: spec.hostname,
        mounts: mounts.collect::<Result<_, _>>()?,
        read_only: spec.read_only,
        stop_signal: spec.stop_signal,
        stop_grace_period_ms: spec.stop_grace_period_ms.unwrap_or(STOP_GRACE_PERIOD_MS),
        labels: spec.labels,
    })
}

fn container_to_pb(spec: &ContainerSpec) -> pb::ContainerSpec {
    pb::ContainerSpec {
        image: spec.image.clone(),
        entrypoint: spec.entrypoint.clone(),
        args: spec.args.clone(),
        env: spec.env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        workdir: spec.workdir.clone(),
        user: spec.user.clone(),
        hostname: spec.hostname.clone(),
        mounts: spec.mounts.iter().map(mount_to_pb).collect(),
        read_only: spec.read_only,
        stop_signal: spec.stop_signal.clone(),
        stop_grace_period_ms: Some(spec.stop_grace_period_ms),
        labels: spec.labels.clone(),
    }
}

fn mount_from_pb(place: usize, mount: pb::Mount) -> Result<Mount, DecodeError> {
    let kind = match mount.kind() {
        pb::mount::Kind::Bind => MountKind::Bind { source: mount.source },
        pb::mount::Kind::Volume => MountKind::Volume { name: mount.source },
        pb::mount::Kind::Tmpfs => MountKind::Tmpfs { size_bytes: mount.size_bytes },
        pb::mount::Kind::Unspecified => {
            return Err(refuse(
                format!("mounts[{place}].type"),
                "is missing; use bind, volume or tmpfs",
            ));
        }
    };
    Ok(Mount { kind, target: mount.target, read_only: mount.read_only })
}

fn mount_to_pb(mount: &Mount) -> pb::Mount {
    let (kind, source, size_bytes) = match &mount.kind {
        MountKind::Bind { source } => (pb::mount::Kind::Bind, source.clone(), 0),
        MountKind::Volume { name } => (pb::mount::Kind::Volume, name.clone(), 0),
        MountKind::Tmpfs { size_bytes } => (pb::mount::Kind::Tmpfs, String::new(), *size_bytes),
    };
    pb::Mount {
        kind: kind.into(),
        source,
        target: mount.target.clone(),
        read_only: mount.read_only,
        size_bytes,
    }
}

pub(crate) fn resources_from_pb(resources: Option<pb::Resources>) -> Resources {
    let resources = resources.unwrap_or_default();
    Resources { cpu_nanos: resources.cpu_nanos, memory_bytes: resources.memory_bytes }
}

pub(crate) fn resources_to_pb(resources: Resources) -> pb::Resources {
    pb::Resources { cpu_nanos: resources.cpu_nanos, memory_bytes: resources.memory_bytes }
}

fn restart_from_pb(policy: Option<pb::RestartPolicy>) -> Result<RestartPolicy, DecodeError> {
    let Some(policy) = policy else { return Ok(RestartPolicy::default()) };
    let condition = pb::restart_policy::Condition::try_from(policy.condition)
        .map_err(|_| refuse("restart.condition", "is unknown; use none, on-failure or any"))?;
    Ok(RestartPolicy {
        condition: match condition {
            pb::restart_policy::Condition::Unspecified | pb::restart_policy::Condition::Any => {
                RestartCondition::Any
            }
            pb::restart_policy::Condition::OnFailure => RestartCondition::OnFailure,
            pb::restart_policy::Condition::None => RestartCondition::None,
        },
        delay_ms: policy.delay_ms,
        max_attempts: policy.max_attempts,
        window_ms: policy.window_ms,
        max_delay_ms: policy.max_delay_ms,
    })
}

fn restart_to_pb(policy: RestartPolicy) -> pb::RestartPolicy {
    let condition = match policy.condition {
        RestartCondition::Any => pb::restart_policy::Condition::Any,
        RestartCondition::OnFailure => pb::restart_policy::Condition::OnFailure,
        RestartCondition::None => pb::restart_policy::Condition::None,
    };
    pb::RestartPolicy {
        condition: condition.into(),
        delay_ms: policy.delay_ms,
        max_attempts: policy.max_attempts,
        window_ms: policy.window_ms,
        max_delay_ms: policy.max_delay_ms,
    }
}

#[cfg(test)]
mod tests;
