//! `service rm SERVICE…`

use cluster_pb::control::v1::RemoveServiceRequest;

use super::version::Expected;
use crate::Invocation;
use crate::commands::for_each;
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,

    #[command(flatten)]
    expected: Expected,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let version = args.expected.expect_version;
    if version.is_some() && args.services.len() > 1 {
        return Err(Error::usage("--expect-version: is for one service at a time"));
    }
    let mut client = invocation.client()?;
    for_each(invocation, &args.services, async |invocation, service| {
        let request = RemoveServiceRequest { service: service.clone(), version };
        let id = client.remove_service(request).await?.id;
        invocation.printer.data(&id)
    })
    .await
}
