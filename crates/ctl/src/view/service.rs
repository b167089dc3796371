//! A service and its spec.

use std::collections::BTreeMap;

use cluster_pb::types::v1 as pb;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct ServiceView {
    pub id: String,
    pub name: String,
    pub mode: &'static str,
    pub replicas: u32,
    pub running: u32,
    /// Tasks that still run an older revision.
    pub outdated: u32,
    pub image: String,
    pub ports: Vec<PortView>,
    pub revision: u32,
    pub version: u64,
    pub created_at_ms: u64,
    pub updated_at_ms: u64,
    pub spec: SpecView,
}

#[derive(Debug, Serialize)]
pub struct SpecView {
    pub labels: BTreeMap<String, String>,
    pub container: ContainerView,
    pub limits: ResourcesView,
    pub reservations: ResourcesView,
    pub restart: RestartView,
    pub constraints: Vec<String>,
    pub force_update: u64,
}

#[derive(Debug, Serialize)]
pub struct ContainerView {
    pub image: String,
    pub entrypoint: Vec<String>,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub hostname: Option<String>,
    pub mounts: Vec<MountView>,
    pub read_only: bool,
    pub stop_signal: Option<String>,
    pub stop_grace_period_ms: u64,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub struct MountView {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub size_bytes: u64,
}

#[derive(Debug, Serialize)]
pub struct RestartView {
    pub condition: &'static str,
    /// Null: the exponential back-off.
    pub delay_ms: Option<u64>,
    /// Null: no limit.
    pub max_attempts: Option<u32>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResourcesView {
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct PortView {
    pub published: u32,
    pub target: u32,
    pub protocol: &'static str,
}

impl From<pb::Service> for ServiceView {
    fn from(service: pb::Service) -> Self {
        let spec = service.spec.unwrap_or_default();
        let task = spec.task.unwrap_or_default();
        let container = task.container.unwrap_or_default();
        let ports = service.ports.iter().map(|port| PortView {
            published: port.published,
            target: port.target,
            protocol: "tcp",
        });
        Self {
            id: service.id,
            name: spec.name,
            mode: "replicated",
            replicas: spec.replicas,
            running: service.running,
            outdated: service.outdated,
            image: container.image.clone(),
            ports: ports.collect(),
            revision: service.revision,
            version: service.version,
            created_at_ms: service.created_at_ms,
            updated_at_ms: service.updated_at_ms,
            spec: SpecView {
                labels: spec.labels,
                container: container.into(),
                limits: task.limits.unwrap_or_default().into(),
                reservations: task.reservations.unwrap_or_default().into(),
                restart: task.restart.unwrap_or_default().into(),
                constraints: task.constraints,
                force_update: task.force_update,
            },
        }
    }
}

impl From<pb::ContainerSpec> for ContainerView {
    fn from(container: pb::ContainerSpec) -> Self {
        Self {
            image: container.image,
            entrypoint: container.entrypoint,
            args: container.args,
            env: container.env,
            workdir: container.workdir,
            user: container.user,
            hostname: container.hostname,
            mounts: container.mounts.into_iter().map(MountView::from).collect(),
            read_only: container.read_only,
            stop_signal: container.stop_signal,
            stop_grace_period_ms: container
                .stop_grace_period_ms
                .unwrap_or(cluster_wire::spec::STOP_GRACE_PERIOD_MS),
            labels: container.labels,
        }
    }
}

impl From<pb::Mount> for MountView {
    fn from(mount: pb::Mount) -> Self {
        let kind = match mount.kind() {
            pb::mount::Kind::Bind => "bind",
            pb::mount::Kind::Volume => "volume",
            pb::mount::Kind::Tmpfs => "tmpfs",
            pb::mount::Kind::Unspecified => "unknown",
        };
        Self {
            kind,
            source: mount.source,
            target: mount.target,
            read_only: mount.read_only,
            size_bytes: mount.size_bytes,
        }
    }
}

impl From<pb::RestartPolicy> for RestartView {
    fn from(policy: pb::RestartPolicy) -> Self {
        use pb::restart_policy::Condition;
        let condition = match policy.condition() {
            Condition::None => "none",
            Condition::OnFailure => "on-failure",
            Condition::Any | Condition::Unspecified => "any",
        };
        Self { condition, delay_ms: policy.delay_ms, max_attempts: policy.max_attempts }
    }
}

impl From<pb::Resources> for ResourcesView {
    fn from(resources: pb::Resources) -> Self {
        Self { cpu_nanos: resources.cpu_nanos, memory_bytes: resources.memory_bytes }
    }
}
