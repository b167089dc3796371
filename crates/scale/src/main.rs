//! Thousands of workers in one process, real but for their containers, against real managers.
//!
//! Everything between the API and a worker's session is what users run: manager processes with
//! their logs on disk, consensus, planners, mutual TLS, gRPC, heartbeats, assignments, reports. Only
//! the runtime is simulated: a task runs after a set time, and ends when a shape says so.
//!
//! `cargo xtask bench scale` builds and runs it. A *shape* is one load with its question; it prints
//! what workers saw and what managers spent.

mod api;
mod fleet;
mod ledger;
mod managers;
mod process;
mod report;
mod shapes;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use crate::fleet::Fleet;
use crate::managers::Managers;
use crate::report::Report;
use crate::shapes::{Bench, Shape};

/// Priority of the threads that run workers.
const WORKERS_NICE: i32 = -10;

/// Measure managers with thousands of simulated workers.
#[derive(Parser)]
#[command(name = "cluster-scale")]
struct Cli {
    /// Simulated workers
    #[arg(long, default_value_t = 5000)]
    nodes: u32,
    /// Manager processes
    #[arg(long, default_value_t = 3)]
    managers: u32,
    /// What is asked of the cluster: a number from 1 to 10, or a name
    #[arg(long, value_parser = shapes::parse, default_value = "1")]
    shape: Shape,
    /// Part of the shape's tasks, for a quick look: 0.1 asks for a tenth
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// How long a simulated container takes to start
    #[arg(long, default_value_t = 0)]
    start_ms: u64,
    /// Of a thousand starts so many fail
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    fail_per_mille: u32,
    /// Longest wait for one step of a shape, seconds
    #[arg(long, default_value_t = 300)]
    patience: u64,
    /// Folder with the program cluster-manager
    #[arg(long)]
    bin_dir: PathBuf,
    /// Folder for the managers' data [default: a new one in the system's temporary folder]
    #[arg(long)]
    work_dir: Option<PathBuf>,
    /// Keep the managers' data and logs
    #[arg(long)]
    keep: bool,
    /// Of the shape `overload`: be the generator, at this rate
    #[arg(long, hide = true)]
    flood: Option<f64>,
    #[arg(long, hide = true, requires = "flood")]
    flood_context: Option<PathBuf>,
    #[arg(long, hide = true, requires = "flood", value_delimiter = ',')]
    flood_managers: Vec<String>,
    /// Form of the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    /// One line
    Json,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let (Some(rate), Some(context)) = (cli.flood, &cli.flood_context) {
        return ended(flood(&cli, rate, context));
    }
    match run(&cli) {
        Ok(report) => {
            match cli.output {
                Output::Text => print!("{report}"),
                Output::Json => println!("{}", report.json()),
            }
            ExitCode::SUCCESS
        }
        Err(error) => ended(Err(error)),
    }
}

fn ended(outcome: Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

fn flood(cli: &Cli, rate: f64, context: &Path) -> Result<()> {
    process::allow_files(4096)?;
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    let context = cluster_identity::Context::load(context).context("reading the context")?;
    runtime.block_on(async {
        let mut api = api::Api::new(context)?;
        api.use_managers(cli.flood_managers.clone())?;
        shapes::overload::flood(api, rate).await;
        Ok(())
    })
}

fn run(cli: &Cli) -> Result<Report> {
    ensure!(cli.scale > 0.0 && cli.scale <= 10.0, "field `--scale`: use a number from 0 to 10");
    ensure!(cli.nodes > 0, "field `--nodes`: at least 1");
    ensure!((1..=9).contains(&cli.managers), "field `--managers`: from 1 to 9");
    // A socket here and one in a manager for each worker, and room beside them.
    process::allow_files(u64::from(cli.nodes) * 2 + 4096)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let workers = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("workers")
        .on_thread_start(go_first)
        .build()
        .context("starting the workers' threads")?;
    // Managers are ended by what holds them, which a signal's own end would skip.
    let report = runtime.block_on(async {
        let mut ended = signal(SignalKind::terminate()).context("listening for signals")?;
        tokio::select! {
            report = measure(cli, workers.handle()) => report,
            _ = ended.recv() => bail!("interrupted"),
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    });
    workers.shutdown_timeout(Duration::from_secs(1));
    runtime.shutdown_timeout(Duration::from_secs(1));
    report
}

/// Lets the thread that calls it go before all others. Workers have machines of their own, and do not
/// wait for their turn while managers have much to do.
fn go_first() {
    if let Err(error) = rustix::process::nice(WORKERS_NICE) {
        eprintln!("scale: workers wait for their turn behind managers: {error}");
    }
}

async fn measure(cli: &Cli, workers: &Handle) -> Result<Report> {
    let mut folder = tempfile::Builder::new();
    folder.prefix("cluster-scale-").disable_cleanup(cli.keep);
    let folder = match &cli.work_dir {
        Some(parent) => folder.tempdir_in(parent),
        None => folder.tempdir(),
    };
    let folder = folder.context("making a folder for the managers")?;
    if cli.keep {
        eprintln!("scale: data and logs are kept in {}", folder.path().display());
    }
    let patience = Duration::from_secs(cli.patience);
    let managers = Managers::start(&cli.bin_dir, folder.path(), cli.managers).await?;
    let behaviour = worker::Behaviour {
        start: Duration::from_millis(cli.start_ms),
        fail_per_mille: cli.fail_per_mille,
        ..cli.shape.behaviour()
    };
    let fleet = Fleet::join(&managers, cli.nodes, behaviour, patience, workers).await?;
    let report = Report::new(cli.shape.to_string(), cli.nodes, cli.managers);
    let mut bench = Bench { managers, fleet, report, scale: cli.scale, patience };
    // Joining is not the shape's.
    bench.fleet.lag();
    bench.run(cli.shape).await?;
    bench.put_lag("workers_lag_s");
    Ok(bench.report)
}
