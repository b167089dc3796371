//! The drill: what breaks on real machines, done to virtual ones, with a clock beside it.
//!
//! Each step begins with two replicas of the web app on all machines and leaves them so; the first
//! that fails ends the drill, and what the machines said is kept. The lab stays up either way.

mod disk;
mod memory;
mod power;
mod upgrade;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster_vmlab::{Machine, VmLab};

use crate::cluster::Replica;
use crate::image;
use crate::phases::{Phases, seconds};

use super::{form, visit};

/// On real hardware; emulation gets some times as much.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVICE: &str = "web";
const REPLICAS: usize = 2;

#[derive(clap::Args)]
pub struct Args {
    /// Only these steps, in the drill's order; may be repeated.
    #[arg(long, value_enum)]
    step: Vec<Step>,
    /// Folder with newer packages to upgrade to [default: those that are installed, repacked as a
    /// newer version].
    #[arg(long)]
    upgrade: Option<PathBuf>,
    /// Archive with the web app's image, instead of building it.
    #[arg(long)]
    image: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    /// Two replicas on port 80 of every worker.
    Replicas,
    /// A worker with a replica loses power.
    Worker,
    /// The leader loses power, and something is written; needs three managers.
    Leader,
    /// All machines lose power and get it back.
    Blackout,
    /// Newer packages on every machine, under load.
    Upgrade,
    /// A container takes more memory than it may.
    Memory,
    /// No free byte on a worker's disk.
    WorkerDisk,
    /// No free byte on a manager's disk.
    ManagerDisk,
}

impl Step {
    fn shown(self) -> &'static str {
        match self {
            Self::Replicas => "two replicas on port 80",
            Self::Worker => "power cut of a worker",
            Self::Leader => "power cut of the leader",
            Self::Blackout => "power cut of all machines",
            Self::Upgrade => "package upgrade under load",
            Self::Memory => "memory limit and OOM",
            Self::WorkerDisk => "full disk on a worker",
            Self::ManagerDisk => "full disk on a manager",
        }
    }
}

pub fn run(folder: &Path, args: &Args) -> Result<()> {
    let lab = VmLab::open(folder)?;
    let mut phases = Phases::new();
    let archive = match &args.image {
        Some(archive) => super::absolute(archive)?,
        None => phases.run("image", image::build)?,
    };
    let drill = Drill { lab: &lab, archive, upgrade: args.upgrade.clone() };
    let drilled = drill.all(&mut phases, &args.step);
    if let Err(error) = drilled {
        let logs = form::save_logs(&lab)?;
        eprintln!("what the machines said is in {}", logs.display());
        eprintln!("the lab stays up: `cargo xtask vm-lab ctl service ps {SERVICE}`");
        return Err(error);
    }
    println!("{}", phases.summary());
    Ok(())
}

/// What all steps need.
struct Drill<'a> {
    lab: &'a VmLab,
    archive: PathBuf,
    upgrade: Option<PathBuf>,
}

