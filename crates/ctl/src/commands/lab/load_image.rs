//! `lab load-image ARCHIVE`

use std::path::PathBuf;

use super::{Which, explain};
use crate::Invocation;
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// An OCI or `docker save` archive
    archive: PathBuf,

    #[command(flatten)]
    which: Which,
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let lab = args.which.open()?;
    lab.load_image(&args.archive).map_err(|error| explain(&error))?;
    invocation.printer.say(&format!("every worker has {}", args.archive.display()));
    Ok(())
}
