//! `cluster update [--strategy spread|bin-pack] [--cert-validity 24h] [--rotate-data-keys]`

use std::time::Duration;

use cluster_pb::control::v1::{GetClusterRequest, UpdateClusterRequest, UpdateSecurityRequest};

use crate::Invocation;
use crate::commands::service::Strategy;
use crate::error::Error;
use crate::values::duration::duration;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("setting").required(true).multiple(true)
    .args(["strategy", "cert_validity", "rotate_data_keys"])))]
pub struct Args {
    /// Where new tasks go, unless their service says otherwise: spread: the emptiest nodes first;
    /// bin-pack: the fullest that have room
    #[arg(long)]
    strategy: Option<Strategy>,

    /// How long certificates live, such as 24h or 90d; longer ones are replaced soon
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    cert_validity: Option<Duration>,

    /// Every manager encrypts what it writes from now on with a new key of its own
    #[arg(long)]
    rotate_data_keys: bool,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    let cluster = client.get_cluster(GetClusterRequest { stale: false }).await?;
    if args.cert_validity.is_some() || args.rotate_data_keys {
        let request = UpdateSecurityRequest {
            cert_validity_s: args.cert_validity.map(|validity| validity.as_secs()),
            rotate_data_keys: args.rotate_data_keys,
            ..Default::default()
        };
        client.update_security(request).await?;
    }
    if let Some(strategy) = args.strategy {
        let strategy = strategy.as_str().to_owned();
        let request = UpdateClusterRequest { version: cluster.object_version, strategy };
        client.update_cluster(request).await?;
    }
    invocation.printer.data(&cluster.id)
}
