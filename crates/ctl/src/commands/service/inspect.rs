//! `service inspect SERVICE`

use std::collections::BTreeMap;

use cluster_pb::control::v1::GetServiceRequest;

use super::ls::ports;
use crate::Invocation;
use crate::error::Error;
use crate::output::{Format, Show, pairs};
use crate::text::{bytes, cores, moment};
use crate::view::{MountView, ResourcesView, RestartView, ServiceView};

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
    invocation.printer.raw(describe(view).as_bytes())
}

fn describe(view: ServiceView) -> String {
    let container = view.spec.container;
    let mounts: Vec<String> = container.mounts.iter().map(mount).collect();
    let outdated = if view.outdated == 0 {
        String::new()
    } else {
        format!(", {} still of an older revision", view.outdated)
    };
    pairs(&[
        ("id", view.id),
        ("name", view.name),
        ("mode", view.mode.to_owned()),
        ("replicas", format!("{} of {} running{outdated}", view.running, view.replicas)),
        ("image", view.image),
        ("entrypoint", container.entrypoint.join(" ")),
        ("args", container.args.join(" ")),
        ("env", container.env.join(", ")),
        ("workdir", container.workdir.unwrap_or_default()),
        ("user", container.user.unwrap_or_default()),
        ("hostname", container.hostname.unwrap_or_default()),
        ("read-only", if container.read_only { "yes".to_owned() } else { String::new() }),
        ("mounts", mounts.join("; ")),
        ("ports", ports(&view.ports)),
        ("limits", resources(&view.spec.limits)),
        ("reservations", resources(&view.spec.reservations)),
        ("restart", restart(&view.spec.restart)),
        ("stop", format!("{} ms of grace", container.stop_grace_period_ms)),
        ("constraints", view.spec.constraints.join(", ")),
        ("labels", labels(&view.spec.labels)),
        ("container labels", labels(&container.labels)),
        ("revision", view.revision.to_string()),
        ("version", view.version.to_string()),
        ("created", moment(view.created_at_ms)),
        ("updated", moment(view.updated_at_ms)),
    ])
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
        None => "with back-off".to_owned(),
    };
    let attempts = match policy.max_attempts {
        Some(count) => format!(", at most {count} times"),
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
