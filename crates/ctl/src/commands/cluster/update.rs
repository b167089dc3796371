//! `cluster update --strategy spread|bin-pack …`

use clap::ArgGroup;
use cluster_pb::control::v1::{GetClusterRequest, UpdateClusterRequest};

use crate::Invocation;
use crate::commands::service::Strategy;
use crate::error::Error;
use crate::values::duration::or_off;

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("setting").multiple(true).args([
    "strategy", "replace_dead_managers_after", "snapshot_every", "snapshot_keep",
])))]
pub struct Args {
    /// Where new tasks go, unless their service says otherwise: spread: the emptiest nodes first;
    /// bin-pack: the fullest that have room
    #[arg(long)]
    strategy: Option<Strategy>,

    /// Let a spare vote in place of a manager that is not heard for so long; off: never
    #[arg(long, value_name = "DURATION|off", value_parser = or_off)]
    replace_dead_managers_after: Option<u64>,

    /// How often every manager writes a snapshot beside its data; off: never
    #[arg(long, value_name = "DURATION|off", value_parser = or_off)]
    snapshot_every: Option<u64>,

    /// How many of these snapshots each manager keeps
    #[arg(long, value_name = "NUMBER")]
    snapshot_keep: Option<u32>,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let strategy = args.strategy.map(|strategy| strategy.as_str().to_owned()).unwrap_or_default();
    let asked = UpdateClusterRequest {
        version: 0,
        strategy,
        replace_dead_managers_after_ms: args.replace_dead_managers_after,
        snapshot_every_ms: args.snapshot_every,
        snapshot_keep: args.snapshot_keep,
    };
    if asked == UpdateClusterRequest::default() {
        let error = Error::usage("no setting is given");
        return Err(error.hint("`clusterctl cluster update --help` lists them"));
    }
    let mut client = invocation.client()?;
    let cluster = client.get_cluster(GetClusterRequest::default()).await?;
    let request = UpdateClusterRequest { version: cluster.object_version, ..asked };
    client.update_cluster(request).await?;
    invocation.printer.data(&cluster.id)
}
