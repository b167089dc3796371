//! `cargo xtask bench scale`: builds the managers and the simulated workers, and runs one shape.

use std::path::PathBuf;

use anyhow::Result;

use crate::cargo;

#[derive(clap::Args)]
// The measurement has help of its own.
#[command(disable_help_flag = true)]
pub(super) struct Args {
    /// Use the programs in this folder instead of building them.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Flags of the measurement, such as `--nodes 5000 --managers 3 --shape 1 --output json`; `--help` lists
    /// them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let bin_dir = match &args.bin_dir {
        Some(folder) => folder.clone(),
        None => build()?,
    };
    let mut command = std::process::Command::new(bin_dir.join("cluster-scale"));
    command.arg("--bin-dir").arg(&bin_dir).args(&args.flags);
    cargo::run(&mut command)
}

fn build() -> Result<PathBuf> {
    let mut command = cargo::cargo(["build", "--release", "--quiet"]);
    command.args(["--package", "cluster-manager", "--bin", "cluster-manager"]);
    command.args(["--package", "cluster-scale", "--bin", "cluster-scale"]);
    cargo::run(&mut command)?;
    Ok(cargo::metadata()?.target_directory.join("release"))
}
