//! `cluster-sim`: runs seeds and says what came of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use cluster_mutants::Mutant;
use cluster_sim::faults::KINDS;
use cluster_sim::sim::{self, Options, Report};

/// Simulates whole clusters under faults; the same seed gives the same run.
#[derive(Parser)]
#[command(name = "cluster-sim")]
struct Cli {
    /// How many seeds to run
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop beginning new seeds after so many seconds; 0: never
    #[arg(long, default_value_t = 0)]
    seconds: u64,
    /// Print the hash of the last run's whole trace as the last line
    #[arg(long)]
    trace_hash: bool,
    /// Print what happened in each run
    #[arg(long)]
    story: bool,
    /// Print every event of each run
    #[arg(long)]
    trace: bool,
    /// Nothing goes wrong
    #[arg(long)]
    calm: bool,
    /// Run only every Nth seed, for several processes side by side
    #[arg(long, default_value_t = 1, hide = true)]
    step: u64,
    /// The programs have this deliberate bug: the first run that finds it ends the search
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    mutant: Option<Mutant>,
    /// Nothing goes wrong but this: the leader is killed right after one write, at each index in turn
    #[arg(long)]
    sieve: bool,
    #[arg(long, hide = true)]
    kill_at: Option<u64>,
    /// Run the seed in this process and print its report as JSON
    #[arg(long, hide = true)]
    one: bool,
    /// Print the names of the deliberate bugs and end
    #[arg(long)]
    list_mutants: bool,
    /// Print the programs' logs from this level on
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

fn mutant(name: &str) -> Result<Mutant, String> {
    if !cluster_mutants::AVAILABLE {
        return Err(
            "this build has no deliberate bugs; `cargo xtask sim` builds one that has".into()
        );
    }
    let mut all = Mutant::ALL.iter().copied();
    all.find(|mutant| mutant.name() == name).ok_or_else(|| {
        let names: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        format!("use one of {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(filter) = &cli.log {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .without_time()
            .init();
    }
    if cli.list_mutants {
        Mutant::ALL.iter().for_each(|mutant| println!("{}", mutant.name()));
        return ExitCode::SUCCESS;
    }
    if cli.one {
        return one(&cli);
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            println!("cannot find this program: {error}");
            return ExitCode::FAILURE;
        }
    };
    if cli.sieve {
        return sieve(&cli, &program);
    }
    let mut total = Total::default();
    let begun = Instant::now();
    let mut hash = 0;
    for count in 0..cli.seeds {
        let over = cli.seconds > 0 && begun.elapsed() >= Duration::from_secs(cli.seconds);
        if over {
            break;
        }
        let seed = cli.seed + count * cli.step;
        let options = options(&cli, seed);
        let report = match sim::run_apart(&program, options) {
            Ok(report) => report,
            Err(error) => sim::failed(seed, &error),
        };
        hash = report.hash;
        total.add(&report);
        show(&cli, &report);
        if cli.mutant.is_some() && report.failure.is_some() {
            break;
        }
    }
    total.show(begun.elapsed());
    if cli.trace_hash {
        println!("{hash:016x}");
    }
    if total.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(cli: &Cli, seed: u64) -> Options {
    let (keep_trace, calm, mutant) = (cli.trace, cli.calm || cli.sieve, cli.mutant);
    Options { keep_trace, calm, mutant, kill_at: cli.kill_at, ..Options::seed(seed) }
}

/// Runs the seed here and prints the report for whoever started this process.
fn one(cli: &Cli) -> ExitCode {
    let options = options(cli, cli.seed);
    match serde_json::to_string(&sim::run(options)) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Kills the leader after each single write of a run in which nothing else goes wrong.
fn sieve(cli: &Cli, program: &Path) -> ExitCode {
    let calm = options(cli, cli.seed);
    let run = |kill_at| {
        sim::run_apart(program, Options { kill_at, ..calm })
            .unwrap_or_else(|error| sim::failed(cli.seed, &error))
    };
    let whole = run(None);
    let last = whole.states.get("last-index").copied().unwrap_or(0);
    let mut failed = Vec::new();
    for index in 1..=last {
        let report = run(Some(index));
        if let Some(failure) = &report.failure {
            report.story.iter().for_each(|line| println!("  {line}"));
            println!("seed {} with the leader killed at index {index} FAILED: {failure}", cli.seed);
            failed.push(index);
        }
    }
    println!("the leader was killed after each of {last} writes, seed {}", cli.seed);
    match failed.as_slice() {
        [] => ExitCode::SUCCESS,
        indexes => {
            println!("FAILED at {indexes:?}");
            ExitCode::FAILURE
        }
    }
}

fn show(cli: &Cli, report: &Report) {
    for line in &report.trace {
        println!("{line}");
    }
    let failed = report.failure.is_some();
    if cli.story || failed {
        for line in &report.story {
            println!("  {line}");
        }
    }
    if let Some(failure) = &report.failure {
        println!("seed {} FAILED: {failure}", report.seed);
        println!("  replay: cargo xtask sim --seeds 1 --seed {} --story", report.seed);
    }
}

#[derive(Default)]
struct Total {
    runs: u64,
    simulated: Duration,
    failed: Vec<u64>,
    faults: BTreeMap<String, u64>,
    states: BTreeMap<String, u64>,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.simulated += Duration::from_nanos(report.simulated);
        if report.failure.is_some() {
            self.failed.push(report.seed);
        }
        for (kind, count) in &report.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
        for (state, count) in &report.states {
            *self.states.entry(state.clone()).or_default() += count;
        }
    }

    fn show(&self, took: Duration) {
        let (simulated, real) = (self.simulated.as_secs_f64(), took.as_secs_f64());
        println!("{} runs, {simulated:.0} s simulated in {real:.0} s", self.runs);
        let faults: Vec<String> = KINDS
            .iter()
            .map(|kind| format!("{kind} {}", self.faults.get(*kind).copied().unwrap_or(0)))
            .collect();
        println!("faults: {}", faults.join(", "));
        let states: Vec<String> =
            self.states.iter().map(|(state, count)| format!("{state} {count}")).collect();
        println!("reached: {}", states.join(", "));
        match self.failed.as_slice() {
            [] => println!("no run failed"),
            failed => println!("FAILED: {} of {} runs, seeds {failed:?}", failed.len(), self.runs),
        }
    }
}
