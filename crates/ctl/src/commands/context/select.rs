//! `context use NAME`

use crate::Invocation;
use crate::contexts::Store;
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The context to use from now on
    name: String,
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    Store::of_user()?.set_current(&args.name)?;
    invocation.printer.data(&args.name)
}
