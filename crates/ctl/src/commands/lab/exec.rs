//! `lab exec NODE|client -- COMMAND…`

use std::os::unix::process::CommandExt;

use super::{Which, explain};
use crate::error::Error;

/// As shells have it for commands that cannot be run.
const CANNOT_RUN: i32 = 127;

#[derive(Debug, clap::Args)]
#[command(override_usage = "clusterctl lab exec [OPTIONS] NODE|client -- COMMAND [ARG]...")]
pub struct Args {
    /// A node, or `client`
    #[arg(value_name = "NODE|client")]
    place: String,

    /// The command; its exit code becomes ours
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,

    #[command(flatten)]
    which: Which,
}

/// Becomes the command, so that streams, signals and exit code are its own.
pub fn run(args: &Args) -> Result<i32, Error> {
    let lab = args.which.open()?;
    let mut command = lab.command(&args.place, &args.command).map_err(|error| explain(&error))?;
    let error = command.exec();
    let program = args.command.first().map(String::as_str).unwrap_or_default();
    tell(program, &args.place, &error);
    Ok(CANNOT_RUN)
}

fn tell(program: &str, place: &str, error: &std::io::Error) {
    let report = Error::refused(format!("running {program} on {place}")).cause(error.to_string());
    crate::Printer::for_process().error(&report);
}
