//! `completions SHELL`

use clap::CommandFactory;
use clap_complete::Shell;

use crate::error::Error;
use crate::{Cli, Invocation};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell to complete for
    shell: Shell,
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "clusterctl", &mut script);
    invocation.printer.raw(&script)
}
