//! `cargo xtask lint`: what is not Rust. shellcheck on every shell script, `systemd-analyze verify` on
//! every unit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use crate::setup::{self, Tool};

pub const TOOLS: &[Tool] = &[
    Tool { program: "shellcheck", package: "shellcheck", purpose: "checking shell scripts" },
    Tool { program: "systemd-analyze", package: "systemd", purpose: "checking systemd units" },
];
/// Programs that our packages install.
const OURS: [&str; 2] = ["/usr/bin/cluster-", "/usr/lib/cluster-"];
const UNITS: &str = "deploy/systemd";
const KINDS: [&str; 5] = ["service", "slice", "target", "timer", "socket"];

pub fn run() -> Result<()> {
    setup::programs(&[TOOLS])?;
    let root = cargo::metadata()?.workspace_root;
    scripts(&root)?;
    units(&root)
}

fn scripts(root: &Path) -> Result<()> {
    let mut git = Command::new("git");
    // Also those that are not committed yet.
    git.arg("-C").arg(root).args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"]);
    let output = git.output().context("running git, for the names of all files")?;
    ensure!(output.status.success(), "git listed no files ({})", output.status);
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let scripts: Vec<&str> = names.split('\0').filter(|name| is_script(&root.join(name))).collect();
    ensure!(!scripts.is_empty(), "no shell script was found, and there are some");
    cargo::run(
        Command::new("shellcheck").arg("--external-sources").args(&scripts).current_dir(root),
    )?;
    println!("    shellcheck: {} scripts", scripts.len());
    Ok(())
}

/// By its name, or by the program that its first line names.
fn is_script(path: &Path) -> bool {
    use std::io::Read as _;
    if !path.is_file() {
        return false;
    }
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    if read.is_err() {
        return false;
    }
    let first = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    names_shell(&first) || path.extension().is_some_and(|extension| extension == "sh")
}

fn names_shell(first: &str) -> bool {
    let Some(program) = first.strip_prefix("#!") else { return false };
    let word = |word: &str| matches!(word.rsplit('/').next(), Some("sh" | "bash" | "dash"));
    program.split_ascii_whitespace().take(2).any(word)
}

/// Copies are verified, beside the units of this machine: what they name must exist, but for our own
/// programs.
fn units(root: &Path) -> Result<()> {
    let folder = root.join(UNITS);
    let entries = fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    paths.retain(|path| {
        path.extension().is_some_and(|kind| KINDS.iter().any(|known| kind == *known))
    });
    paths.sort();
    let machine = tempfile::tempdir().context("making a folder")?;
    let here = machine.path().join("units");
    fs::create_dir(&here).context("making a folder")?;
    let mut copies = Vec::new();
    for path in &paths {
        let name = path.file_name().context("a unit without a name")?;
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let copy = here.join(name);
        fs::write(&copy, with_programs_of_here(&text)).context("copying a unit")?;
        copies.push(copy);
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=yes"]).args(&copies);
    // Its own path comes first, and the machine's units, which ours refer to, after it.
    verify.env("SYSTEMD_UNIT_PATH", format!("{}:", here.display()));
    let output = verify.output().context("running systemd-analyze")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let about_ours = said.lines().filter(|line| {
        paths
            .iter()
            .filter_map(|path| path.file_name())
            .any(|name| line.contains(&*name.to_string_lossy()))
    });
    let complaints: Vec<&str> = about_ours.collect();
    if !output.status.success() || !complaints.is_empty() {
        bail!("systemd-analyze verify ({}):\n{said}", output.status);
    }
    println!("    systemd-analyze verify: {} units", paths.len());
    Ok(())
}

/// Our programs may not be installed where units are verified.
fn with_programs_of_here(unit: &str) -> String {
    let line = |line: &str| match line.split_once('=') {
        Some((key, program))
            if key.starts_with("Exec") && OURS.iter().any(|ours| program.starts_with(ours)) =>
        {
            format!("{key}=/bin/true")
        }
        _ => line.to_owned(),
    };
    unit.lines().map(|text| line(text) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_told_by_their_first_line() {
        for shell in ["#!/bin/sh", "#!/bin/sh -e", "#!/usr/bin/env bash", "#! /bin/bash"] {
            assert!(names_shell(shell), "{shell}");
        }
        for other in
            ["", "# /bin/sh", "#!/usr/bin/env python3", "#![deny(missing_docs)]", "#!/bin/fish"]
        {
            assert!(!names_shell(other), "{other}");
        }
    }

    #[test]
    fn programs_that_are_not_installed_are_replaced() {
        let unit = "[Service]\nExecStart=/usr/bin/cluster-worker\nExecStart=/bin/false\n\
                    ExecStartPost=/usr/lib/cluster-worker/x $MAINPID\n";
        let expected =
            "[Service]\nExecStart=/bin/true\nExecStart=/bin/false\nExecStartPost=/bin/true\n";
        assert_eq!(with_programs_of_here(unit), expected);
    }
}
