//! `lab logs [-f] NODE`

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use super::{Which, explain, io_error};
use crate::Invocation;
use crate::error::Error;

const POLL: Duration = Duration::from_millis(200);
const CHUNK: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A node, such as manager-1
    node: String,

    /// Go on with what comes, until Ctrl-C
    #[arg(long, short)]
    follow: bool,

    #[command(flatten)]
    which: Which,
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let lab = args.which.open()?;
    // Refuses names of nodes that are not there.
    lab.agent_exit(&args.node).map_err(|error| explain(&error))?;
    let path = lab.log_path(&args.node);
    let mut file = File::open(&path).map_err(|error| io_error("opening", &path, &error))?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk).map_err(|error| io_error("reading", &path, &error))? {
            0 if args.follow => std::thread::sleep(POLL),
            0 => return Ok(()),
            count => invocation.printer.raw(&chunk[..count])?,
        }
    }
}
