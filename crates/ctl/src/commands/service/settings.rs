//! Flags that `service create` and `service update` share: fields with one value. What is not
//! given is left as it is; an empty text takes a setting back.

mod health;
mod jobs;
pub mod placement;
mod restart;
mod rollout;

use cluster_pb::types::v1 as pb;

use crate::error::Error;
use crate::values::amount::{bytes, cpus, replicas};
use crate::values::duration::milliseconds;
use crate::values::words::{Words, words};

/// The groups that these flags form, for flags that exclude them all.
pub const GROUPS: [&str; 12] = [
    "General",
    "Resources",
    "Restart",
    "Update",
    "Canary",
    "Rollback",
    "Probe",
    "Liveness",
    "Readiness",
    "Startup",
    "Placement",
    "Jobs",
];

#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    #[command(flatten)]
    general: General,
    #[command(flatten)]
    resources: Resources,
    #[command(flatten)]
    restart: restart::Restart,
    #[command(flatten)]
    update: rollout::Update,
    #[command(flatten)]
    canary: rollout::Canary,
    #[command(flatten)]
    rollback: rollout::Rollback,
    #[command(flatten)]
    liveness: health::Liveness,
    #[command(flatten)]
    readiness: health::Readiness,
    #[command(flatten)]
    startup: health::Startup,
    #[command(flatten)]
    placement: placement::Placement,
    #[command(flatten)]
    jobs: jobs::Jobs,
}

#[derive(Clone, Debug, clap::Args)]
struct General {
    /// Number of tasks; of a replicated job: of completions (default: 1)
    #[arg(long, value_name = "N", value_parser = replicas, allow_hyphen_values = true)]
    replicas: Option<u32>,

    /// Command that replaces the image's entrypoint, split as a shell would
    #[arg(long, value_name = "COMMAND", value_parser = words)]
    entrypoint: Option<Words>,

    /// Working directory inside the container
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,

    /// User, and perhaps group, to run as
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// The container's host name
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,

    /// Make the container's root file system read-only
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    read_only: Option<bool>,

    /// Time that open connections get to end before the stop signal (default: 0s, and then
    /// at most 0.5s)
    #[arg(long, value_name = "DURATION", value_parser = milliseconds, allow_hyphen_values = true)]
    drain_timeout: Option<u64>,

    /// Time between the stop signal and SIGKILL (default: 10s)
    #[arg(long, value_name = "DURATION", value_parser = milliseconds, allow_hyphen_values = true)]
    stop_grace_period: Option<u64>,

    /// Signal that asks a task to stop (default: the image's, else SIGTERM)
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Resources")]
struct Resources {
    /// Most CPU a task may use, in cores
    #[arg(long, value_name = "CORES", value_parser = cpus, allow_hyphen_values = true)]
    limit_cpu: Option<u64>,

    /// Most memory a task may use, such as 64M
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_hyphen_values = true)]
    limit_memory: Option<u64>,

    /// CPU set aside for each task on its node, in cores
    #[arg(long, value_name = "CORES", value_parser = cpus, allow_hyphen_values = true)]
    reserve_cpu: Option<u64>,

    /// Memory set aside for each task on its node, such as 64M
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_hyphen_values = true)]
    reserve_memory: Option<u64>,
}

impl Settings {
    /// Writes what was given into the spec.
    pub fn apply(&self, spec: &mut pb::ServiceSpec) -> Result<(), Error> {
        if self.general.replicas.is_some() && is_global(spec) {
            return Err(Error::usage(
                "--replicas: a global service runs one task on each node; leave the flag out",
            ));
        }
        put(&mut spec.replicas, self.general.replicas);
        let task = spec.task.get_or_insert_default();
        self.general.apply(task);
        self.resources.apply(task);
        self.restart.apply(task.restart.get_or_insert_default());
        self.liveness.apply(task.health.get_or_insert_default())?;
        self.readiness.apply(task.health.get_or_insert_default())?;
        self.startup.apply(task.health.get_or_insert_default())?;
        self.placement.apply(spec);
        self.update.apply(spec.update.get_or_insert_default());
        self.canary.apply(spec.update.get_or_insert_default())?;
        self.rollback.apply(spec.rollback.get_or_insert_default());
        self.jobs.apply(spec)
    }

    /// `--replicas-max-per-node` as given.
    pub fn max_per_node(&self) -> Option<u32> {
        self.placement.max_per_node()
    }

    pub fn has_schedule(&self) -> bool {
        self.jobs.has_schedule()
    }
}

pub fn is_global(spec: &pb::ServiceSpec) -> bool {
    use pb::service_spec::Mode;
    matches!(spec.mode(), Mode::Global | Mode::GlobalJob)
}

impl General {
    fn apply(&self, task: &mut pb::TaskSpec) {
        put(&mut task.drain_timeout_ms, self.drain_timeout);
        let container = task.container.get_or_insert_default();
        put(&mut container.entrypoint, self.entrypoint.clone().map(|words| words.0));
        put(&mut container.read_only, self.read_only);
        put_text(&mut container.workdir, &self.workdir);
        put_text(&mut container.user, &self.user);
        put_text(&mut container.hostname, &self.hostname);
        put_text(&mut container.stop_signal, &self.stop_signal);
        put(&mut container.stop_grace_period_ms, self.stop_grace_period.map(Some));
    }
}

impl Resources {
    fn apply(&self, task: &mut pb::TaskSpec) {
        let limits = task.limits.get_or_insert_default();
        put(&mut limits.cpu_nanos, self.limit_cpu);
        put(&mut limits.memory_bytes, self.limit_memory);
        let reservations = task.reservations.get_or_insert_default();
        put(&mut reservations.cpu_nanos, self.reserve_cpu);
        put(&mut reservations.memory_bytes, self.reserve_memory);
    }
}

fn put<T>(field: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *field = value;
    }
}

fn put_text(field: &mut Option<String>, given: &Option<String>) {
    match given.as_deref() {
        Some("") => *field = None,
        Some(text) => *field = Some(text.to_owned()),
        None => {}
    }
}
