//! Newer packages on every machine while visitors come: the daemons are replaced, containers and
//! their shims are the same processes as before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cluster_vmlab::{Machine, Role};

use crate::cargo;

use super::super::{form, visit};
use super::{Drill, SERVICE, ensure_untouched};

/// Process id, start time in ticks since boot, and name: together nobody else's.
const CONTAINERS: &str = "for pid in $(pgrep -x 'web|cluster-shim'); do \
     echo \"$pid $(cut -d ' ' -f 22 /proc/$pid/stat) $(cat /proc/$pid/comm)\"; done";

pub(super) fn run(drill: &Drill<'_>) -> Result<()> {
    let packages = match &drill.upgrade {
        Some(folder) => form::Packages::find(folder)?,
        None => newer(drill)?,
    };
    if form::workers(drill.lab).count() > 1 {
        drill.spread()?;
    }
    let tasks = drill.running_tasks(SERVICE)?;
    let all = drill.addresses(|_| true);
    // Managers first, one by one, as docs/upgrades.md says; then the workers.
    let ((), visits) = visit::under_load(drill.lab, &all, || {
        drill.lab.machines().iter().try_for_each(|machine| upgrade(drill, machine, &packages))
    })?;
    println!(
        "    {} visits meanwhile: {} answered by another worker than asked first, {} lost",
        visits.made,
        visits.elsewhere,
        visits.lost.len()
    );
    ensure!(visits.lost.is_empty(), "visits were lost: {}", visits.lost.join("; "));
    ensure_untouched(&tasks, &drill.running_tasks(SERVICE)?, "the upgrade")
}

fn upgrade(drill: &Drill<'_>, machine: &Machine, packages: &form::Packages) -> Result<()> {
    let (lab, name, unit) = (drill.lab, machine.name(), form::package(machine.role));
    let files = packages.of(machine.role)?;
    let paths: Vec<&Path> = files.iter().map(|file| file.as_path()).collect();
    lab.script(&name, "rm -rf /root/upgrade && mkdir /root/upgrade")?;
    lab.copy(&name, &paths, "/root/upgrade")?;
    let pid = format!("systemctl show --property MainPID --value {unit}");
    let (containers, daemon) = (lab.script(&name, CONTAINERS)?, lab.script(&name, &pid)?);
    let begin = Instant::now();
    let said = lab.script(&name, "dpkg --install /root/upgrade/*.deb 2>&1")?;
    let took = begin.elapsed();
    form::wait_ready(lab, drill.patience())?;

    let active = lab.script(&name, &format!("systemctl is-active {unit} || true"))?;
    ensure!(active.trim() == "active", "{name}: {unit} is {}; dpkg said:\n{said}", active.trim());
    let daemon_now = lab.script(&name, &pid)?;
    ensure!(daemon != daemon_now, "{name}: the upgrade did not restart {unit}; dpkg said:\n{said}");
    let containers_now = lab.script(&name, CONTAINERS)?;
    ensure!(
        containers == containers_now,
        "{name}: the upgrade touched containers:\n{containers}became\n{containers_now}"
    );
    let version =
        lab.script(&name, &format!("dpkg-query --show --showformat '${{Version}}' {unit}"))?;
    let wanted = field(files[0], "Version")?;
    ensure!(version == wanted, "{name} has {unit} {version} and not {wanted}");
    let shown = match machine.role {
        Role::Manager => String::new(),
        Role::Worker => {
            format!(", its {} processes of containers as before", containers.lines().count())
        }
    };
    drill.tell(
        begin,
        &format!("{name} has {unit} {version} (dpkg took {:.1} s){shown}", took.as_secs_f64()),
    );
    Ok(())
}

/// The packages that were copied to the machines, with a version above theirs.
fn newer(drill: &Drill<'_>) -> Result<form::Packages> {
    let work = drill.lab.run_folder().join("upgrade.d");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    }
    fs::create_dir(&work).with_context(|| format!("creating {}", work.display()))?;
    let out = work.join("packages");
    fs::create_dir(&out).with_context(|| format!("creating {}", out.display()))?;
    for package in form::kept_packages(drill.lab)?.files {
        repack(&package, &work.join("tree"), &out)?;
    }
    form::Packages::find(&out)
}

fn repack(package: &Path, tree: &Path, out: &Path) -> Result<()> {
    cargo::run(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(tree))?;
    let control = tree.join("DEBIAN/control");
    let text =
        fs::read_to_string(&control).with_context(|| format!("reading {}", control.display()))?;
    fs::write(&control, with_newer_version(&text)?)
        .with_context(|| format!("writing {}", control.display()))?;
    // Emulated machines unpack gzip fastest of what dpkg knows.
    let mut build = Command::new("dpkg-deb");
    build.args(["-Zgzip", "-z1", "--root-owner-group", "--build"]).arg(tree).arg(out);
    cargo::run(build.stdout(std::process::Stdio::null()))?;
    fs::remove_dir_all(tree).with_context(|| format!("removing {}", tree.display()))
}

/// Debian sorts a version with something after a plus above the one without.
fn with_newer_version(control: &str) -> Result<String> {
    ensure!(control.lines().any(|line| line.starts_with("Version: ")), "no version in {control:?}");
    let newer = |line: &str| match line.strip_prefix("Version: ") {
        Some(version) => format!("Version: {version}+drill\n"),
        None => format!("{line}\n"),
    };
    Ok(control.lines().map(newer).collect())
}

fn field(package: &PathBuf, name: &str) -> Result<String> {
    let output = Command::new("dpkg-deb").arg("--field").arg(package).arg(name).output();
    let output = output.context("running dpkg-deb")?;
    ensure!(output.status.success(), "{} is no package", package.display());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_changes() {
        let text = "Package: a\nVersion: 0.1.0-1\nDescription: x\n Version: no\n";
        let newer = "Package: a\nVersion: 0.1.0-1+drill\nDescription: x\n Version: no\n";
        assert_eq!(with_newer_version(text).unwrap(), newer);
        assert!(with_newer_version("Package: a\n").is_err());
    }
}
