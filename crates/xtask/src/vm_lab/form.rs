//! A cluster of the machines: packages, joining, and the context file for the one who looks.
//!
//! The scripts of `deploy/vagrant/provision` do it, so that they are run wherever this is. Each may
//! run again, hence so may all of this.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster_vmlab::{Machine, Role, VmLab};
use serde_json::Value;

use crate::cargo;
use crate::phases::seconds;

/// On the machines.
const FOLDER: &str = "/root/deploy";
/// On a file system that a power cut empties.
const TOKEN: &str = "/run/cluster-join-token";
const MANAGER_PORT: u16 = 7100;
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The packages of one build.
pub struct Packages {
    pub files: Vec<PathBuf>,
}

impl Packages {
    pub fn find(folder: &Path) -> Result<Self> {
        let names: Vec<String> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        let files = choose(&names)
            .with_context(|| format!("looking for packages in {}", folder.display()))?;
        let folder = super::absolute(folder)?;
        Ok(Self { files: files.iter().map(|file| folder.join(file)).collect() })
    }

    fn get(&self, package: &str) -> Result<&PathBuf> {
        let prefix = format!("{package}_");
        let named = |path: &&PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        };
        self.files.iter().find(named).with_context(|| format!("no package {package}"))
    }

    /// Those that a machine of this role gets.
    pub fn of(&self, role: Role) -> Result<[&PathBuf; 2]> {
        Ok([self.get(package(role))?, self.get("clusterctl")?])
    }
}

pub fn package(role: Role) -> &'static str {
    match role {
        Role::Manager => "cluster-manager",
        Role::Worker => "cluster-worker",
    }
}

/// Exactly one file of each package.
fn choose(names: &[String]) -> Result<Vec<&String>> {
    let mut chosen = Vec::new();
    for package in ["cluster-manager", "cluster-worker", "clusterctl"] {
        let prefix = format!("{package}_");
        let fits = |name: &&String| name.starts_with(&prefix) && name.ends_with(".deb");
        let mut found = names.iter().filter(fits);
        match (found.next(), found.next()) {
            (None, _) => bail!("there is no {package}: `cargo xtask deb` builds the packages"),
            (Some(one), None) => chosen.push(one),
            (Some(one), Some(other)) => bail!("there are {one} and {other}: leave one of them"),
        }
    }
    Ok(chosen)
}

/// Installs, joins, and waits until all nodes are ready.
pub fn form(lab: &VmLab, packages: &Packages) -> Result<()> {
    let begin = Instant::now();
    keep_packages(lab, packages)?;
    each(lab.machines(), |machine| install(lab, machine, packages))?;
    tell(begin, "packages are installed");

    let [first, others @ ..] = lab.machines() else { bail!("a lab has machines") };
    join(lab, first, None)?;
    tell(begin, &format!("{} has begun the cluster", first.name()));
    let tokens =
        Tokens { manager: token(lab, first, "manager")?, worker: token(lab, first, "worker")? };
    // One after the other: the group of managers changes by one at a time.
    let (managers, workers): (Vec<_>, Vec<_>) =
        others.iter().cloned().partition(|machine| machine.role == Role::Manager);
    for machine in &managers {
        join(lab, machine, Some(&tokens.manager))?;
        tell(begin, &format!("{} has joined", machine.name()));
    }
    each(&workers, |machine| join(lab, machine, Some(&tokens.worker)))?;
    tell(begin, "the workers have joined");

    export(lab, first, packages)?;
    wait_ready(lab, READY_WITHIN * lab.accelerator().patience().min(5))?;
    tell(begin, "all nodes are ready");
    Ok(())
}

struct Tokens {
    manager: String,
    worker: String,
}

/// Runs `act` for all machines at once; the first error counts.
pub fn each(machines: &[Machine], act: impl Fn(&Machine) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let act = &act;
        let running: Vec<_> =
            machines.iter().map(|machine| scope.spawn(move || act(machine))).collect();
        // All are waited for; the first error in their order is told.
        let ended: Vec<Result<()>> = running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        ended.into_iter().collect()
    })
}

fn tell(begin: Instant, line: &str) {
    eprintln!("    after {}: {line}", seconds(begin.elapsed()));
}

pub fn install(lab: &VmLab, machine: &Machine, packages: &Packages) -> Result<()> {
    let name = machine.name();
    let role = role(machine);
    lab.script(&name, &format!("rm -rf {FOLDER} && mkdir -p {FOLDER}/packages"))?;
    let scripts = provision_folder()?;
    lab.copy(&name, &[&scripts], FOLDER)?;
    let files: Vec<&Path> = packages.of(machine.role)?.iter().map(|file| file.as_path()).collect();
    lab.copy(&name, &files, &format!("{FOLDER}/packages"))?;
    lab.script(&name, &format!("sh {FOLDER}/provision/install.sh {role} {FOLDER}/packages"))?;
    Ok(())
}

