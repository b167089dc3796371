//! `cargo xtask fuzz`: searches each parser of outside input for inputs that break it, for a
//! bounded time.
//!
//! The targets are functions of `crates/fuzz`; `fuzz/` wraps them for libFuzzer. It is built here
//! with the coverage counters that `cargo fuzz --sanitizer none` asks for, which a stable compiler
//! gives too, so that nothing but cargo and a C++ compiler is needed.

mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::phases::{Phases, seconds};
use crate::setup;
use run::{Outcome, Run};

/// What cargo-fuzz sets for coverage without a sanitizer.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

#[derive(clap::Args)]
pub struct Args {
    /// How long each target is searched
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Only this target; may be given several times
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Targets at once; by default as many as the machine has cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Give one input to the target and end: shows a crash again
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seconds", "jobs"])]
    input: Option<PathBuf>,
    /// Afterwards keep, in fuzz/corpus, those new inputs that reach new code
    #[arg(long, conflicts_with = "input")]
    keep: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let metadata = cargo::metadata()?;
    let home = metadata.workspace_root.join("fuzz");
    let known = targets(&home)?;
    let chosen = choose(&known, &args.target)?;
    if !setup::installed("c++") {
        bail!("libFuzzer is written in C++ and there is no `c++` here: install g++ or clang");
    }
    let mut phases = Phases::new();
    let binaries = metadata.target_directory.join("fuzz");
    let host = phases.run("build", || build(&home, &binaries, &chosen))?;
    let binaries = binaries.join(host).join("release");
    if let Some(input) = &args.input {
        let [target] = chosen.as_slice() else { bail!("--input needs one --target") };
        return run::once(&binaries.join(target), input);
    }
    let search =
        Search { home, binaries, time: Duration::from_secs(args.seconds), keep: args.keep };
    let jobs = args.jobs.map_or_else(cores, usize::from);
    let outcomes = phases.run("search", || search.all(&chosen, jobs))?;
    report(&outcomes)?;
    println!("fuzz: {} targets held; {}", outcomes.len(), phases.summary());
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Names of the binaries in `fuzz/fuzz_targets`.
fn targets(home: &Path) -> Result<Vec<String>> {
    let folder = home.join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn choose(known: &[String], wanted: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        bail!("--target {unknown}: there is no such target; there are {}", known.join(", "));
    }
    let chosen = known.iter().filter(|name| wanted.is_empty() || wanted.contains(name));
    Ok(chosen.cloned().collect())
}

/// Builds the binaries; answers the platform they are for. It is named, so that build scripts and
/// macros are built without counters.
fn build(home: &Path, into: &Path, chosen: &[String]) -> Result<String> {
    let version = cargo::cargo(["-vV"]).output().context("running cargo -vV")?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("cargo -vV names no host")?.to_owned();
    let mut command = cargo::cargo(["build", "--release", "--target", &host, "--target-dir"]);
    command.arg(into).arg("--manifest-path").arg(home.join("Cargo.toml"));
    for target in chosen {
        command.args(["--bin", target]);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"));
    cargo::run(&mut command)?;
    Ok(host)
}

struct Search {
    home: PathBuf,
    binaries: PathBuf,
    time: Duration,
    keep: bool,
}

impl Search {
    /// Searches the targets, so many at once; one that breaks does not stop the others.
    fn all(&self, chosen: &[String], jobs: usize) -> Result<Vec<(String, Outcome)>> {
        let rounds = chosen.len().div_ceil(jobs);
        let longest = self.time * u32::try_from(rounds).unwrap_or(u32::MAX);
        eprintln!("    {} targets, about {} in all", chosen.len(), seconds(longest));
        let next = AtomicUsize::new(0);
        let outcomes = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let worker = || -> Result<()> {
                while let Some(name) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = self.one(name)?;
                    eprintln!("    {name}: {outcome}");
                    let mut all = outcomes.lock().unwrap_or_else(|broken| broken.into_inner());
                    all.push((name.clone(), outcome));
                }
                Ok(())
            };
            let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(done) => done,
                Err(_) => bail!("a search panicked"),
            })
        })?;
        let mut outcomes = outcomes.into_inner().unwrap_or_else(|broken| broken.into_inner());
        outcomes.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(outcomes)
    }

    fn one(&self, name: &str) -> Result<Outcome> {
        let folder = |kind: &str| self.home.join(kind).join(name);
        let run = Run {
            name,
            binary: self.binaries.join(name),
            kept: folder("corpus"),
            found: folder("found"),
            crashes: folder("artifacts"),
        };
        let outcome = run.search(self.time)?;
        if self.keep && outcome.crash.is_none() {
            run.keep()?;
        }
        Ok(outcome)
    }
}

/// Fails when something broke, with the command that shows it again.
fn report(outcomes: &[(String, Outcome)]) -> Result<()> {
    let mut broken = Vec::new();
    for (name, outcome) in outcomes {
        if let Some(crash) = &outcome.crash {
            eprintln!(
                "\n{name}: {}\n  again: cargo xtask fuzz --target {name} --input {}\n  \
                 once fixed, keep it: cp {} fuzz/corpus/{name}/",
                crash.why,
                crash.input.display(),
                crash.input.display(),
            );
            broken.push(name.as_str());
        }
    }
    if !broken.is_empty() {
        bail!("{} broke: {}", broken.len(), broken.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_target_is_named_beside_those_there_are() {
        let known = ["cron".to_owned(), "spec".to_owned()];
        let error = choose(&known, &["corn".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("--target corn") && error.contains("cron, spec"), "{error}");
        assert_eq!(choose(&known, &["spec".to_owned()]).unwrap(), ["spec"]);
        assert_eq!(choose(&known, &[]).unwrap(), known);
    }
}
