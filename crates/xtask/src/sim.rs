//! `cargo xtask sim`: simulated clusters under faults, many seeds, on every core.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cargo;

#[derive(clap::Args)]
pub struct Args {
    /// How many seeds to run
    #[arg(long, default_value_t = 1000)]
    pub seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Begin no new seed after so many seconds; the number of seeds is no bound then
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Print the hash of the run's whole trace as the last line; for one seed
    #[arg(long)]
    pub trace_hash: bool,
    /// Print what happened in each run
    #[arg(long)]
    pub story: bool,
    /// Instead of other faults, kill the leader after each single write of one run in turn
    #[arg(long)]
    pub sieve: bool,
    /// Switch each deliberate bug on in turn: every one must be found within this many seeds
    #[arg(long, value_name = "SEEDS", num_args = 0..=1, default_missing_value = "300")]
    pub mutants: Option<u64>,
}

impl Args {
    /// As many as a test run can afford.
    fn for_tests() -> Self {
        Self {
            seeds: 1000,
            seed: 1,
            seconds: None,
            trace_hash: false,
            story: false,
            sieve: false,
            mutants: None,
        }
    }
}

/// Where the simulation is built: with the deliberate bugs in it, which no other program may have.
fn folder() -> Result<PathBuf> {
    Ok(cargo::metadata()?.target_directory.join("sim"))
}

/// A cargo command for the simulation alone.
fn apart(verb: &str) -> Result<Command> {
    let mut command = cargo::cargo([verb, "--release", "-p", "cluster-sim", "--target-dir"]);
    command.arg(folder()?).env("RUSTFLAGS", "--cfg cluster_mutants");
    Ok(command)
}

/// What a test run does: the tests of the simulation itself, then many seeds.
pub fn test() -> Result<()> {
    cargo::run(apart("test")?.arg("--tests"))?;
    run(&Args::for_tests())
}

pub fn run(args: &Args) -> Result<()> {
    cargo::run(&mut apart("build")?)?;
    let program = folder()?.join("release").join("cluster-sim");
    if let Some(seeds) = args.mutants {
        return mutants(&program, seeds);
    }
    if args.sieve {
        let mut sieve = Command::new(&program);
        sieve.args(["--sieve", "--seed", &args.seed.to_string()]);
        return cargo::run(&mut sieve);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let parts = if args.seeds == 1 && args.seconds.is_none() { 1 } else { cores.max(1) };
    let begun = Instant::now();
    let running: Vec<_> = (0..parts)
        .map(|part| {
            let mut command = Command::new(&program);
            let seeds = match args.seconds {
                Some(_) => u64::MAX / 2 / parts,
                None => (args.seeds + parts - 1 - part) / parts,
            };
            command.args(["--seeds", &seeds.to_string()]);
            command.args(["--seed", &(args.seed + part).to_string()]);
            command.args(["--step", &parts.to_string()]);
            command.args(["--seconds", &args.seconds.unwrap_or(0).to_string()]);
            if args.trace_hash {
                command.arg("--trace-hash");
            }
            if args.story {
                command.arg("--story");
            }
            command.stdin(Stdio::null()).spawn().context("starting the simulation")
        })
        .collect::<Result<_>>()?;
    let mut failed = 0;
    for mut child in running {
        if !child.wait()?.success() {
            failed += 1;
        }
    }
    if failed > 0 {
        bail!("some runs failed: each is replayed by the command printed with it");
    }
    if !args.trace_hash {
        let took = begun.elapsed().as_secs();
        println!("sim: every run held, {took} s in {parts} processes");
    }
    Ok(())
}

/// Shows that the simulation finds bugs: every mutant must make a run fail.
fn mutants(program: &std::path::Path, seeds: u64) -> Result<()> {
    let names = Command::new(program).arg("--list-mutants").output()?;
    let names = String::from_utf8(names.stdout)?;
    let mut missed = Vec::new();
    for name in names.lines() {
        let begun = Instant::now();
        let run = Command::new(program)
            .args(["--mutant", name, "--seeds", &seeds.to_string()])
            .output()
            .context("starting the simulation")?;
        let text = String::from_utf8_lossy(&run.stdout);
        let found = text.lines().find(|line| line.contains(" FAILED: "));
        let took = Duration::from_secs(begun.elapsed().as_secs());
        match found {
            Some(line) => {
                let line: String = line.chars().take(150).collect();
                println!("{name}: found after {took:?}: {line}");
            }
            None => {
                println!("{name}: NOT found in {seeds} seeds");
                missed.push(name.to_owned());
            }
        }
    }
    if !missed.is_empty() {
        bail!("the simulation misses {}", missed.join(", "));
    }
    println!("sim: every deliberate bug was found");
    Ok(())
}
