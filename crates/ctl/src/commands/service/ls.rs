//! `service ls`

use cluster_pb::control::v1::ListServicesRequest;
use cluster_pb::types::v1::Service;

use crate::Invocation;
use crate::client::Client;
use crate::error::Error;
use crate::output::{Format, Show, Table};
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
    for row in rows {
        let replicas = format!("{}/{}", row.running, row.replicas);
        let shown = ports(&row.ports);
        table.row([row.id, row.name, row.mode.to_owned(), replicas, row.image, shown]);
    }
    printer.table(&table)
}

/// As Docker writes them.
pub fn ports(ports: &[PortView]) -> String {
    let shown: Vec<String> = ports
        .iter()
        .map(|port| format!("*:{}->{}/{}", port.published, port.target, port.protocol))
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
