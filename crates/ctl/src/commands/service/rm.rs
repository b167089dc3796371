//! `service rm SERVICE…`

use cluster_pb::control::v1::RemoveServiceRequest;

use crate::Invocation;
use crate::commands::for_each;
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    for_each(invocation, &args.services, async |invocation, service| {
        let request = RemoveServiceRequest { service: service.clone(), version: None };
        let id = client.remove_service(request).await?.id;
        invocation.printer.data(&id)
    })
    .await
}
