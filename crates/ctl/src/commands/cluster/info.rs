//! `cluster info`

use cluster_pb::control::v1::GetClusterRequest;

use crate::Invocation;
use crate::error::Error;
use crate::output::{Format, Show, Table, pairs};
use crate::text::moment;
use crate::view::ClusterView;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    show: Show,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let request = GetClusterRequest { stale: args.show.stale };
    let cluster = invocation.client()?.get_cluster(request).await?;
    let view = ClusterView::from(cluster);
    if args.show.quiet {
        return invocation.printer.data(&view.id);
    }
    if args.show.output == Format::Json {
        return invocation.printer.json(&view);
    }
    let text = pairs(&[
        ("id", view.id),
        ("name", view.name),
        ("created", moment(view.created_at_ms)),
        ("version", view.version),
        ("storm", view.storm),
        ("placement", view.strategy),
        ("services", view.services.to_string()),
        ("tasks", view.tasks.to_string()),
        ("workers", format!("{} of {} ready", view.workers_ready, view.workers)),
        ("heartbeat", format!("{} ms, lease {} ms", view.heartbeat_period_ms, view.lease_ms)),
        ("term, index", format!("{}, {}", view.term, view.index)),
    ]);
    let mut table = Table::new(["MANAGER", "ID", "ADDRESS", "STATUS", "VOTER", "HOLDS"]);
    for manager in view.managers {
        let status = if manager.leader { "leader" } else { "follower" };
        let answering = if manager.answering { " (answering)" } else { "" };
        let holds = if manager.matched == 0 { String::new() } else { manager.matched.to_string() };
        table.row([
            manager.name,
            manager.id,
            manager.address,
            format!("{status}{answering}"),
            if manager.voter { "yes" } else { "no" }.to_owned(),
            holds,
        ]);
    }
    invocation.printer.raw(format!("{text}\n{table}").as_bytes())
}