fn provision_folder() -> Result<PathBuf> {
    Ok(cargo::metadata()?.workspace_root.join("deploy/vagrant/provision"))
}

fn role(machine: &Machine) -> &'static str {
    match machine.role {
        Role::Manager => "manager",
        Role::Worker => "worker",
    }
}

/// Begins the cluster, or joins it with a token.
fn join(lab: &VmLab, machine: &Machine, token: Option<&str>) -> Result<()> {
    let name = machine.name();
    let mut script =
        format!("sh {FOLDER}/provision/join.sh {} {}", role(machine), machine.address());
    if let Some(token) = token {
        lab.script_with_input(&name, &format!("umask 077; cat >{TOKEN}"), token.as_bytes())?;
        let managers: Vec<String> = managers(lab)
            .filter(|manager| *manager != machine)
            .map(|manager| format!("{}:{MANAGER_PORT}", manager.address()))
            .collect();
        // Those that have not joined yet do not answer, and the next one is asked.
        script.push_str(&format!(" {TOKEN} {}", managers.join(" ")));
    }
    lab.script(&name, &script)?;
    Ok(())
}

pub fn managers(lab: &VmLab) -> impl Iterator<Item = &Machine> {
    lab.machines().iter().filter(|machine| machine.role == Role::Manager)
}

pub fn workers(lab: &VmLab) -> impl Iterator<Item = &Machine> {
    lab.machines().iter().filter(|machine| machine.role == Role::Worker)
}

fn token(lab: &VmLab, first: &Machine, role: &str) -> Result<String> {
    let script = format!("sh {FOLDER}/provision/share.sh token {role}");
    let token = lab.script(&first.name(), &script)?.trim().to_owned();
    ensure!(!token.is_empty(), "{} gave no token for a {role}", first.name());
    Ok(token)
}

/// The packages that the lab was made with, kept as long as it.
pub fn kept_packages(lab: &VmLab) -> Result<Packages> {
    Packages::find(&kept(lab))
}

fn kept(lab: &VmLab) -> PathBuf {
    lab.run_folder().join("packages")
}

fn keep_packages(lab: &VmLab, packages: &Packages) -> Result<()> {
    let folder = kept(lab);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir(&folder).with_context(|| format!("creating {}", folder.display()))?;
    for file in &packages.files {
        let name = file.file_name().context("a package has a name")?;
        fs::copy(file, folder.join(name)).with_context(|| format!("copying {}", file.display()))?;
    }
    Ok(())
}

/// The context file and a clusterctl, for use from this computer.
fn export(lab: &VmLab, first: &Machine, packages: &Packages) -> Result<()> {
    let script = format!("sh {FOLDER}/provision/share.sh context");
    let text = lab.script(&first.name(), &script)?;
    let addresses = managers(lab).map(|manager| format!("{}:{MANAGER_PORT}", manager.address()));
    let context = with_managers(&text, addresses)?;
    let path = context_file(lab);
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let mut file = options.open(&path).with_context(|| format!("creating {}", path.display()))?;
    file.write_all(context.as_bytes()).with_context(|| format!("writing {}", path.display()))?;

    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(packages.get("clusterctl")?).arg(tools(lab));
    cargo::run(&mut unpack)
}

/// The context of the first manager names it alone; one that names all outlives it.
fn with_managers(text: &str, addresses: impl Iterator<Item = String>) -> Result<String> {
    let mut context: Value = serde_json::from_str(text).context("reading the context file")?;
    ensure!(context["managers"].is_array(), "the context file names no managers");
    context["managers"] = addresses.map(Value::String).collect();
    Ok(context.to_string())
}

// Neither may look like the folder of a machine.
fn context_file(lab: &VmLab) -> PathBuf {
    lab.run_folder().join("context.json")
}

fn tools(lab: &VmLab) -> PathBuf {
    lab.run_folder().join("tools")
}

/// The packaged clusterctl, run on this computer.
pub fn ctl(lab: &VmLab) -> Command {
    let mut command = lab.command(&tools(lab).join("usr/bin/clusterctl"));
    command.env("CLUSTERCTL_CONTEXT_FILE", context_file(lab));
    command
}

/// Runs clusterctl to its end; an error carries what it said.
pub fn ctl_output(lab: &VmLab, args: &[&str]) -> Result<String> {
    let output = ctl(lab).args(args).output().context("running clusterctl")?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("clusterctl {} ({}): {stdout}{}", shown(args), output.status, stderr.trim());
    }
    Ok(stdout)
}

