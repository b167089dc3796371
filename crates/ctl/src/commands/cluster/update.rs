//! `cluster update --strategy spread|bin-pack --cert-validity 24h …`

use std::time::Duration;

use clap::ArgGroup;
use cluster_pb::control::v1::{GetClusterRequest, UpdateClusterRequest, UpdateSecurityRequest};

use crate::Invocation;
use crate::commands::service::Strategy;
use crate::error::Error;
use crate::values::duration::{duration, or_off};

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("setting").multiple(true).args([
    "strategy", "replace_dead_managers_after", "snapshot_every", "snapshot_keep", "cert_validity",
    "rotate_data_keys",
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

    /// How long certificates live, such as 24h or 90d; longer ones are replaced soon
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    cert_validity: Option<Duration>,

    /// Every manager encrypts what it writes from now on with a new key of its own
    #[arg(long)]
    rotate_data_keys: bool,
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
    let secures = args.cert_validity.is_some() || args.rotate_data_keys;
    if asked == UpdateClusterRequest::default() && !secures {
        let error = Error::usage("no setting is given");
        return Err(error.hint("`clusterctl cluster update --help` lists them"));
    }
    let mut client = invocation.client()?;
    let cluster = client.get_cluster(GetClusterRequest::default()).await?;
    if secures {
        let request = UpdateSecurityRequest {
            cert_validity_s: args.cert_validity.map(|validity| validity.as_secs()),
            rotate_data_keys: args.rotate_data_keys,
            ..Default::default()
        };
        client.update_security(request).await?;
    }
    if asked != UpdateClusterRequest::default() {
        let request = UpdateClusterRequest { version: cluster.object_version, ..asked };
        client.update_cluster(request).await?;
    }
    invocation.printer.data(&cluster.id)
}
