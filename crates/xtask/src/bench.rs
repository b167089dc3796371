//! `cargo xtask bench`: the figures that docs/benchmarks.md keeps, as medians, beside Docker Swarm's.
//!
//! Both run on the same machines of a lab, three managers and three workers, one after the other,
//! and lose power in the same way. `ours` and `swarm` measure, `figures` keeps and prints,
//! `idle` weighs processes that do nothing, `load` counts requests that fail meanwhile. The table goes to stdout as
//! markdown. `cargo xtask bench scale` is another matter: many simulated workers, no containers.

pub mod check;
mod figures;
mod growth;
mod idle;
mod load;
mod ours;
mod scale;
mod swarm;

use std::path::PathBuf;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::image;
use crate::interrupt;
use crate::phases::Phases;
use crate::setup;

use self::figures::Report;

/// Medians of fewer runs say little.
const LEAST_RUNS: usize = 10;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Use the programs in this folder instead of building them.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Runs of each measurement.
    #[arg(long, default_value_t = LEAST_RUNS)]
    runs: usize,
    /// Measure only our own cluster.
    #[arg(long)]
    no_swarm: bool,
    /// Measure only Docker Swarm.
    #[arg(long, conflicts_with = "no_swarm")]
    only_swarm: bool,
}

#[derive(clap::Subcommand)]
enum What {
    /// Measure managers with thousands of simulated workers.
    Scale(scale::Args),
    /// Compare the instructions that planning and applying take with stored figures.
    Check(check::Args),
    /// Measure how cost grows with nodes, tasks and backends, and draw it.
    Growth(growth::Args),
}

pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        Some(What::Scale(args)) => scale::run(args),
        Some(What::Check(args)) => check::run(args),
        Some(What::Growth(args)) => growth::run(args),
        None => waits(args),
    }
}

fn waits(args: &Args) -> Result<()> {
    let mut phases = Phases::new();
    phases.run("set-up", || setup::ensure(&[setup::LAB]))?;
    let bin_dir = phases.run("build", || Cluster::build(args.bin_dir.as_deref()))?;
    let archive = phases.run("image", image::build)?;
    interrupt::remove_labs(&[ours::NAME, swarm::NAME])?;
    let mut report = Report::new(args.runs);
    if !args.only_swarm {
        phases.run("cluster", || ours::measure(&bin_dir, &archive, args.runs, &mut report))?;
    }
    if args.no_swarm {
        report.note("Docker Swarm was left out as asked.");
    } else if setup::installed("dockerd") && setup::installed("docker") {
        // Ours stay worth printing when the other does not run on this kernel.
        let measured =
            phases.run("swarm", || swarm::measure(&bin_dir, &archive, args.runs, &mut report));
        if let Err(error) = measured {
            report.note(&format!("Docker Swarm could not be measured to the end: {error:#}."));
        }
    } else {
        report.note(
            "Docker Swarm is not installed here (`apt install docker.io`), so it was skipped.",
        );
    }
    print!("{report}");
    eprintln!("bench: {}", phases.summary());
    Ok(())
}
