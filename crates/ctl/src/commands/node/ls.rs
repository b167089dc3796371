//! `node ls`

use cluster_pb::control::v1::ListNodesRequest;
use cluster_pb::types::v1::Node;

use crate::Invocation;
use crate::client::Client;
use crate::error::Error;
use crate::output::{Format, Show, Table};
use crate::text::{ago, now_ms};
use crate::view::NodeView;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    show: Show,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let nodes = all(&mut invocation.client()?, args.show.stale).await?;
    let rows: Vec<NodeView> = nodes.into_iter().map(NodeView::from).collect();
    let printer = &mut invocation.printer;
    if args.show.quiet {
        return rows.iter().try_for_each(|row| printer.data(&row.id));
    }
    if args.show.output == Format::Json {
        return printer.json(&rows);
    }
    let mut table = Table::new([
        "ID",
        "NAME",
        "ROLE",
        "STATE",
        "AVAILABILITY",
        "MANAGER STATUS",
        "ADDRESS",
        "TASKS",
        "SINCE",
    ]);
    let now = now_ms();
    for row in rows {
        let (availability, tasks) = match row.role.as_str() {
            "manager" => (String::new(), String::new()),
            _ => (row.availability, row.tasks.to_string()),
        };
        let since = match row.state_since_ms {
            0 => String::new(),
            ms => ago(ms, now),
        };
        let state = match row.message.as_str() {
            "" => row.state,
            message => format!("{} ({message})", row.state),
        };
        table.row([
            row.id,
            row.name,
            row.role,
            state,
            availability,
            row.manager_status,
            row.address,
            tasks,
            since,
        ]);
    }
    printer.table(&table)
}

async fn all(client: &mut Client, stale: bool) -> Result<Vec<Node>, Error> {
    let mut nodes = Vec::new();
    let mut after = String::new();
    loop {
        let page = client.list_nodes(ListNodesRequest { stale, after, limit: 0 }).await?;
        nodes.extend(page.nodes);
        if page.next.is_empty() {
            return Ok(nodes);
        }
        after = page.next;
    }
}
