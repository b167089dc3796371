//! `context rm NAME…`

use crate::Invocation;
use crate::contexts::Store;
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The contexts to forget
    #[arg(required = true)]
    names: Vec<String>,
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let store = Store::of_user()?;
    for name in &args.names {
        store.remove(name)?;
        invocation.printer.data(name)?;
    }
    Ok(())
}
