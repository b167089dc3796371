//! `service inspect SERVICE`

use std::collections::BTreeMap;

use cluster_pb::control::v1::GetServiceRequest;

use super::ls::{ports, replicas};
use crate::Invocation;
use crate::error::Error;
use crate::output::{Format, Show, pairs};
use crate::text::{ago, bytes, cores, moment, now_ms, one_line, span, until};
use crate::view::{
    AffinityView, DisconnectView, HealthView, MountView, ProbeView, ResourcesView, RestartView,
    RolloutView, RunView, ScheduleView, ServiceView, UpdateView,
};

/// Events shown to people; JSON has all that are kept.
const EVENTS_SHOWN: usize = 10;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id or beginning of the id
    service: String,

    #[command(flatten)]
    show: Show,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let request = GetServiceRequest { service: args.service.clone(), stale: args.show.stale };
    let answer = invocation.client()?.get_service(request).await?;
    let view = ServiceView::from(answer.service.unwrap_or_default());
    if args.show.quiet {
        return invocation.printer.data(&view.id);
    }
    if args.show.output == Format::Json {
        return invocation.printer.json(&view);
    }
    invocation.printer.raw(describe(&view, now_ms()).as_bytes())
}

fn describe(view: &ServiceView, now: u64) -> String {
    let mut text = pairs(&[status(view, now), process(view), policies(view)].concat());
    if !view.events.is_empty() {
        text.push_str("events:\n");
        let last = view.events.iter().rev().take(EVENTS_SHOWN);
        let rows = last.map(|event| (ago(event.at_ms, now), event.text.clone()));
        for (age, told) in rows {
            text.push_str(&format!("  {age:<15} {}\n", one_line(&told)));
        }
    }
    text
}

