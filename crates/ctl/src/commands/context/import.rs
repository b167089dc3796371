//! `context import FILE [--name NAME]`

use std::path::PathBuf;

use crate::Invocation;
use crate::contexts::{self, Store};
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The context file, such as the admin.json in the first manager's data folder
    file: PathBuf,

    /// The name to keep it under; its own when left out
    #[arg(long)]
    name: Option<String>,

    /// Replace a context of that name even when it is of another cluster
    #[arg(long)]
    force: bool,
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut context = contexts::load(&args.file)?;
    if let Some(name) = &args.name {
        context.name.clone_from(name);
    }
    let store = Store::of_user()?;
    store.save(&context, args.force)?;
    store.set_current(&context.name)?;
    invocation.printer.data(&context.name)
}