impl Drill<'_> {
    fn all(&self, phases: &mut Phases, only: &[Step]) -> Result<()> {
        phases.run("preparing", || self.prepare())?;
        for step in <Step as clap::ValueEnum>::value_variants() {
            if only.is_empty() || only.contains(step) {
                phases.run(step.shown(), || self.step(*step))?;
            }
        }
        Ok(())
    }

    fn step(&self, step: Step) -> Result<()> {
        self.ensure_replicas()?;
        match step {
            Step::Replicas => self.replicas(),
            Step::Worker => power::worker(self),
            Step::Leader => power::leader(self),
            Step::Blackout => power::blackout(self),
            Step::Upgrade => upgrade::run(self),
            Step::Memory => memory::run(self),
            Step::WorkerDisk => disk::worker(self),
            Step::ManagerDisk => disk::manager(self),
        }
    }

    /// All machines on, no service of an earlier drill, the image on every worker.
    fn prepare(&self) -> Result<()> {
        let begin = Instant::now();
        for status in self.lab.status() {
            let name = status.machine.name();
            self.lab.power_on(&name)?;
            self.lab.wait(&name)?;
        }
        disk::free_all(self)?;
        form::wait_ready(self.lab, self.patience())?;
        self.remove_services()?;
        let workers: Vec<Machine> = form::workers(self.lab).cloned().collect();
        form::each(&workers, |machine| {
            let name = machine.name();
            self.lab.copy(&name, &[&self.archive], "/root/web.tar")?;
            let load = "cluster-worker image load --data-dir /var/lib/cluster-worker /root/web.tar";
            self.lab.script(&name, load)?;
            Ok(())
        })?;
        self.tell(begin, "the web app's image is on every worker");
        Ok(())
    }

    fn remove_services(&self) -> Result<()> {
        let services = form::ctl_json(self.lab, &["service", "ls"])?;
        let services = services.as_array().context("service ls printed no list")?;
        for service in services.iter().filter_map(|service| service["name"].as_str()) {
            form::ctl_output(self.lab, &["service", "rm", service])?;
        }
        Ok(())
    }

    /// Creates the service where it is missing, and waits for its replicas.
    fn ensure_replicas(&self) -> Result<()> {
        let services = form::ctl_json(self.lab, &["service", "ls"])?;
        let services = services.as_array().context("service ls printed no list")?;
        if !services.iter().any(|service| service["name"] == SERVICE) {
            let begin = Instant::now();
            let replicas = REPLICAS.to_string();
            let create =
                ["service", "create", "--detach", "--name", SERVICE, "--replicas", &replicas];
            form::ctl_output(self.lab, &[&create[..], &["--publish", "80:80", "web:1"]].concat())?;
            self.wait_replicas(|_| true)?;
            self.tell(begin, "two replicas answer");
        }
        self.wait_replicas(|_| true).map(drop)
    }

    /// Replicas on more than one worker: after power cuts they may all be on one, and with its daemon
    /// away nobody leads visitors to them. Created anew they are spread.
    fn spread(&self) -> Result<()> {
        let nodes = |replicas: &[Replica]| {
            replicas.iter().map(|replica| replica.node.clone()).collect::<BTreeSet<_>>().len()
        };
        if nodes(&self.wait_replicas(|_| true)?) > 1 {
            return Ok(());
        }
        form::ctl_output(self.lab, &["service", "rm", SERVICE])?;
        self.ensure_replicas()?;
        let replicas = self.wait_replicas(|_| true)?;
        ensure!(nodes(&replicas) > 1, "replicas are not spread over the workers: {replicas:?}");
        Ok(())
    }

    fn replicas(&self) -> Result<()> {
        let begin = Instant::now();
        visit::each(self.lab, &self.addresses(|_| true))?;
        self.tell(begin, "every worker has answered a visitor");
        Ok(())
    }

    /// Waits until as many replicas answer as there should be, on nodes that `counts` accepts; asks
    /// only those.
    fn wait_replicas(&self, counts: impl Fn(&str) -> bool + Copy + Sync) -> Result<Vec<Replica>> {
        let workers = self.addresses(counts);
        let on = |replicas: &[Replica]| {
            replicas.iter().filter(|replica| counts(&replica.node)).count() >= REPLICAS
        };
        let (replicas, _) = visit::until(self.lab, &workers, self.patience(), on)?;
        Ok(replicas.into_iter().filter(|replica| counts(&replica.node)).collect())
    }

    fn addresses(&self, counts: impl Fn(&str) -> bool) -> Vec<Ipv4Addr> {
        let workers = form::workers(self.lab).filter(|worker| counts(&worker.name()));
        workers.map(Machine::address).collect()
    }

    /// The worker that runs a replica.
    fn occupied(&self) -> Result<String> {
        let replicas = self.wait_replicas(|_| true)?;
        Ok(replicas.first().context("no replica answers")?.node.clone())
    }

    /// Ids of the service's tasks that should and do run.
    fn running_tasks(&self, service: &str) -> Result<Vec<String>> {
        let tasks = form::ctl_json(self.lab, &["service", "ps", service])?;
        let tasks = tasks.as_array().context("service ps printed no list")?.iter();
        let running = tasks.filter(|task| {
            task["desired_state"] == "running" && task["observed_state"] == "running"
        });
        let mut ids: Vec<String> =
            running.filter_map(|task| task["id"].as_str()).map(str::to_owned).collect();
        ids.sort();
        Ok(ids)
    }

    fn patience(&self) -> Duration {
        PATIENCE * self.lab.accelerator().patience().min(5)
    }

    /// Tries until it works; the last error is told if it never does.
    fn retry<T>(&self, what: &str, mut act: impl FnMut() -> Result<T>) -> Result<T> {
        let begin = Instant::now();
        loop {
            match act() {
                Ok(done) => return Ok(done),
                Err(error) if begin.elapsed() > self.patience() => {
                    return Err(error.context(format!("{what}, not within {:?}", self.patience())));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn tell(&self, begin: Instant, line: &str) {
        println!("    after {}: {line}", seconds(begin.elapsed()));
    }
}

/// The tasks, as long as they are the same ones.
fn ensure_untouched(before: &[String], after: &[String], what: &str) -> Result<()> {
    ensure!(before == after, "{what} replaced tasks: {before:?} became {after:?}");
    if before.is_empty() {
        bail!("no task ran before {what}")
    }
    Ok(())
}
