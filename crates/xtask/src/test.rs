//! `cargo xtask test`: from a fresh clone to a tested one, with all set-up.

use anyhow::Result;

use crate::bench;
use crate::cargo;
use crate::image;
use crate::lint;
use crate::phases::Phases;
use crate::setup;
use crate::sim;
use crate::tidy;
use crate::verify;

#[derive(clap::Args)]
pub struct Args {
    /// Run only tests whose name contains one of these.
    filters: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let mut phases = Phases::new();
    phases.run("set-up", || setup::ensure(&[setup::LAB, setup::TESTS, lint::TOOLS]))?;
    // Layers first: they cost nothing, and a broken one makes the rest moot.
    phases.run("tidy", tidy::run)?;
    phases.run("scripts and units", lint::run)?;
    if verify::has("fmt") {
        phases.run("format", verify::format)?;
    } else {
        eprintln!("==> format: skipped, rustfmt is not installed (`rustup component add rustfmt`)");
    }
    phases.run("build", || {
        cargo::run(&mut cargo::cargo([
            "build",
            "--workspace",
            "--exclude",
            "cluster-sim",
            "--bins",
        ]))
    })?;
    phases.run("image", || image::build().map(|_| ()))?;
    phases.run("tests", || tests(args))?;
    if args.filters.is_empty() {
        phases.run("instructions", || bench::check::run(&bench::check::Args::default()))?;
        phases.run("simulation", sim::test)?;
    }
    println!("test: everything passed; {}", phases.summary());
    Ok(())
}

/// The simulation is built and run apart, see `sim`.
const ALL: [&str; 3] = ["--workspace", "--exclude", "cluster-sim"];

fn tests(args: &Args) -> Result<()> {
    if verify::has("nextest") {
        let mut command = cargo::cargo(["nextest", "run", "--no-fail-fast"]);
        command.args(ALL);
        return cargo::run(command.args(&args.filters));
    }
    eprintln!("    cargo-nextest is not installed; using cargo test");
    let mut command = cargo::cargo(["test", "--no-fail-fast"]);
    command.args(ALL).arg("--");
    // Black-box tests start whole clusters: without nextest's groups, one at a time.
    cargo::run(command.args(&args.filters).arg("--test-threads=1"))
}
