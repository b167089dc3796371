//! The policies of a spec: mode, rollout, disconnect, jobs, placement, health.

use cluster_model::constraint::{Constraint, Key};
use cluster_model::spec::{
    Affinity, AffinityTarget, Amount, Check, Disconnect, FailureAction, Health, JobPolicy, Mode,
    Order, Overlap, PRIORITY_DEFAULT, Placement, Probe, Schedule, Strategy, UpdatePolicy,
};
use cluster_pb::types::v1 as pb;

use super::{DecodeError, port_number, refuse};

/// Launches of a schedule that are kept unless the spec says otherwise.
const KEEP_SUCCEEDED: u32 = 3;
const KEEP_FAILED: u32 = 1;

pub(super) fn mode_from_pb(spec: &pb::ServiceSpec) -> Result<Mode, DecodeError> {
    use pb::service_spec::Mode as Pb;
    let mode = Pb::try_from(spec.mode).map_err(|_| {
        refuse("mode", "is unknown; use replicated, global, replicated-job or global-job")
    })?;
    if spec.max_concurrent != 0 && mode != Pb::ReplicatedJob {
        let problem = format!(
            "is {}, but is only for the mode replicated-job; leave it 0",
            spec.max_concurrent
        );
        return Err(refuse("max_concurrent", problem));
    }
    let counted = matches!(mode, Pb::Unspecified | Pb::Replicated | Pb::ReplicatedJob);
    if !counted && spec.replicas != 0 {
        let problem = format!(
            "is {}, but a global service runs one task on each node; leave it out",
            spec.replicas
        );
        return Err(refuse("replicas", problem));
    }
    Ok(match mode {
        Pb::Unspecified | Pb::Replicated => Mode::Replicated { replicas: spec.replicas },
        Pb::Global => Mode::Global,
        Pb::ReplicatedJob => {
            Mode::ReplicatedJob { completions: spec.replicas, max_concurrent: spec.max_concurrent }
        }
        Pb::GlobalJob => Mode::GlobalJob,
    })
}

pub(super) fn mode_to_pb(mode: Mode) -> (pb::service_spec::Mode, u32) {
    use pb::service_spec::Mode as Pb;
    match mode {
        Mode::Replicated { .. } => (Pb::Replicated, 0),
        Mode::Global => (Pb::Global, 0),
        Mode::ReplicatedJob { max_concurrent, .. } => (Pb::ReplicatedJob, max_concurrent),
        Mode::GlobalJob => (Pb::GlobalJob, 0),
    }
}

/// `2`, `25%`, or nothing for 1.
pub(super) fn amount(field: &str, text: &str) -> Result<Amount, DecodeError> {
    let wrong = || {
        let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
        refuse(field, format!("`{shown}` is neither a number nor a percentage; write 2 or 25%"))
    };
    if text.is_empty() {
        return Ok(Amount::Count(1));
    }
    match text.strip_suffix('%') {
        Some(percent) => percent.parse().map(Amount::Percent).map_err(|_| wrong()),
        None => text.parse().map(Amount::Count).map_err(|_| wrong()),
    }
}

pub(super) fn update_from_pb(
    field: &str,
    policy: Option<pb::UpdatePolicy>,
) -> Result<UpdatePolicy, DecodeError> {
    use pb::update_policy::{FailureAction as PbAction, Order as PbOrder};
    let Some(policy) = policy else { return Ok(UpdatePolicy::default()) };
    let defaults = UpdatePolicy::default();
    let order = PbOrder::try_from(policy.order).map_err(|_| {
        refuse(format!("{field}.order"), "is unknown; use stop-first or start-first")
    })?;
    let action = PbAction::try_from(policy.failure_action).map_err(|_| {
        refuse(format!("{field}.failure_action"), "is unknown; use pause, continue or rollback")
    })?;
    Ok(UpdatePolicy {
        parallelism: amount(&format!("{field}.parallelism"), &policy.parallelism)?,
        delay_ms: policy.delay_ms,
        monitor_ms: policy.monitor_ms.unwrap_or(defaults.monitor_ms),
        order: match order {
            PbOrder::Unspecified | PbOrder::StopFirst => Order::StopFirst,
            PbOrder::StartFirst => Order::StartFirst,
        },
        failure_action: match action {
            PbAction::Unspecified | PbAction::Pause => FailureAction::Pause,
            PbAction::Continue => FailureAction::Continue,
            PbAction::Rollback => FailureAction::Rollback,
        },
        max_failure_ratio_ppm: policy.max_failure_ratio_ppm,
        progress_deadline_ms: match policy.progress_deadline_ms {
            None => defaults.progress_deadline_ms,
            Some(0) => None,
            some => some,
        },
        canary: policy.canary,
        auto_promote: policy.auto_promote,
    })
}

