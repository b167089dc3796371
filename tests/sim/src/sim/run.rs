//! What a run is given and what comes of it; runs have a process and a thread of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use cluster_mutants::Mutant;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::Sim;
use crate::os;

/// A run takes about a second, of which a busy machine may make many.
const RUN_MAX: Duration = Duration::from_secs(180);

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub managers: usize,
    pub workers: usize,
    /// Keep every event as a line.
    pub keep_trace: bool,
    /// Nothing goes wrong.
    pub calm: bool,
    /// The programs have this bug.
    pub mutant: Option<Mutant>,
    /// The leader is killed as soon as it has applied this log index.
    pub kill_at: Option<u64>,
}

impl Options {
    pub fn seed(seed: u64) -> Self {
        Self {
            seed,
            managers: 3,
            workers: 3,
            keep_trace: false,
            calm: false,
            mutant: None,
            kill_at: None,
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub seed: u64,
    /// Fingerprint of everything that happened.
    pub hash: u64,
    /// What went wrong, if anything did.
    pub failure: Option<String>,
    /// A line for each event worth telling.
    pub story: Vec<String>,
    pub trace: Vec<String>,
    /// How often each kind of fault struck.
    pub faults: BTreeMap<String, u64>,
    /// How often interesting states were reached.
    pub states: BTreeMap<String, u64>,
    /// Nanoseconds of simulated time.
    pub simulated: u64,
}

/// Runs one simulation in a process of its own, which `program` (this crate's) becomes. Libraries
/// keep counters for their process; a run must not depend on those before it.
pub fn run_apart(program: &Path, options: Options) -> anyhow::Result<Report> {
    let mut command = Command::new(program);
    command.args(["--one", "--seed", &options.seed.to_string()]);
    if options.calm {
        command.arg("--calm");
    }
    if options.keep_trace {
        command.arg("--trace");
    }
    if let Some(index) = options.kill_at {
        command.args(["--kill-at", &index.to_string()]);
    }
    if let Some(mutant) = options.mutant {
        command.args(["--mutant", mutant.name()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let child = command.spawn().context("starting a run")?;
    let process = Pid::from_raw(child.id().try_into().context("a process has a small number")?);
    let (ended, end) = mpsc::sync_channel(1);
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    let ran = match end.recv_timeout(RUN_MAX) {
        Ok(ran) => ran.context("waiting for a run")?,
        Err(_) => {
            // It may just have ended by itself, which is too late all the same.
            let _ = kill(process, Signal::SIGKILL);
            let stuck = anyhow::anyhow!(
                "no end after {RUN_MAX:?}: does a program spin while no time passes?"
            );
            return Ok(failed(options.seed, &stuck));
        }
    };
    serde_json::from_slice(&ran.stdout)
        .with_context(|| format!("seed {} ended without a report: {}", options.seed, ran.status))
}

/// Runs one simulation on a thread of its own: thread-local randomness begins anew. Changes the
/// process's folder, and so is for [`run_apart`]'s processes.
pub fn run(options: Options) -> Report {
    let running = std::thread::Builder::new().name(format!("seed {}", options.seed)).spawn(
        move || -> anyhow::Result<Report> {
            let dir = scratch()?;
            os::watch_panics();
            os::simulate(options.seed);
            cluster_mutants::switch(options.mutant);
            // Paths stand in errors, which travel: they must be the same in each run. And absolute,
            // as workers need them.
            std::env::set_current_dir(dir.path())?;
            let mut sim = Sim::new(options, Path::new("/proc/self/cwd"))?;
            let outcome = sim.live();
            Ok(sim.report(outcome))
        },
    );
    let ended = running.map_err(anyhow::Error::from).and_then(|thread| {
        thread.join().unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(anyhow::anyhow!("the simulation panicked: {}", text.unwrap_or("no message")))
        })
    });
    ended.unwrap_or_else(|error| failed(options.seed, &error))
}

/// The report of a run that did not come to an end.
pub fn failed(seed: u64, error: &anyhow::Error) -> Report {
    Report {
        seed,
        hash: 0,
        failure: Some(format!("{error:#}")),
        story: Vec::new(),
        trace: Vec::new(),
        faults: BTreeMap::new(),
        states: BTreeMap::new(),
        simulated: 0,
    }
}

/// In memory where there is such a folder: hundreds of small files are synced in each run.
fn scratch() -> anyhow::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.context("making a folder for the run")
}
