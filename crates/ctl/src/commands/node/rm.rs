//! `node rm [--force] NODE…`

use cluster_pb::control::v1::{GetNodeRequest, RemoveNodeRequest};

use crate::Invocation;
use crate::commands::for_each;
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,

    /// Also a worker that is ready or a manager that answers; a worker cannot come back with its
    /// old certificate
    #[arg(long, short)]
    force: bool,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    for_each(invocation, &args.nodes, async |invocation, name| {
        let request = GetNodeRequest { node: name.clone(), stale: false };
        let node = client.get_node(request).await?.node.unwrap_or_default();
        let request = RemoveNodeRequest { node: node.id, force: args.force };
        let id = client.remove_node(request).await?.id;
        invocation.printer.data(&id)
    })
    .await
}