type Rows = Vec<(&'static str, String)>;

/// How it stands.
fn status(view: &ServiceView, now: u64) -> Rows {
    let outdated = match view.outdated {
        0 => String::new(),
        count => format!(", {count} still of an older revision"),
    };
    let launch = |ms: u64| format!("{} ({})", moment(ms), until(ms, now));
    vec![
        ("id", view.id.clone()),
        ("name", view.name.clone()),
        ("mode", view.mode.to_owned()),
        ("replicas", format!("{}{outdated}", replicas(view, now))),
        ("update status", view.rollout.as_ref().map(|r| rollout(r, now)).unwrap_or_default()),
        ("run", view.run.as_ref().map(|r| run_of(r, now)).unwrap_or_default()),
        ("schedule", view.spec.schedule.as_ref().map(schedule).unwrap_or_default()),
        ("next launch", view.next_launch_ms.map(launch).unwrap_or_default()),
        ("last launch", view.last_launch_ms.map(moment).unwrap_or_default()),
        ("launched by", view.parent_id.clone()),
    ]
}

/// What runs.
fn process(view: &ServiceView) -> Rows {
    let task = &view.spec.task;
    let container = &task.container;
    let mounts: Vec<String> = container.mounts.iter().map(mount).collect();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let generic = task.generic.iter().map(|(kind, count)| format!("{kind}={count}"));
    let reservations: Vec<String> = std::iter::once(resources(&task.reservations))
        .chain(generic)
        .filter(|part| !part.is_empty())
        .collect();
    vec![
        ("image", view.image.clone()),
        ("entrypoint", container.entrypoint.join(" ")),
        ("args", container.args.join(" ")),
        ("env", container.env.join(", ")),
        ("workdir", text(&container.workdir)),
        ("user", text(&container.user)),
        ("hostname", text(&container.hostname)),
        ("read-only", if container.read_only { "yes".to_owned() } else { String::new() }),
        ("mounts", mounts.join("; ")),
        ("ports", ports(&view.ports)),
        ("limits", resources(&task.limits)),
        ("reservations", reservations.join(", ")),
        ("health", health(&task.health)),
        ("readiness", task.health.readiness.as_ref().map(probe).unwrap_or_default()),
        ("startup", task.health.startup.as_ref().map(probe).unwrap_or_default()),
        ("restart", restart(&task.restart)),
        ("stop", stop(view)),
    ]
}

/// How it is looked after.
fn policies(view: &ServiceView) -> Rows {
    let (spec, task) = (&view.spec, &view.spec.task);
    let runs_on = view.run.is_none();
    let policy = |policy: &UpdateView| if runs_on { update(policy) } else { String::new() };
    let optional = |ms: Option<u64>| ms.map(span).unwrap_or_default();
    let affinities: Vec<String> = task.affinities.iter().map(affinity).collect();
    let per_node = match task.max_per_node {
        0 => String::new(),
        most => format!("at most {most}"),
    };
    vec![
        ("update", policy(&spec.update)),
        ("rollback", policy(&spec.rollback)),
        ("silent node", disconnect(&spec.disconnect)),
        ("priority", spec.priority.to_string()),
        ("max unavailable", spec.max_unavailable.clone()),
        ("kept after finish", optional(spec.ttl_after_finished_ms)),
        ("longest run", optional(spec.max_run_duration_ms)),
        ("constraints", task.constraints.join(", ")),
        ("spread over", task.spread_over.join(", ")),
        ("affinities", affinities.join(", ")),
        ("strategy", task.strategy.clone()),
        ("per node", per_node),
        ("labels", labels(&spec.labels)),
        ("container labels", labels(&task.container.labels)),
        ("revision", view.revision.to_string()),
        ("previous revision", view.previous_revision.map(|n| n.to_string()).unwrap_or_default()),
        ("version", view.version.to_string()),
        ("created", moment(view.created_at_ms)),
        ("updated", moment(view.updated_at_ms)),
    ]
}

fn rollout(rollout: &RolloutView, now: u64) -> String {
    let RolloutView { kind, state, from, to, since_ms, total, done, failures, message, .. } =
        rollout;
    let failed = match failures {
        0 => String::new(),
        count => format!(", {count} failed"),
    };
    let told = if message.is_empty() { String::new() } else { format!(": {message}") };
    let since = ago(*since_ms, now);
    format!(
        "{kind} from revision {from} to {to} {state} {since}, {done} of {total} moved{failed}{told}"
    )
}

fn run_of(run: &RunView, now: u64) -> String {
    let started = ago(run.started_at_ms, now);
    match run.finished_at_ms {
        Some(end) => format!("{} {}, began {started}", run.outcome, ago(end, now)),
        None => format!("began {started}"),
    }
}

fn schedule(schedule: &ScheduleView) -> String {
    let ScheduleView { cron, time_zone, overlap, starting_deadline_ms, .. } = schedule;
    let deadline = match starting_deadline_ms {
        Some(ms) => format!(", at most {} late", span(*ms)),
        None => String::new(),
    };
    let (good, bad) = (schedule.keep_succeeded, schedule.keep_failed);
    format!(
        "{cron} in {time_zone}, overlap {overlap}{deadline}, keeps {good} that succeeded and {bad} \
         that failed"
    )
}

fn health(health: &HealthView) -> String {
    match (&health.liveness, health.ignore_image) {
        (Some(liveness), _) => probe(liveness),
        (None, true) => "none, the image's is not honoured".to_owned(),
        (None, false) if health.readiness.is_some() || health.startup.is_some() => String::new(),
        (None, false) => "the image's, if it has one".to_owned(),
    }
}

fn probe(probe: &ProbeView) -> String {
    let what = match (probe.kind, probe.port) {
        ("http", Some(port)) => format!("http {port}{}", probe.path),
        (kind, Some(port)) => format!("{kind} {port}"),
        (_, None) => probe.command.join(" "),
    };
    format!(
        "{what}, every {}, {} of patience, {} retries",
        span(probe.interval_ms),
        span(probe.timeout_ms),
        probe.retries
    )
}

fn stop(view: &ServiceView) -> String {
    let container = &view.spec.task.container;
    let signal = match &container.stop_signal {
        Some(signal) => format!("{signal}, "),
        None => String::new(),
    };
    let drain = match view.spec.task.drain_timeout_ms {
        0 => String::new(),
        ms => format!("{} to end connections, ", span(ms)),
    };
    format!("{drain}{signal}{} ms of grace", container.stop_grace_period_ms)
}

fn update(policy: &UpdateView) -> String {
    let at_once = match policy.parallelism.as_str() {
        "0" => "all".to_owned(),
        amount => amount.to_owned(),
    };
    let mut text = format!("{at_once} at once, {}", policy.order);
    if policy.delay_ms != 0 {
        text.push_str(&format!(", {} between", span(policy.delay_ms)));
    }
    text.push_str(&format!(
        ", watched for {}, {} when more than {}% failed",
        span(policy.monitor_ms),
        policy.failure_action,
        policy.max_failure_ratio * 100.0
    ));
    match policy.progress_deadline_ms {
        Some(ms) => text.push_str(&format!(" or nothing moved for {}", span(ms))),
        None => text.push_str(", no deadline"),
    }
    if policy.canary != 0 {
        let promoted = if policy.auto_promote { "promoted by itself" } else { "promoted by hand" };
        text.push_str(&format!(", canary of {} {promoted}", policy.canary));
    }
    text
}

fn disconnect(policy: &DisconnectView) -> String {
    match policy.after_ms {
        Some(ms) => format!("{} {}", policy.policy, span(ms)),
        None => policy.policy.to_owned(),
    }
}

fn affinity(affinity: &AffinityView) -> String {
    let target = match affinity.service.as_str() {
        "" => affinity.node.clone(),
        service => format!("service={service}"),
    };
    format!("{target} ({})", affinity.weight)
}

fn mount(mount: &MountView) -> String {
    let read_only = if mount.read_only { " (read-only)" } else { "" };
    format!("{} {} on {}{read_only}", mount.kind, mount.source, mount.target).replace("  ", " ")
}

fn resources(resources: &ResourcesView) -> String {
    let mut parts = Vec::new();
    if resources.cpu_nanos != 0 {
        parts.push(format!("{} cores", cores(resources.cpu_nanos)));
    }
    if resources.memory_bytes != 0 {
        parts.push(bytes(resources.memory_bytes));
    }
    parts.join(", ")
}

fn restart(policy: &RestartView) -> String {
    let delay = match policy.delay_ms {
        Some(ms) => format!("after {ms} ms"),
        None if policy.max_delay_ms == 60_000 => "with back-off".to_owned(),
        None => format!("with back-off up to {}", span(policy.max_delay_ms)),
    };
    let window = policy.window_ms.map(|ms| format!(" in {}", span(ms))).unwrap_or_default();
    let attempts = match policy.max_attempts {
        Some(count) => format!(", at most {count} times{window}"),
        None => String::new(),
    };
    match policy.condition {
        "none" => "never".to_owned(),
        condition => format!("{condition}, {delay}{attempts}"),
    }
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    let shown: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests;
