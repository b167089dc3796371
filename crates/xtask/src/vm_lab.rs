//! `cargo xtask vm-lab`: a cluster on virtual machines of this computer, and a drill on it.
//!
//! The machines are `crates/vmlab`'s. Here is what makes a cluster of them, with the packages and
//! the scripts that users of `deploy/vagrant` run as well, and the drill. Not part of the tests:
//! without hardware virtualisation all of it takes minutes.

mod drill;
mod form;
mod visit;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use cluster_vmlab::{Accelerator, Options, VmLab};
use nix::sys::signal::{SigSet, Signal};

use crate::cargo;
use crate::phases::Phases;
use crate::setup;

/// Enough for a system, a daemon and some containers.
const MEMORY_MB: u32 = 640;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the machines and make them a cluster; what is there already stays.
    Up(Up),
    /// Run the drill on the lab that is up; ends at the first step that fails.
    Test(drill::Args),
    /// Show the machines.
    Status,
    /// Run a command on a machine, or get a shell there.
    Ssh { machine: String, command: Vec<String> },
    /// Run clusterctl as the lab's administrator.
    Ctl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Power off, without a warning.
    Kill { machine: String },
    /// Power on again.
    Start { machine: String },
    /// Remove the machines and everything of theirs.
    Down {
        /// Also the Debian image, which takes a minute or two to make again, and kept logs.
        #[arg(long)]
        all: bool,
    },
}

#[derive(clap::Args)]
struct Up {
    #[arg(long, default_value_t = 1)]
    managers: usize,
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Memory of each machine, in MB.
    #[arg(long, default_value_t = MEMORY_MB)]
    memory: u32,
    /// Folder with the packages [default: `debian` in the target folder, where `cargo xtask deb`
    /// puts them].
    #[arg(long)]
    packages: Option<PathBuf>,
    /// Machines alone, without packages and cluster.
    #[arg(long)]
    plain: bool,
    /// What runs the machines [default: kvm if a short test boot succeeds].
    #[arg(long, value_enum)]
    accelerator: Option<Acceleration>,
    /// Where Debian packages for the image come from [default: Debian's own mirrors].
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Acceleration {
    Kvm,
    Emulation,
}

pub fn run(args: &Args) -> Result<()> {
    let folder = cargo::metadata()?.target_directory.join("vm-lab");
    match &args.command {
        Command::Up(args) => up(&folder, args),
        Command::Test(args) => drill::run(&folder, args),
        Command::Status => status(&folder),
        Command::Ssh { machine, command } => {
            let script = (!command.is_empty()).then(|| command.join(" "));
            pass_on(VmLab::open(&folder)?.ssh(machine, script.as_deref())?)
        }
        Command::Ctl { args } => {
            let mut command = form::ctl(&VmLab::open(&folder)?);
            command.args(args);
            pass_on(command)
        }
        Command::Kill { machine } => Ok(VmLab::open(&folder)?.power_off(machine)?),
        Command::Start { machine } => {
            let lab = VmLab::open(&folder)?;
            lab.power_on(machine)?;
            Ok(lab.wait(machine)?)
        }
        Command::Down { all } => down(&folder, *all),
    }
}

fn up(folder: &Path, args: &Up) -> Result<()> {
    let mut phases = Phases::new();
    phases.run("set-up", || {
        setup::ensure(&[setup::LAB, setup::MACHINES])?;
        // Packages of another release may have had to go for those.
        setup::ensure(&[setup::LAB, setup::MACHINES])
    })?;
    let packages = if args.plain {
        None
    } else {
        let packages = match &args.packages {
            Some(packages) => packages.clone(),
            None => cargo::metadata()?.target_directory.join("debian"),
        };
        // Before minutes are spent on machines.
        Some(form::Packages::find(&packages)?)
    };
    let existed = VmLab::open(folder).is_ok();
    let options = Options {
        folder: folder.to_owned(),
        managers: args.managers,
        workers: args.workers,
        memory_mb: args.memory,
        accelerator: args.accelerator.map(|accelerator| match accelerator {
            Acceleration::Kvm => Accelerator::Kvm,
            Acceleration::Emulation => Accelerator::Emulation,
        }),
        mirror: args.mirror.clone(),
    };
    let mut say = |line: &str| eprintln!("    {line}");
    // Ctrl-C ends this one with us; the programs that make the image clean up after themselves.
    phases.run("image", || Ok(VmLab::prepare(&options, &mut say)?))?;
    end_on_interrupt(folder, existed)?;
    let lab = phases.run("machines", || Ok(VmLab::up(&options, &mut say)?))?;
    if let Some(packages) = packages {
        let formed = phases.run("cluster", || form::form(&lab, &packages));
        if let Err(error) = formed {
            let logs = form::save_logs(&lab)?;
            eprintln!("what the machines said is in {}", logs.display());
            if existed {
                eprintln!("the machines were there before and stay: the same command goes on");
            } else {
                drop(lab);
                down(folder, false)?;
            }
            return Err(error);
        }
        say_how(&lab);
    }
    eprintln!("{}", phases.summary());
    Ok(())
}

fn say_how(lab: &VmLab) {
    println!("The cluster is up. For example:");
    println!("  cargo xtask vm-lab ctl node ls");
    println!("  cargo xtask vm-lab ssh {}", lab.machines()[0].name());
    println!("  cargo xtask vm-lab test");
    println!("  cargo xtask vm-lab down");
}

/// Ctrl-C while machines start: those of this command go, those from before stay.
fn end_on_interrupt(folder: &Path, existed: bool) -> Result<()> {
    const INTERRUPTED: i32 = 130;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("blocking signals")?;
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            if existed {
                eprintln!("\ninterrupted; the machines stay");
            } else {
                eprintln!("\ninterrupted; removing the machines");
                if let Err(error) = VmLab::abandon(&folder) {
                    eprintln!("error: {error}; `cargo xtask vm-lab down` tries again");
                }
            }
            std::process::exit(INTERRUPTED);
        }
    });
    Ok(())
}

fn status(folder: &Path) -> Result<()> {
    let lab = VmLab::open(folder)?;
    for status in lab.status() {
        let machine = status.machine;
        let power = match status.pid {
            Some(pid) => format!("on, qemu is process {pid}"),
            None => "off".to_owned(),
        };
        println!("{:<12} {:<12} {power}", machine.name(), machine.address());
    }
    println!("run by {}", lab.accelerator().shown());
    Ok(())
}

fn down(folder: &Path, all: bool) -> Result<()> {
    let left = VmLab::down(folder, all)?;
    if left.is_empty() { Ok(()) } else { bail!("left behind: {}", left.join(", ")) }
}

/// Runs it with our terminal, and ends as it did.
fn pass_on(mut command: std::process::Command) -> Result<()> {
    let status = command.status().context("running ip netns exec")?;
    match status.code() {
        Some(0) => Ok(()),
        code => std::process::exit(code.unwrap_or(1)),
    }
}

/// A path that no later command of another folder misreads.
fn absolute(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("opening {}", path.display()))
}
