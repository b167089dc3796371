//! `context renew`

use crate::Invocation;
use crate::contexts;
use crate::error::Error;
use crate::text::moment;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let not_after = renew(invocation).await?;
    let name = contexts::select(&invocation.global)?.name;
    invocation.printer.say(&format!("valid until {}", moment(not_after * 1000)));
    invocation.printer.data(&name)
}

/// Renews the context and keeps it where it was; until when it is good, unix seconds.
pub async fn renew(invocation: &Invocation) -> Result<u64, Error> {
    let path = contexts::selected(&invocation.global)?;
    let context = contexts::load(&path)?;
    let fresh = invocation.client()?.renew(&context).await?;
    fresh.save(&path).map_err(|error| Error::caused(&error))?;
    let identity = fresh.identity().map_err(|error| Error::caused(&error))?;
    identity.not_after().map_err(|error| Error::caused(&error))
}
