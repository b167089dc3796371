//! `cargo xtask tidy`: the rules of the house that no lint knows.
//!
//! `layers` says which of our crates may use which, and what the pure ones must not use; `files`
//! looks at the sources. Also run by `verify` and `test`, and as a unit test of this crate, so
//! that breaking a layer fails any test run.

mod files;
mod layers;

use anyhow::{Result, bail};

use crate::cargo;

/// What tidy found: `problems` fail it, `warnings` are only told.
#[derive(Default)]
struct Findings {
    problems: Vec<String>,
    warnings: Vec<String>,
}

pub fn run() -> Result<()> {
    let metadata = cargo::metadata()?;
    let mut findings = Findings::default();
    layers::check(&metadata, &mut findings);
    files::check(&metadata, &mut findings)?;
    for warning in &findings.warnings {
        eprintln!("warning: {warning}");
    }
    for problem in &findings.problems {
        eprintln!("problem: {problem}");
    }
    if findings.problems.is_empty() {
        return Ok(());
    }
    bail!("tidy found {} problems", findings.problems.len())
}
