//! Specs: protobuf <-> model.

use cluster_model::constraint::Constraint;
use cluster_model::spec::{
    ContainerSpec, Mode, Mount, MountKind, PortSpec, Resources, RestartCondition, RestartPolicy,
    ServiceSpec, TaskSpec,
};
use cluster_pb::types::v1 as pb;

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
    let task = spec.task.ok_or_else(|| refuse("task", "is missing"))?;
    let ports = spec.ports.iter().enumerate().map(|(place, port)| port_from_pb(place, port));
    Ok(ServiceSpec {
        name: spec.name,
        labels: spec.labels,
        mode: Mode::Replicated { replicas: spec.replicas },
        task: task_spec_from_pb(task)?,
        ports: ports.collect::<Result<_, _>>()?,
    })
}

pub fn service_spec_to_pb(spec: &ServiceSpec) -> pb::ServiceSpec {
    pb::ServiceSpec {
        name: spec.name.clone(),
        labels: spec.labels.clone(),
        replicas: spec.replicas(),
        task: Some(task_spec_to_pb(&spec.task)),
        ports: spec
            .ports
            .iter()
            .map(|port| pb::PortSpec {
                published: port.published.into(),
                target: port.target.into(),
            })
            .collect(),
    }
}

fn port_from_pb(place: usize, port: &pb::PortSpec) -> Result<PortSpec, DecodeError> {
    let number = |part: &str, value: u32| {
        u16::try_from(value).map_err(|_| {
            refuse(format!("ports[{place}].{part}"), format!("{value} is not a port of 1-65535"))
        })
    };
    Ok(PortSpec {
        published: number("published", port.published)?,
        target: number("target", port.target)?,
    })
}

pub fn task_spec_from_pb(spec: pb::TaskSpec) -> Result<TaskSpec, DecodeError> {
    let container = spec.container.ok_or_else(|| refuse("task.container", "is missing"))?;
    let constraints = spec.constraints.iter().enumerate().map(|(place, text)| {
        text.parse::<Constraint>().map_err(|error| refuse(format!("constraints[{place}]"), error))
    });
    Ok(TaskSpec {
        container: container_from_pb(container)?,
        limits: resources_from_pb(spec.limits),
        reservations: resources_from_pb(spec.reservations),
        restart: restart_from_pb(spec.restart)?,
        constraints: constraints.collect::<Result<_, _>>()?,
        force_update: spec.force_update,
    })
}

pub fn task_spec_to_pb(spec: &TaskSpec) -> pb::TaskSpec {
    pb::TaskSpec {
        container: Some(container_to_pb(&spec.container)),
        limits: Some(resources_to_pb(spec.limits)),
        reservations: Some(resources_to_pb(spec.reservations)),
        restart: Some(restart_to_pb(spec.restart)),
        constraints: spec.constraints.iter().map(ToString::to_string).collect(),
        force_update: spec.force_update,
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
    }
}
