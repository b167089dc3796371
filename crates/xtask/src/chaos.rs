//! `cargo xtask chaos`: a cluster on this machine, broken at random under load, and judged.
//!
//! Builds, starts a lab whose disks can be filled, runs `clusterctl lab chaos` on it, keeps the
//! logs if the verdict is bad, and removes the lab. Ctrl-C ends the faults early; the run is judged
//! and the lab removed all the same.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use cluster_lab::{Lab, LabOptions};
use nix::sys::signal::{SigSet, Signal};

use crate::cargo;
use crate::cluster::Cluster;
use crate::image;
use crate::phases::Phases;
use crate::setup;

/// Room for images, containers and logs; what is not used costs no memory.
const DISK: u64 = 1 << 30;

#[derive(clap::Args)]
pub struct Args {
    /// How long faults are done.
    #[arg(long, default_value = "5")]
    minutes: String,
    /// The same seed does the same faults to the same nodes at the same times.
    #[arg(long)]
    seed: Option<u64>,
    /// Which faults, such as `workers,leader`; `clusterctl lab chaos --help` lists them.
    #[arg(long, value_name = "LIST")]
    kill: Option<String>,
    #[arg(long, default_value_t = 3)]
    managers: usize,
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// The lab's name; labs of different names can run side by side.
    #[arg(long, default_value = "chaos")]
    name: String,
    /// Use the programs in this folder instead of building them.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Leave the lab running at the end; `clusterctl lab down` removes it.
    #[arg(long)]
    keep: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let mut phases = Phases::new();
    phases.run("set-up", || setup::ensure(&[setup::LAB]))?;
    let bin_dir = phases.run("build", || Cluster::build(args.bin_dir.as_deref()))?;
    let archive = phases.run("image", image::build)?;

    // From here on Ctrl-C is for the program we start, which gets it too.
    let mut interrupt = SigSet::empty();
    interrupt.add(Signal::SIGINT);
    interrupt.thread_block().context("blocking Ctrl-C")?;

    let mut options = LabOptions::new(&args.name, &bin_dir);
    options.managers = args.managers;
    options.workers = args.workers;
    options.disk = Some(DISK);
    Lab::remove_in(&options.base, &args.name).context("removing an earlier lab")?;
    let cluster = Cluster::with(&options)?;
    cluster.lab.load_image(&archive).context("loading the image")?;

    let mut command = Command::new(bin_dir.join("clusterctl"));
    command.args(["lab", "chaos", "--name", &args.name, "--minutes", &args.minutes]);
    if let Some(seed) = args.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    if let Some(kill) = &args.kill {
        command.args(["--kill", kill]);
    }
    let judged = command.status().context("running clusterctl lab chaos");
    let good = judged.as_ref().is_ok_and(std::process::ExitStatus::success);
    if !good {
        let folder = cargo::metadata()?.target_directory.join("chaos-logs");
        cluster.save_logs(&folder)?;
        eprintln!("the nodes' logs are in {}", folder.display());
    }
    if args.keep {
        eprintln!("the lab is still up: `clusterctl lab status --name {}`", args.name);
    } else {
        cluster.down()?;
    }
    let status = judged?;
    if status.success() { Ok(()) } else { bail!("chaos found something ({status})") }
}