pub fn ctl_json(lab: &VmLab, args: &[&str]) -> Result<Value> {
    let text = ctl_output(lab, &[args, &["--output", "json"]].concat())?;
    serde_json::from_str(&text)
        .with_context(|| format!("clusterctl {} printed no JSON", shown(args)))
}

/// The beginning of a command line is enough to know it by.
fn shown(args: &[&str]) -> String {
    const MOST: usize = 120;
    args.join(" ").chars().take(MOST).collect()
}

/// Waits until every worker is a ready node, and every manager is one of the group.
pub fn wait_ready(lab: &VmLab, within: Duration) -> Result<()> {
    let begin = Instant::now();
    loop {
        let missing = missing(lab);
        match missing {
            Ok(missing) if missing.is_empty() => return Ok(()),
            Ok(missing) if begin.elapsed() > within => {
                bail!("not ready within {within:?}: {}", missing.join(", "))
            }
            Err(error) if begin.elapsed() > within => {
                return Err(error.context(format!("no answer within {within:?}")));
            }
            _ => thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Machines that are not yet what they should be.
fn missing(lab: &VmLab) -> Result<Vec<String>> {
    let nodes = ctl_json(lab, &["node", "ls"])?;
    let info = ctl_json(lab, &["cluster", "info"])?;
    let expected = |role: Role| {
        lab.machines().iter().filter(move |machine| machine.role == role).map(Machine::name)
    };
    let ready = names_where(&nodes, |node| node["role"] == "worker" && node["state"] == "ready");
    let mut missing: Vec<String> =
        expected(Role::Worker).filter(|name| !ready.contains(name)).collect();
    let managers = names_where(&info["managers"], |manager| manager["heard"] == true);
    missing.extend(expected(Role::Manager).filter(|name| !managers.contains(name)));
    Ok(missing)
}

fn names_where(rows: &Value, is: impl Fn(&Value) -> bool) -> Vec<String> {
    let rows = rows.as_array().map_or(&[][..], Vec::as_slice).iter();
    rows.filter(|row| is(row)).filter_map(|row| row["name"].as_str()).map(str::to_owned).collect()
}

/// Journals and consoles, to a folder that outlives the lab. Machines that are off have a console.
pub fn save_logs(lab: &VmLab) -> Result<PathBuf> {
    let folder = lab.keep_logs()?;
    let on = lab.status().into_iter().filter(|status| status.pid.is_some());
    let on: Vec<Machine> = on.map(|status| status.machine).collect();
    each(&on, |machine| {
        let name = machine.name();
        // One that does not answer any more must not hide the others' journals.
        let journal = lab
            .script(&name, "journalctl --no-pager --lines 5000; systemctl --no-pager --failed")
            .unwrap_or_else(|error| format!("{error}\n"));
        let path = folder.join(format!("{name}-journal.log"));
        fs::write(&path, journal).with_context(|| format!("writing {}", path.display()))
    })?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn one_of_each_package_is_taken() {
        let all = names(&[
            "cluster-manager_0.1.0-1_amd64.deb",
            "cluster-worker_0.1.0-1_amd64.deb",
            "clusterctl_0.1.0-1_amd64.deb",
            "clusterctl_0.1.0-1_amd64.changes",
        ]);
        assert_eq!(choose(&all).unwrap(), all[..3].iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_missing_package_says_how_to_build_it() {
        let error = choose(&names(&["clusterctl_1_amd64.deb"])).unwrap_err().to_string();
        assert!(error.contains("no cluster-manager") && error.contains("cargo xtask deb"));
    }

    #[test]
    fn two_versions_are_not_guessed_between() {
        let two = ["cluster-manager_1_amd64.deb", "cluster-manager_2_amd64.deb"];
        let error = choose(&names(&two)).unwrap_err().to_string();
        assert!(error.contains(two[0]) && error.contains(two[1]), "{error}");
    }

    #[test]
    fn the_context_names_all_managers() {
        let text = r#"{"version": 1, "managers": ["10.78.0.11:7100"], "key": "k"}"#;
        let all = ["10.78.0.11:7100", "10.78.0.12:7100"].map(str::to_owned);
        let context: Value =
            serde_json::from_str(&with_managers(text, all.into_iter()).unwrap()).unwrap();
        assert_eq!(context["managers"].as_array().unwrap().len(), 2);
        assert_eq!(context["key"], "k");
        assert!(with_managers("{}", std::iter::empty()).is_err());
    }
}
