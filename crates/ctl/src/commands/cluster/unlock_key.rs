//! `cluster unlock-key [--rotate]`

use cluster_pb::control::v1::GetUnlockKeyRequest;

use crate::Invocation;
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Make a new key; managers that run lock with it at once, one that is off still needs the one
    /// from before, once
    #[arg(long)]
    rotate: bool,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let request = GetUnlockKeyRequest { rotate: args.rotate };
    let key = invocation.client()?.get_unlock_key(request).await?.unlock_key;
    invocation.printer.data(&key)
}
