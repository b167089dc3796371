//! `service ls`

use cluster_pb::control::v1::ListServicesRequest;
use cluster_pb::types::v1::Service;

use crate::Invocation;
use crate::client::Client;
use crate::error::Error;
use crate::output::{Format, Show, Table};
use crate::text::{now_ms, until};
use crate::view::{PortView, ServiceView};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    show: Show,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let services = all(&mut invocation.client()?, args.show.stale).await?;
    let rows: Vec<ServiceView> = services.into_iter().map(ServiceView::from).collect();
    let printer = &mut invocation.printer;
    if args.show.quiet {
        return rows.iter().try_for_each(|row| printer.data(&row.id));
    }
    if args.show.output == Format::Json {
        return printer.json(&rows);
    }
    let mut table = Table::new(["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"]);
    let now = now_ms();
    for row in rows {
        let (mode, replicas, shown) = (mode(&row), replicas(&row, now), ports(&row.ports));
        table.row([row.id, row.name, mode, replicas, row.image, shown]);
    }
    printer.table(&table)
}

fn mode(row: &ServiceView) -> String {
    match row.spec.schedule {
        Some(_) => format!("{} (scheduled)", row.mode),
        None => row.mode.to_owned(),
    }
}

/// How many tasks run and how many there should be, and what else decides that.
pub fn replicas(row: &ServiceView, now: u64) -> String {
    if row.spec.schedule.is_some() {
        return match row.next_launch_ms {
            Some(next) => format!("next {}", until(next, now)),
            None => "no launch to come".to_owned(),
        };
    }
    let counts = match row.run.as_ref() {
        // Of a job, those that are left over may run.
        Some(_) => {
            let left = row.desired.saturating_sub(row.completed);
            let most = match row.spec.max_concurrent {
                0 => left,
                most => left.min(most),
            };
            format!("{}/{most} ({}/{} completed)", row.running, row.completed, row.desired)
        }
        None => format!("{}/{}", row.running, row.desired),
    };
    match (row.spec.task.max_per_node, row.run.as_ref().map(|run| run.outcome.as_str())) {
        (_, Some("failed")) => format!("{counts}, failed"),
        (_, Some("timed-out")) => format!("{counts}, timed out"),
        (0, _) => counts,
        (most, _) => format!("{counts} (max {most} per node)"),
    }
}

/// As Docker writes them.
pub fn ports(ports: &[PortView]) -> String {
    let shown: Vec<String> = ports
        .iter()
        .map(|port| {
            let place = if port.mode == "host" { "node" } else { "*" };
            format!("{place}:{}->{}/{}", port.published, port.target, port.protocol)
        })
        .collect();
    shown.join(", ")
}

async fn all(client: &mut Client, stale: bool) -> Result<Vec<Service>, Error> {
    let mut services = Vec::new();
    let mut after = String::new();
    loop {
        let page = client.list_services(ListServicesRequest { stale, after, limit: 0 }).await?;
        services.extend(page.services);
        if page.next.is_empty() {
            return Ok(services);
        }
        after = page.next;
    }
}
