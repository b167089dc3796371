//! `cargo xtask verify`: everything that can be checked without running the product.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::cargo;
use crate::phases::Phases;
use crate::tidy;

pub fn run() -> Result<()> {
    let mut phases = Phases::new();
    phases.run("format", format)?;
    phases.run("tidy", tidy::run)?;
    phases.run("clippy", clippy)?;
    println!("verify: all is well; {}", phases.summary());
    Ok(())
}

/// Fails when a file is not formatted.
pub fn format() -> Result<()> {
    require("fmt", "rustfmt")?;
    cargo::run(&mut cargo::cargo(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    require("clippy", "clippy")?;
    cargo::run(&mut cargo::cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Whether the toolchain has this part of cargo.
pub fn has(subcommand: &str) -> bool {
    let mut command: Command = cargo::cargo([subcommand, "--version"]);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn require(subcommand: &str, component: &str) -> Result<()> {
    if !has(subcommand) {
        bail!("cargo {subcommand} is not installed: `rustup component add {component}`");
    }
    Ok(())
}
