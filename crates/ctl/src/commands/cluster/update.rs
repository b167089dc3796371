//! `cluster update --strategy spread|bin-pack`

use cluster_pb::control::v1::{GetClusterRequest, UpdateClusterRequest};

use crate::Invocation;
use crate::commands::service::Strategy;
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which of equally suitable nodes a task gets, unless its service says otherwise. Running
    /// tasks stay where they are
    #[arg(long)]
    strategy: Strategy,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    let cluster = client.get_cluster(GetClusterRequest { stale: false }).await?;
    let strategy = args.strategy.as_str().to_owned();
    let request = UpdateClusterRequest { version: cluster.object_version, strategy };
    client.update_cluster(request).await?;
    invocation.printer.data(&cluster.id)
}
