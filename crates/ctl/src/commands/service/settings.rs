//! Flags that `service create` and `service update` share: fields with one value. What is not
//! given is left as it is; an empty text takes a setting back.

use clap::ValueEnum;
use cluster_pb::types::v1 as pb;

use crate::values::amount::{Attempts, attempts, bytes, cpus, replicas};
use crate::values::duration::{Delay, delay, milliseconds};
use crate::values::words::{Words, words};

#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Number of tasks
    #[arg(long, value_name = "N", value_parser = replicas, allow_negative_numbers = true)]
    pub replicas: Option<u32>,

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

    /// Most CPU a task may use, in cores
    #[arg(long, value_name = "CORES", value_parser = cpus, allow_negative_numbers = true)]
    limit_cpu: Option<u64>,

    /// Most memory a task may use, such as 64M
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_negative_numbers = true)]
    limit_memory: Option<u64>,

    /// CPU set aside for each task on its node, in cores
    #[arg(long, value_name = "CORES", value_parser = cpus, allow_negative_numbers = true)]
    reserve_cpu: Option<u64>,

    /// Memory set aside for each task on its node, such as 64M
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_negative_numbers = true)]
    reserve_memory: Option<u64>,

    /// When a task that ended by itself is replaced (default: any)
    #[arg(long, value_name = "WHEN")]
    restart_condition: Option<Condition>,

    /// Time before each replacement, or backoff: at once, then 1s, 2s, 4s … (default: backoff)
    #[arg(long, value_name = "DURATION", value_parser = delay)]
    restart_delay: Option<Delay>,

    /// Replacements allowed in one slot, or unlimited (default: unlimited)
    #[arg(long, value_name = "N", value_parser = attempts, allow_negative_numbers = true)]
    restart_max_attempts: Option<Attempts>,

    /// Time between the stop signal and SIGKILL (default: 10s)
    #[arg(long, value_name = "DURATION", value_parser = milliseconds)]
    stop_grace_period: Option<u64>,

    /// Signal that asks a task to stop (default: the image's, else SIGTERM)
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Condition {
    None,
    OnFailure,
    Any,
}

impl Settings {
    /// Writes what was given into the spec.
    pub fn apply(&self, spec: &mut pb::ServiceSpec) {
        put(&mut spec.replicas, self.replicas);
        let task = spec.task.get_or_insert_default();
        self.apply_container(task.container.get_or_insert_default());
        let limits = task.limits.get_or_insert_default();
        put(&mut limits.cpu_nanos, self.limit_cpu);
        put(&mut limits.memory_bytes, self.limit_memory);
        let reservations = task.reservations.get_or_insert_default();
        put(&mut reservations.cpu_nanos, self.reserve_cpu);
        put(&mut reservations.memory_bytes, self.reserve_memory);
        self.apply_restart(task.restart.get_or_insert_default());
    }

    fn apply_container(&self, container: &mut pb::ContainerSpec) {
        put(&mut container.entrypoint, self.entrypoint.clone().map(|words| words.0));
        put(&mut container.read_only, self.read_only);
        put_text(&mut container.workdir, &self.workdir);
        put_text(&mut container.user, &self.user);
        put_text(&mut container.hostname, &self.hostname);
        put_text(&mut container.stop_signal, &self.stop_signal);
        put(&mut container.stop_grace_period_ms, self.stop_grace_period.map(Some));
    }

    fn apply_restart(&self, restart: &mut pb::RestartPolicy) {
        use pb::restart_policy::Condition as Wire;
        if let Some(condition) = self.restart_condition {
            restart.set_condition(match condition {
                Condition::None => Wire::None,
                Condition::OnFailure => Wire::OnFailure,
                Condition::Any => Wire::Any,
            });
        }
        match self.restart_delay {
            Some(Delay::BackOff) => restart.delay_ms = None,
            Some(Delay::Fixed(ms)) => restart.delay_ms = Some(ms),
            None => {}
        }
        match self.restart_max_attempts {
            Some(Attempts::Unlimited) => restart.max_attempts = None,
            Some(Attempts::AtMost(count)) => restart.max_attempts = Some(count),
            None => {}
        }
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
