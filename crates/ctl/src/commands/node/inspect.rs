//! `node inspect NODE`

use std::collections::BTreeMap;

use cluster_pb::control::v1::GetNodeRequest;

use crate::Invocation;
use crate::error::Error;
use crate::output::{Format, Show, pairs};
use crate::text::{bytes, cores, moment};
use crate::view::{GenericView, NodeView};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id or beginning of the id
    node: String,

    #[command(flatten)]
    show: Show,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let request = GetNodeRequest { node: args.node.clone(), stale: args.show.stale };
    let answer = invocation.client()?.get_node(request).await?;
    let view = NodeView::from(answer.node.unwrap_or_default());
    if args.show.quiet {
        return invocation.printer.data(&view.id);
    }
    if args.show.output == Format::Json {
        return invocation.printer.json(&view);
    }
    invocation.printer.raw(describe(view).as_bytes())
}

fn describe(view: NodeView) -> String {
    let is_worker = view.role == "worker";
    let worker_only = |text: String| if is_worker { text } else { String::new() };
    let amounts =
        |cpu: u64, memory: u64| worker_only(format!("{} cores, {}", cores(cpu), bytes(memory)));
    let generic: Vec<String> = view.generic.iter().map(generic).collect();
    pairs(&[
        ("id", view.id),
        ("name", view.name),
        ("role", view.role.clone()),
        ("state", view.state),
        ("message", view.message),
        ("manager status", view.manager_status),
        ("availability", worker_only(view.availability)),
        ("drain deadline", view.drain_deadline_ms.map(moment).unwrap_or_default()),
        ("drain waits for", view.drain_waits.join("; ")),
        ("address", view.address),
        ("mesh port", worker_only(view.mesh_port.to_string())),
        ("tasks", worker_only(view.tasks.to_string())),
        ("capacity", amounts(view.capacity.cpu_nanos, view.capacity.memory_bytes)),
        ("reserved", amounts(view.reserved.cpu_nanos, view.reserved.memory_bytes)),
        ("generic", generic.join(", ")),
        ("labels", labels(&view.labels)),
        ("engine labels", labels(&view.engine_labels)),
        ("platform", worker_only(format!("{}/{}", view.os, view.arch))),
        ("agent", view.agent_version),
        ("runtime", view.runtime),
        ("notices", view.notices.join("; ")),
        ("joined", moment(view.created_at_ms)),
    ])
}

fn generic(resource: &GenericView) -> String {
    match resource.names.as_slice() {
        [] => format!("{} {}", resource.count, resource.kind),
        names => format!("{} {}: {}", resource.count, resource.kind, names.join(" ")),
    }
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    let shown: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    shown.join(", ")
}