pub(super) fn update_to_pb(policy: &UpdatePolicy) -> pb::UpdatePolicy {
    use pb::update_policy::{FailureAction as PbAction, Order as PbOrder};
    let order = match policy.order {
        Order::StopFirst => PbOrder::StopFirst,
        Order::StartFirst => PbOrder::StartFirst,
    };
    let failure_action = match policy.failure_action {
        FailureAction::Pause => PbAction::Pause,
        FailureAction::Continue => PbAction::Continue,
        FailureAction::Rollback => PbAction::Rollback,
    };
    pb::UpdatePolicy {
        parallelism: policy.parallelism.to_string(),
        delay_ms: policy.delay_ms,
        monitor_ms: Some(policy.monitor_ms),
        order: order.into(),
        failure_action: failure_action.into(),
        max_failure_ratio_ppm: policy.max_failure_ratio_ppm,
        progress_deadline_ms: Some(policy.progress_deadline_ms.unwrap_or(0)),
        canary: policy.canary,
        auto_promote: policy.auto_promote,
    }
}

pub(super) fn disconnect_from_pb(
    policy: Option<pb::Disconnect>,
) -> Result<Disconnect, DecodeError> {
    use pb::disconnect::Policy;
    let Some(pb::Disconnect { policy, after_ms }) = policy else {
        return Ok(Disconnect::default());
    };
    let policy = Policy::try_from(policy)
        .map_err(|_| refuse("disconnect", "is unknown; use replace, wait or stop-after=30s"))?;
    Ok(match policy {
        Policy::Unspecified | Policy::Replace => Disconnect::Replace,
        Policy::Wait => Disconnect::Wait,
        Policy::StopAfter => Disconnect::StopAfter { after_ms },
    })
}

pub(super) fn disconnect_to_pb(policy: Disconnect) -> pb::Disconnect {
    use pb::disconnect::Policy;
    let (policy, after_ms) = match policy {
        Disconnect::Replace => (Policy::Replace, 0),
        Disconnect::Wait => (Policy::Wait, 0),
        Disconnect::StopAfter { after_ms } => (Policy::StopAfter, after_ms),
    };
    pb::Disconnect { policy: policy.into(), after_ms }
}

pub(super) fn priority_from_pb(priority: Option<u32>) -> Result<u8, DecodeError> {
    let Some(priority) = priority else { return Ok(PRIORITY_DEFAULT) };
    match u8::try_from(priority) {
        Ok(priority @ 0..=100) => Ok(priority),
        _ => Err(refuse("priority", format!("{priority} is not 0 to 100; the default is 50"))),
    }
}

pub(super) fn job_from_pb(policy: Option<pb::JobPolicy>) -> Result<JobPolicy, DecodeError> {
    use pb::schedule::Overlap as Pb;
    let Some(policy) = policy else { return Ok(JobPolicy::default()) };
    let schedule = match policy.schedule {
        None => None,
        Some(schedule) => {
            let overlap = Pb::try_from(schedule.overlap).map_err(|_| {
                refuse("job.schedule.overlap", "is unknown; use allow, forbid or replace")
            })?;
            Some(Schedule {
                cron: schedule.cron,
                time_zone: schedule.time_zone,
                overlap: match overlap {
                    Pb::Unspecified | Pb::Forbid => Overlap::Forbid,
                    Pb::Allow => Overlap::Allow,
                    Pb::Replace => Overlap::Replace,
                },
                starting_deadline_ms: schedule.starting_deadline_ms,
                keep_succeeded: schedule.keep_succeeded.unwrap_or(KEEP_SUCCEEDED),
                keep_failed: schedule.keep_failed.unwrap_or(KEEP_FAILED),
            })
        }
    };
    Ok(JobPolicy {
        ttl_after_finished_ms: policy.ttl_after_finished_ms,
        max_run_duration_ms: policy.max_run_duration_ms,
        schedule,
    })
}

pub(super) fn job_to_pb(policy: &JobPolicy) -> pb::JobPolicy {
    use pb::schedule::Overlap as Pb;
    let schedule = policy.schedule.as_ref().map(|schedule| {
        let overlap = match schedule.overlap {
            Overlap::Allow => Pb::Allow,
            Overlap::Forbid => Pb::Forbid,
            Overlap::Replace => Pb::Replace,
        };
        pb::Schedule {
            cron: schedule.cron.clone(),
            time_zone: schedule.time_zone.clone(),
            overlap: overlap.into(),
            starting_deadline_ms: schedule.starting_deadline_ms,
            keep_succeeded: Some(schedule.keep_succeeded),
            keep_failed: Some(schedule.keep_failed),
        }
    });
    pb::JobPolicy {
        ttl_after_finished_ms: policy.ttl_after_finished_ms,
        max_run_duration_ms: policy.max_run_duration_ms,
        schedule,
    }
}

pub fn strategy_from_str(text: &str) -> Result<Strategy, DecodeError> {
    match text {
        "spread" => Ok(Strategy::Spread),
        "bin-pack" => Ok(Strategy::BinPack),
        _ => {
            let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
            Err(refuse("strategy", format!("`{shown}` is unknown; use spread or bin-pack")))
        }
    }
}

pub fn strategy_to_str(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Spread => "spread",
        Strategy::BinPack => "bin-pack",
    }
}

