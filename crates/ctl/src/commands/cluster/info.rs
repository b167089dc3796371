//! `cluster info`

use cluster_pb::control::v1::GetClusterRequest;

use crate::Invocation;
use crate::commands::manager::heard;
use crate::error::Error;
use crate::output::{Format, Show, Table, pairs};
use crate::text::{moment, span};
use crate::view::ClusterView;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    show: Show,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let request = GetClusterRequest { stale: args.show.stale, state_hash: !args.show.quiet };
    let cluster = invocation.client()?.get_cluster(request).await?;
    let view = ClusterView::from(cluster);
    if args.show.quiet {
        return invocation.printer.data(&view.id);
    }
    if args.show.output == Format::Json {
        return invocation.printer.json(&view);
    }
    let text = pairs(&[
        ("id", view.id.clone()),
        ("name", view.name.clone()),
        ("created", moment(view.created_at_ms)),
        ("version", view.version.clone()),
        ("storm", view.storm.clone()),
        ("placement", view.strategy.clone()),
        ("services", view.services.to_string()),
        ("tasks", view.tasks.to_string()),
        ("workers", format!("{} of {} ready", view.workers_ready, view.workers)),
        ("heartbeat", format!("{} ms, lease {} ms", view.heartbeat_period_ms, view.lease_ms)),
        ("snapshots", snapshots(&view)),
        ("spares", spares(&view)),
        ("term, index", format!("{}, {}", view.term, view.index)),
        ("state hash", state_hash(&view)),
    ]);
    let mut table = Table::new(["MANAGER", "ID", "ADDRESS", "STATUS", "HEARD", "HOLDS"]);
    for manager in view.managers {
        let answering = if manager.answering { " (answering)" } else { "" };
        let holds = if manager.matched == 0 { String::new() } else { manager.matched.to_string() };
        let heard = heard(&manager);
        table.row([
            manager.name,
            manager.id,
            manager.address,
            format!("{}{answering}", manager.role),
            heard,
            holds,
        ]);
    }
    invocation.printer.raw(format!("{text}\n{table}").as_bytes())?;
    for warning in &view.warnings {
        invocation.printer.say(&format!("warning: {warning}"));
    }
    Ok(())
}

fn snapshots(view: &ClusterView) -> String {
    match view.snapshot_every_ms {
        0 => "off".to_owned(),
        ms => format!("every {}, {} kept", span(ms), view.snapshot_keep),
    }
}

fn state_hash(view: &ClusterView) -> String {
    match view.state_hash.as_str() {
        "" => String::new(),
        hash => format!("{hash} at index {}", view.index),
    }
}

fn spares(view: &ClusterView) -> String {
    match view.replace_dead_managers_after_ms {
        0 => "do not replace dead managers".to_owned(),
        ms => format!("replace dead managers after {}", span(ms)),
    }
}
