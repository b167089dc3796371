//! `cluster snapshot restore FILE`: checks the file, then has `cluster-manager recover` make a
//! manager of it. Never into a cluster that runs: what its managers and workers know would be
//! another history than the file's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Invocation;
use crate::error::Error;

const PROGRAM: &str = "cluster-manager";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file that `cluster snapshot save` or a manager's schedule wrote
    file: PathBuf,

    /// Folder for the new manager; it must not hold one yet
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,

    /// Address and port at which others will reach the new manager
    #[arg(long, value_name = "IP:PORT")]
    advertise: SocketAddr,

    /// Name of the new manager [default: the host name]
    #[arg(long)]
    name: Option<String>,

    /// Do it; without, what would be kept and lost is shown
    #[arg(long)]
    yes: bool,
}

pub fn run(args: &Args, _: &mut Invocation) -> Result<(), Error> {
    super::read(&args.file)?;
    let program = program();
    let mut command = Command::new(&program);
    command.arg("recover").arg("--from-snapshot").arg(&args.file);
    command.arg("--data-dir").arg(&args.data_dir);
    command.arg("--advertise").arg(args.advertise.to_string());
    if let Some(name) = &args.name {
        command.arg("--name").arg(name);
    }
    if args.yes {
        command.arg("--yes");
    }
    let status = command.status().map_err(|error| {
        Error::refused(format!("cannot run {}", program.display()))
            .cause(error.to_string())
            .hint("put cluster-manager beside clusterctl or into the PATH of this machine")
    })?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::refused("nothing was restored")),
    }
}

/// Beside this program, or wherever the PATH finds it.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(PROGRAM)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| Path::new(PROGRAM).to_owned())
}
