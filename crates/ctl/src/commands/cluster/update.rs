//! `cluster update --strategy spread|bin-pack`

use cluster_pb::control::v1::{GetClusterRequest, UpdateClusterRequest};

use crate::Invocation;
use crate::commands::service::Strategy;
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where new tasks go, unless their service says otherwise: spread: the emptiest nodes first;
    /// bin-pack: the fullest that have room
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
