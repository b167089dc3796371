//! `cargo xtask deb`: Debian packages of the managers, the workers and the command line.
//!
//! cargo-deb packs them as `[package.metadata.deb]` of the three crates says. What it cannot know is made
//! here before: manual pages, completions and settings (by `crates/manual`), and the changelog. Then the
//! packages are judged: which C library they need, and what lintian says.

mod check;
mod glibc;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cargo::{self, Metadata};
use crate::phases::Phases;
use crate::setup::{self, Tool};

/// Crates, and the packages they become.
const PACKAGES: [(&str, &str); 3] = [
    ("cluster-manager", "cluster-manager"),
    ("cluster-worker", "cluster-worker"),
    ("cluster-ctl", "clusterctl"),
];
const BINARIES: [&str; 4] = ["cluster-manager", "cluster-worker", "cluster-shim", "clusterctl"];
const CARGO_DEB: &str = "3.8.0";
const TOOLS: &[Tool] = &[
    Tool { program: "dpkg-shlibdeps", package: "dpkg-dev", purpose: "finding what packages need" },
    Tool { program: "objdump", package: "binutils", purpose: "finding which C library they need" },
    Tool { program: "lintian", package: "lintian", purpose: "judging packages" },
];

#[derive(clap::Args)]
pub struct Args {
    /// Also install, upgrade, remove and purge them in a fresh Debian 12 in a folder (about a minute).
    #[arg(long)]
    check: bool,
    /// Counts packages of the same version; a higher one is an upgrade.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    revision: u32,
}

pub fn run(args: &Args) -> Result<()> {
    let mut phases = Phases::new();
    phases.run("set-up", || setup::programs(&[TOOLS]))?;
    let metadata = cargo::metadata()?;
    let packer = phases.run("cargo-deb", || packer(&metadata))?;
    phases.run("build", build)?;
    let version = format!("{}-{}", version(&metadata)?, args.revision);
    phases.run("pages, completions, settings", || write_texts(&metadata, &version))?;
    // cargo-deb removes what an earlier run left in the target folder, so they go there last.
    let fresh = tempfile::tempdir().context("making a folder")?;
    let debs = phases.run("packages", || pack(&packer, fresh.path(), &version))?;
    phases.run("C library", || glibc::check(&metadata.target_directory.join("release")))?;
    phases.run("lintian", || lint(&debs))?;
    if args.check {
        let next = format!("{}-{}", self::version(&metadata)?, args.revision + 1);
        let newer = tempfile::tempdir().context("making a folder")?;
        let upgrade = phases.run("packages of the next revision", || {
            write_texts(&metadata, &next)?;
            pack(&packer, newer.path(), &next)
        })?;
        phases.run("install, upgrade, remove, purge", || check::run(&debs, &upgrade, &next))?;
    }
    for deb in publish(&debs, &metadata.target_directory.join("debian"))? {
        let bytes = fs::metadata(&deb).with_context(|| format!("reading {}", deb.display()))?.len();
        println!("{} ({:.1} MB)", deb.display(), bytes as f64 / 1e6);
    }
    println!("deb: {}", phases.summary());
    Ok(())
}

/// Puts them there in place of those of other versions.
fn publish(debs: &[PathBuf], folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    for (_, package) in PACKAGES {
        for old in found(folder, package)? {
            fs::remove_file(&old).with_context(|| format!("removing {}", old.display()))?;
        }
    }
    let copies = debs.iter().map(|deb| {
        let copy = folder.join(deb.file_name().context("a package without a name")?);
        fs::copy(deb, &copy).with_context(|| format!("writing {}", copy.display()))?;
        Ok(copy)
    });
    copies.collect()
}

/// Our own copy of cargo-deb, of the version that we know.
fn packer(metadata: &Metadata) -> Result<PathBuf> {
    let root = metadata.target_directory.join("tools");
    let program = root.join("bin/cargo-deb");
    let is_right = Command::new(&program)
        .arg("--version")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(CARGO_DEB));
    if !is_right {
        let mut install = cargo::cargo(["install", "cargo-deb", "--locked", "--quiet", "--force"]);
        cargo::run(install.args(["--version", CARGO_DEB, "--root"]).arg(&root))?;
    }
    Ok(program)
}

fn build() -> Result<()> {
    let mut command = cargo::cargo(["build", "--release"]);
    for package in
        ["cluster-manager", "cluster-worker", "cluster-runtime", "cluster-ctl", "cluster-manual"]
    {
        command.args(["--package", package]);
    }
    for binary in BINARIES.iter().chain(&["cluster-manual"]) {
        command.args(["--bin", binary]);
    }
    cargo::run(&mut command)
}

fn version(metadata: &Metadata) -> Result<&str> {
    let manager = metadata.packages.iter().find(|package| package.name == "cluster-manager");
    Ok(&manager.context("the workspace has no cluster-manager")?.version)
}

/// What the manifests of the crates refer to as `target/package`, wherever the target folder is.
fn write_texts(metadata: &Metadata, version: &str) -> Result<()> {
    let folder = metadata.workspace_root.join("target/package");
    let writer = metadata.target_directory.join("release/cluster-manual");
    cargo::run(Command::new(writer).arg(&folder))?;
    let date = commit_date(&metadata.workspace_root)?;
    for (_, package) in PACKAGES {
        let path = folder.join(package).join("changelog");
        fs::write(&path, changelog(package, version, &date))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// In the form of mail, so that the same sources give the same package.
fn commit_date(root: &Path) -> Result<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(root).args(["log", "-1", "--format=%aD"]);
    let output = git.output().context("running git, for the date of the last commit")?;
    if !output.status.success() {
        bail!(
            "git told no date of the last commit ({}): packages are built from a clone",
            output.status
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn changelog(package: &str, version: &str, date: &str) -> String {
    format!(
        "{package} ({version}) unstable; urgency=medium\n\n  \
         * Built from its sources; what changed is in their CHANGELOG.md.\n\n \
         -- Cluster Maintainers <maintainers@cluster.example.net>  {date}\n"
    )
}

fn pack(packer: &Path, folder: &Path, version: &str) -> Result<Vec<PathBuf>> {
    let mut debs = Vec::new();
    for (krate, package) in PACKAGES {
        let mut command = Command::new(packer);
        command.args(["--no-build", "--strip", "--no-dbgsym", "--quiet", "--package", krate]);
        command.args(["--deb-version", version, "--output"]).arg(folder);
        cargo::run(command.stdout(Stdio::null()))?;
        let [deb] = found(folder, package)?
            .try_into()
            .map_err(|found| anyhow::anyhow!("cargo-deb left {found:?} of {package}"))?;
        debs.push(deb);
    }
    Ok(debs)
}

/// Files of this package; the version and the architecture are part of their names.
fn found(folder: &Path, package: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
    };
    Ok(paths.into_iter().filter(is_ours).collect())
}

fn lint(debs: &[PathBuf]) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error,warning", "--tag-display-limit", "0", "--info"]).args(debs);
    // It refuses to be root without being told that this is meant.
    cargo::run(lintian.arg("--allow-root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_is_in_debians_form() {
        let text = changelog("clusterctl", "0.1.0-2", "Sun, 29 Nov 2026 22:00:00 +0000");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "clusterctl (0.1.0-2) unstable; urgency=medium");
        assert!(lines[2].starts_with("  * "), "{text}");
        assert!(
            lines[4].starts_with(" -- ")
                && lines[4].ends_with(">  Sun, 29 Nov 2026 22:00:00 +0000")
        );
    }
}
