//! A service and its spec.

use std::collections::BTreeMap;

use cluster_pb::types::v1 as pb;
use serde::Serialize;

use super::{
    AffinityView, DisconnectView, EventView, HealthView, RolloutView, RunView, ScheduleView,
    UpdateView,
};

#[derive(Debug, Serialize)]
pub struct ServiceView {
    pub id: String,
    pub name: String,
    /// `replicated`, `global`, `replicated-job` or `global-job`
    pub mode: &'static str,
    /// As asked for; of a replicated job: completions; 0 for global modes.
    pub replicas: u32,
    /// Tasks that there should be: of global modes, one for each node that takes part.
    pub desired: u32,
    pub running: u32,
    /// Of jobs: slots that completed in the present run.
    pub completed: u32,
    /// Tasks that still run an older revision.
    pub outdated: u32,
    pub image: String,
    pub ports: Vec<PortView>,
    pub revision: u32,
    /// Where a rollback goes; null: nowhere.
    pub previous_revision: Option<u32>,
    pub version: u64,
    pub created_at_ms: u64,
    pub updated_at_ms: u64,
    /// The last move between revisions; null before the first.
    pub rollout: Option<RolloutView>,
    /// Of jobs: the present run.
    pub run: Option<RunView>,
    /// The scheduled service that launched this job; empty: none.
    pub parent_id: String,
    pub next_launch_ms: Option<u64>,
    pub last_launch_ms: Option<u64>,
    /// The oldest first.
    pub events: Vec<EventView>,
    pub spec: SpecView,
}

#[derive(Debug, Serialize)]
pub struct SpecView {
    pub labels: BTreeMap<String, String>,
    pub max_concurrent: u32,
    pub update: UpdateView,
    pub rollback: UpdateView,
    pub disconnect: DisconnectView,
    pub priority: u32,
    /// A number or a percentage.
    pub max_unavailable: String,
    pub schedule: Option<ScheduleView>,
    pub ttl_after_finished_ms: Option<u64>,
    pub max_run_duration_ms: Option<u64>,
    #[serde(flatten)]
    pub task: TaskSpecView,
}

/// What a revision numbers.
#[derive(Debug, Serialize)]
pub struct TaskSpecView {
    pub container: ContainerView,
    pub limits: ResourcesView,
    pub reservations: ResourcesView,
    pub restart: RestartView,
    pub constraints: Vec<String>,
    pub spread_over: Vec<String>,
    /// 0: no limit.
    pub max_per_node: u32,
    /// `spread` or `bin-pack`; empty: the cluster's.
    pub strategy: String,
    pub affinities: Vec<AffinityView>,
    pub generic: BTreeMap<String, u64>,
    pub host_ports: Vec<PortView>,
    pub health: HealthView,
    pub drain_timeout_ms: u64,
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
    /// Null: all attempts count.
    pub window_ms: Option<u64>,
    /// Longest wait of the back-off.
    pub max_delay_ms: u64,
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
    /// `ingress` (every worker) or `host` (the task's own node)
    pub mode: &'static str,
}

impl From<&pb::PortSpec> for PortView {
    fn from(port: &pb::PortSpec) -> Self {
        Self {
            published: port.published,
            target: port.target,
            protocol: "tcp",
            mode: if port.host { "host" } else { "ingress" },
        }
    }
}

impl From<pb::Service> for ServiceView {
    fn from(service: pb::Service) -> Self {
        let spec = service.spec.unwrap_or_default();
        let container = spec.task.as_ref().and_then(|task| task.container.as_ref());
        let host_ports = spec.task.as_ref().map(|task| task.host_ports.as_slice());
        let moment = |ms: u64| (ms != 0).then_some(ms);
        Self {
            id: service.id,
            name: spec.name.clone(),
            mode: mode(&spec),
            replicas: spec.replicas,
            desired: service.desired,
            running: service.running,
            completed: service.completed,
            outdated: service.outdated,
            image: container.map(|container| container.image.clone()).unwrap_or_default(),
            ports: service
                .ports
                .iter()
                .chain(host_ports.unwrap_or_default())
                .map(PortView::from)
                .collect(),
            revision: service.revision,
            previous_revision: (service.previous != 0).then_some(service.previous),
            version: service.version,
            created_at_ms: service.created_at_ms,
            updated_at_ms: service.updated_at_ms,
            rollout: service.rollout.map(RolloutView::from),
            run: service.run.map(RunView::from),
            parent_id: service.parent_id,
            next_launch_ms: moment(service.next_launch_ms),
            last_launch_ms: moment(service.last_launch_ms),
            events: service.events.into_iter().map(EventView::from).collect(),
            spec: spec.into(),
        }
    }
}

/// The mode as `--mode` names it.
fn mode(spec: &pb::ServiceSpec) -> &'static str {
    use pb::service_spec::Mode;
    match spec.mode() {
        Mode::Replicated | Mode::Unspecified => "replicated",
        Mode::Global => "global",
        Mode::ReplicatedJob => "replicated-job",
        Mode::GlobalJob => "global-job",
    }
}

impl From<pb::ServiceSpec> for SpecView {
    fn from(spec: pb::ServiceSpec) -> Self {
        let job = spec.job.unwrap_or_default();
        Self {
            labels: spec.labels,
            max_concurrent: spec.max_concurrent,
            update: spec.update.unwrap_or_default().into(),
            rollback: spec.rollback.unwrap_or_default().into(),
            disconnect: spec.disconnect.unwrap_or_default().into(),
            priority: spec.priority.unwrap_or(cluster_model::spec::PRIORITY_DEFAULT.into()),
            max_unavailable: match spec.max_unavailable.as_str() {
                "" => "1".to_owned(),
                amount => amount.to_owned(),
            },
            schedule: job.schedule.map(ScheduleView::from),
            ttl_after_finished_ms: job.ttl_after_finished_ms,
            max_run_duration_ms: job.max_run_duration_ms,
            task: spec.task.unwrap_or_default().into(),
        }
    }
}

impl From<pb::TaskSpec> for TaskSpecView {
    fn from(task: pb::TaskSpec) -> Self {
        Self {
            container: task.container.unwrap_or_default().into(),
            limits: task.limits.unwrap_or_default().into(),
            reservations: task.reservations.unwrap_or_default().into(),
            restart: task.restart.unwrap_or_default().into(),
            constraints: task.constraints,
            spread_over: task.spread_over,
            max_per_node: task.max_per_node,
            strategy: task.strategy,
            affinities: task.affinities.into_iter().map(AffinityView::from).collect(),
            generic: task.generic,
            host_ports: task.host_ports.iter().map(PortView::from).collect(),
            health: task.health.unwrap_or_default().into(),
            drain_timeout_ms: task.drain_timeout_ms,
            force_update: task.force_update,
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
        Self {
            condition,
            delay_ms: policy.delay_ms,
            max_attempts: policy.max_attempts,
            window_ms: policy.window_ms,
            max_delay_ms: policy.max_delay_ms.unwrap_or(60_000),
        }
    }
}

impl From<pb::Resources> for ResourcesView {
    fn from(resources: pb::Resources) -> Self {
        Self { cpu_nanos: resources.cpu_nanos, memory_bytes: resources.memory_bytes }
    }
}