pub(super) fn placement_from_pb(spec: &pb::TaskSpec) -> Result<Placement, DecodeError> {
    let constraints = spec.constraints.iter().enumerate().map(|(place, text)| {
        text.parse::<Constraint>().map_err(|error| refuse(format!("constraints[{place}]"), error))
    });
    let spread_over = spec.spread_over.iter().enumerate().map(|(place, text)| {
        text.parse::<Key>().map_err(|error| refuse(format!("spread_over[{place}]"), error))
    });
    let affinities = spec
        .affinities
        .iter()
        .enumerate()
        .map(|(place, affinity)| affinity_from_pb(&format!("affinities[{place}]"), affinity));
    Ok(Placement {
        constraints: constraints.collect::<Result<_, _>>()?,
        spread_over: spread_over.collect::<Result<_, _>>()?,
        max_per_node: spec.max_per_node,
        strategy: match spec.strategy.as_str() {
            "" => None,
            text => Some(strategy_from_str(text)?),
        },
        affinities: affinities.collect::<Result<_, _>>()?,
    })
}

fn affinity_from_pb(field: &str, affinity: &pb::Affinity) -> Result<Affinity, DecodeError> {
    let target = match (affinity.service.as_str(), affinity.node.as_str()) {
        (service, "") if !service.is_empty() => AffinityTarget::Service(service.to_owned()),
        ("", node) if !node.is_empty() => AffinityTarget::Node(
            node.parse().map_err(|error| refuse(format!("{field}.node"), error))?,
        ),
        _ => {
            return Err(refuse(
                field,
                "names a service or a node condition, one of the two; write for example db, or \
             node.labels.ssd==true",
            ));
        }
    };
    match i8::try_from(affinity.weight) {
        Ok(weight @ (-100..=-1 | 1..=100)) => Ok(Affinity { target, weight }),
        _ => Err(refuse(
            format!("{field}.weight"),
            format!("{} is not -100 to -1 or 1 to 100; write for example 50", affinity.weight),
        )),
    }
}

pub(super) fn affinity_to_pb(affinity: &Affinity) -> pb::Affinity {
    let (service, node) = match &affinity.target {
        AffinityTarget::Service(service) => (service.clone(), String::new()),
        AffinityTarget::Node(constraint) => (String::new(), constraint.to_string()),
    };
    pb::Affinity { service, node, weight: affinity.weight.into() }
}

pub(super) fn health_from_pb(health: Option<pb::Health>) -> Result<Health, DecodeError> {
    let Some(health) = health else { return Ok(Health::default()) };
    let probe = |field: &str, probe: Option<pb::Probe>| {
        probe.map(|probe| probe_from_pb(&format!("health.{field}"), probe)).transpose()
    };
    Ok(Health {
        ignore_image: health.ignore_image,
        startup: probe("startup", health.startup)?,
        liveness: probe("liveness", health.liveness)?,
        readiness: probe("readiness", health.readiness)?,
    })
}

fn probe_from_pb(field: &str, probe: pb::Probe) -> Result<Probe, DecodeError> {
    use pb::probe::Check as Pb;
    let port = |port: u32| port_number(&format!("{field}.port"), port);
    let check = match probe.check {
        Some(Pb::Exec(exec)) => Check::Exec(exec.command),
        Some(Pb::Http(http)) => Check::Http { port: port(http.port)?, path: http.path },
        Some(Pb::Tcp(tcp)) => Check::Tcp { port: port(tcp.port)? },
        None => {
            return Err(refuse(
                field,
                "has nothing to check; give a command, http or tcp, such as http 8080/healthz",
            ));
        }
    };
    let defaults = Probe::new(check);
    Ok(Probe {
        interval_ms: probe.interval_ms.unwrap_or(defaults.interval_ms),
        timeout_ms: probe.timeout_ms.unwrap_or(defaults.timeout_ms),
        retries: probe.retries.unwrap_or(defaults.retries),
        start_period_ms: probe.start_period_ms,
        start_interval_ms: probe.start_interval_ms.unwrap_or(defaults.start_interval_ms),
        ..defaults
    })
}

pub(super) fn health_to_pb(health: &Health) -> pb::Health {
    pb::Health {
        ignore_image: health.ignore_image,
        startup: health.startup.as_ref().map(probe_to_pb),
        liveness: health.liveness.as_ref().map(probe_to_pb),
        readiness: health.readiness.as_ref().map(probe_to_pb),
    }
}

fn probe_to_pb(probe: &Probe) -> pb::Probe {
    use pb::probe::{Check as Pb, Exec, Http, Tcp};
    let check = match &probe.check {
        Check::Exec(command) => Pb::Exec(Exec { command: command.clone() }),
        Check::Http { port, path } => Pb::Http(Http { port: (*port).into(), path: path.clone() }),
        Check::Tcp { port } => Pb::Tcp(Tcp { port: (*port).into() }),
    };
    pb::Probe {
        check: Some(check),
        interval_ms: Some(probe.interval_ms),
        timeout_ms: Some(probe.timeout_ms),
        retries: Some(probe.retries),
        start_period_ms: probe.start_period_ms,
        start_interval_ms: Some(probe.start_interval_ms),
    }
}
