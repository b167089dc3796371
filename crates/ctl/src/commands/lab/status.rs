//! `lab status`

use std::time::Duration;

use cluster_lab::{Lab, NodeStatus};
use cluster_pb::control::v1::GetClusterRequest;
use serde::Serialize;

use super::{Which, explain};
use crate::Invocation;
use crate::client::Client;
use crate::contexts;
use crate::error::Error;
use crate::output::{Format, Table};

/// Who leads is worth this much waiting; the rest of the status needs no manager.
const LEADER_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: Which,

    /// How to show it
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Serialize)]
struct Row {
    name: String,
    role: String,
    leader: bool,
    address: String,
    pid: Option<i32>,
    state: String,
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    print(&args.which.open()?, args.output, invocation)
}

pub fn print(lab: &Lab, format: Format, invocation: &mut Invocation) -> Result<(), Error> {
    let nodes = lab.status().map_err(|error| explain(&error))?;
    let leader = match leader(lab) {
        Ok(leader) => leader,
        Err(error) => {
            invocation.printer.say(&format!("notice: who leads is not known: {error}"));
            None
        }
    };
    let rows: Vec<Row> = nodes.into_iter().map(|node| row(node, leader.as_deref())).collect();
    if format == Format::Json {
        return invocation.printer.json(&rows);
    }
    let mut table = Table::new(["NAME", "ROLE", "LEADER", "ADDRESS", "PID", "STATE"]);
    for row in rows {
        let leader = if row.leader { "*" } else { "" };
        let pid = row.pid.map(|pid| pid.to_string()).unwrap_or_default();
        table.row([row.name, row.role, leader.to_owned(), row.address, pid, row.state]);
    }
    invocation.printer.table(&table)
}

fn row(node: NodeStatus, leader: Option<&str>) -> Row {
    Row {
        leader: leader == Some(node.name.as_str()),
        name: node.name,
        role: node.role.to_string(),
        address: node.address.to_string(),
        pid: node.pid,
        state: node.state.to_string(),
    }
}

fn leader(lab: &Lab) -> Result<Option<String>, Error> {
    let context = contexts::load(&lab.context_file())?;
    let mut client = Client::new(&context, LEADER_WITHIN)?;
    let request = GetClusterRequest { stale: true, ..Default::default() };
    let cluster = crate::commands::wait(client.get_cluster(request))?;
    let mut managers = cluster.managers.into_iter();
    Ok(managers.find(|manager| manager.leader).map(|manager| manager.name))
}
