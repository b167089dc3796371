//! `cargo xtask bench check`: instructions that planning and applying take, against stored figures.
//!
//! Instructions, not seconds: the same build counts the same on a busy machine. valgrind counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::cargo;
use crate::setup;

/// A case, and the case whose instructions are not its own.
const CASES: &[(&str, &str)] = &[
    ("place", "world"),
    ("place-spread", "world-spread"),
    ("rest", "place"),
    ("one", "place"),
    ("report", "place"),
    ("compare", "place"),
];
/// A loss beyond this fails.
const LOSS_MAX_PERCENT: f64 = 10.0;
const STORED: &str = "benches/instructions.json";

#[derive(Serialize, Deserialize)]
struct Figures {
    compiler: String,
    instructions: BTreeMap<String, u64>,
}

#[derive(Default, clap::Args)]
pub struct Args {
    /// Store what is counted now.
    #[arg(long)]
    update: bool,
}

pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[setup::VALGRIND])?;
    let metadata = cargo::metadata()?;
    let mut build = cargo::cargo(["build", "--release", "--quiet", "--package", "cluster-planner"]);
    cargo::run(build.args(["--example", "counts"]))?;
    let program = metadata.target_directory.join("release/examples/counts");
    let now = Figures { compiler: compiler()?, instructions: count_all(&program)? };
    let path = metadata.workspace_root.join(STORED);
    if args.update {
        return store(&path, &now);
    }
    let stored = read(&path)?;
    let losses = compare(&stored, &now)?;
    if losses.is_empty() {
        return Ok(());
    }
    let losses = losses.join("; ");
    if stored.compiler != now.compiler {
        eprintln!("warning: {losses}; but the figures are of {}, this is another", stored.compiler);
        return Ok(());
    }
    bail!("{losses}; mend it, or store the new figures with --update and say why")
}

/// Another compiler makes other code, so figures are compared in earnest only with their own.
fn compiler() -> Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("running rustc")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn count_all(program: &Path) -> Result<BTreeMap<String, u64>> {
    let mut whole = BTreeMap::new();
    for case in CASES.iter().flat_map(|(case, base)| [case, base]) {
        if !whole.contains_key(*case) {
            eprintln!("counting {case}");
            whole.insert(*case, count(program, case)?);
        }
    }
    let own =
        |(case, base): &(&str, &str)| ((*case).to_owned(), whole[case].saturating_sub(whole[base]));
    Ok(CASES.iter().map(own).collect())
}

fn count(program: &Path, case: &str) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(program)
        .arg(case)
        .output()
        .context("running valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{case} failed under valgrind: {}", text.trim());
    let line =
        text.lines().find_map(|line| line.split_once("I   refs:").or(line.split_once("I refs:")));
    let digits: String =
        line.map_or("", |(_, count)| count).chars().filter(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("valgrind told no count for {case}: {}", text.trim()))
}

fn read(path: &Path) -> Result<Figures> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
}

fn store(path: &Path, figures: &Figures) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let text = serde_json::to_string_pretty(figures).context("writing figures")? + "\n";
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    println!("stored in {}", path.display());
    Ok(())
}

/// Prints each case; answers those that lost too much.
fn compare(stored: &Figures, now: &Figures) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    for (case, count) in &now.instructions {
        let Some(before) = stored.instructions.get(case) else {
            bail!("{STORED} has no figure for {case}; store one with --update");
        };
        let change = *count as f64 / (*before).max(1) as f64 * 100.0 - 100.0;
        println!("{case:14} {count:>14} instructions, {change:+.1} %");
        if change > LOSS_MAX_PERCENT {
            lost.push(format!("{case} takes {change:.1} % more instructions than stored"));
        }
    }
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_and_a_gain_is_not() {
        let figures = |count| Figures {
            compiler: String::new(),
            instructions: BTreeMap::from([("place".to_owned(), count)]),
        };
        assert!(compare(&figures(1000), &figures(1090)).unwrap().is_empty());
        assert!(compare(&figures(1000), &figures(400)).unwrap().is_empty());
        let lost = compare(&figures(1000), &figures(1200)).unwrap();
        assert_eq!(lost, ["place takes 20.0 % more instructions than stored"]);
        let none = Figures { compiler: String::new(), instructions: BTreeMap::new() };
        assert!(compare(&none, &figures(1)).is_err());
    }
}
