//! `cluster ca info`

use cluster_pb::control::v1::{CaRotation, GetSecurityRequest, GetSecurityResponse};
use serde::Serialize;

use crate::Invocation;
use crate::error::Error;
use crate::output::{Format, Show, Table, pairs};
use crate::text::{moment, span};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    show: Show,
}

#[derive(Serialize)]
struct View {
    ca_digest: String,
    ca_not_after: u64,
    cert_validity_s: u64,
    autolock: bool,
    ca_rotated_at_ms: u64,
    removed_nodes: u32,
    rotation: Option<Rotation>,
}

#[derive(Serialize)]
struct Rotation {
    phase: String,
    started_at_ms: u64,
    force: bool,
    done: u32,
    nodes: u32,
    missing: Vec<Missing>,
}

#[derive(Serialize)]
struct Missing {
    id: String,
    name: String,
    role: String,
    state: String,
    waited_for: bool,
}

impl From<CaRotation> for Rotation {
    fn from(rotation: CaRotation) -> Self {
        let missing = rotation.missing.into_iter().map(|node| Missing {
            id: node.id,
            name: node.name,
            role: node.role,
            state: node.state,
            waited_for: node.waited_for,
        });
        Self {
            phase: rotation.phase,
            started_at_ms: rotation.started_at_ms,
            force: rotation.force,
            done: rotation.done,
            nodes: rotation.nodes,
            missing: missing.collect(),
        }
    }
}

impl From<GetSecurityResponse> for View {
    fn from(found: GetSecurityResponse) -> Self {
        Self {
            ca_digest: found.ca_digest,
            ca_not_after: found.ca_not_after,
            cert_validity_s: found.cert_validity_s,
            autolock: found.autolock,
            ca_rotated_at_ms: found.ca_rotated_at_ms,
            removed_nodes: found.revoked,
            rotation: found.rotation.map(Rotation::from),
        }
    }
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let request = GetSecurityRequest { stale: args.show.stale };
    let view = View::from(invocation.client()?.get_security(request).await?);
    if args.show.quiet {
        return invocation.printer.data(&view.ca_digest);
    }
    if args.show.output == Format::Json {
        return invocation.printer.json(&view);
    }
    let replaced = match view.ca_rotated_at_ms {
        0 => "never".to_owned(),
        at => moment(at),
    };
    let change = view.rotation.as_ref().map_or("none".to_owned(), |rotation| {
        let force = if rotation.force { ", absent nodes are left behind" } else { "" };
        format!("{}: {} of {} nodes{force}", rotation.phase, rotation.done, rotation.nodes)
    });
    let text = pairs(&[
        ("digest", view.ca_digest),
        ("valid until", moment(view.ca_not_after.saturating_mul(1000))),
        ("replaced", replaced),
        ("change", change),
        ("certificates", format!("live for {}", span(view.cert_validity_s.saturating_mul(1000)))),
        ("autolock", if view.autolock { "on" } else { "off" }.to_owned()),
        ("removed", format!("{} nodes are refused", view.removed_nodes)),
    ]);
    let missing = view.rotation.map(|rotation| rotation.missing).unwrap_or_default();
    if missing.is_empty() {
        return invocation.printer.raw(text.to_string().as_bytes());
    }
    let mut table = Table::new(["MISSING", "ID", "ROLE", "STATE", "WAITED FOR"]);
    for node in missing {
        let waited_for = if node.waited_for { "yes" } else { "no" }.to_owned();
        table.row([node.name, node.id, node.role, node.state, waited_for]);
    }
    invocation.printer.raw(format!("{text}\n{table}").as_bytes())
}
