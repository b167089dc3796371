//! `node rm [--force] NODE…`

use cluster_pb::control::v1::{GetNodeRequest, RemoveNodeRequest};

use super::require_worker;
use crate::Invocation;
use crate::commands::for_each;
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,

    /// Also when the worker is ready; it cannot come back with its old certificate
    #[arg(long, short)]
    force: bool,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    for_each(invocation, &args.nodes, async |invocation, name| {
        let request = GetNodeRequest { node: name.clone(), stale: false };
        let node = client.get_node(request).await?.node.unwrap_or_default();
        require_worker(&node, "removed")?;
        let request = RemoveNodeRequest { node: node.id, force: args.force };
        let id = client.remove_node(request).await?.id;
        invocation.printer.data(&id)
    })
    .await
}
