//! Measuring our own cluster: what a visitor on port 80 and a user of `clusterctl` see.
//!
//! "Running" means here that the replica answers HTTP through the routing mesh, which is stricter
//! than a state in a table.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_lab::Role;

use crate::cargo;
use crate::cluster::{Cluster, Replica, kill_process};

use super::figures::{Contender, Figure, Report};
use super::idle;
use super::load::{self, Load, Told};

pub(super) const NAME: &str = "bench";
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

pub(super) fn measure(
    bin_dir: &Path,
    archive: &Path,
    runs: usize,
    report: &mut Report,
) -> Result<()> {
    let cluster = Cluster::up(NAME, bin_dir)?;
    let measured = all(&cluster, archive, runs, report);
    if measured.is_err() {
        cluster.save_logs(&cargo::metadata()?.target_directory.join("bench-logs"))?;
    }
    let removed = cluster.down();
    measured.and(removed)
}

fn all(cluster: &Cluster, archive: &Path, runs: usize, report: &mut Report) -> Result<()> {
    cluster.lab.load_image(archive)?;
    let kinds = |name: &str| match name {
        "cluster-manager" => Some("manager"),
        "cluster-worker" => Some("worker"),
        _ => None,
    };
    idle::weigh(&cluster.lab, Contender::Ours, kinds, report)?;
    for _ in 0..runs {
        create_and_exit(cluster, report)?;
    }
    roll_ten(cluster, runs, report)?;
    under_load(cluster, report)?;
    create(cluster)?;
    let shims = |name: &str| (name == "cluster-shim").then_some("shim, one a container");
    idle::weigh(&cluster.lab, Contender::Ours, shims, report)?;
    for _ in 0..runs {
        worker_loss(cluster, report)?;
    }
    for run in 0..runs {
        leader_loss(cluster, run, report)?;
    }
    Ok(())
}

fn create(cluster: &Cluster) -> Result<(Vec<Replica>, Duration)> {
    let begin = Instant::now();
    cluster.ctl(&[
        "service",
        "create",
        "--detach",
        "--name",
        "web",
        "--replicas",
        "2",
        "--publish",
        "80:80",
        "web:1",
    ])?;
    let (replicas, _) = cluster.visit_until(PATIENCE, |seen| seen.len() == 2)?;
    Ok((replicas, begin.elapsed()))
}

/// A service a run: restart back-off grows with every failure of a slot, and the promise is about
/// the first one.
fn create_and_exit(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let (replicas, took) = create(cluster)?;
    report.sample(Figure::CreateToRunning, Contender::Ours, took);
    let victim = replicas[0].clone();
    let process = cluster.web_process(&victim.node)?;
    let begin = Instant::now();
    kill_process(process.pid)?;
    let (slot, task) = (victim.slot, victim.task);
    cluster.visit_until(PATIENCE, move |seen| {
        seen.values().any(|replica| replica.slot == slot && replica.task != task)
    })?;
    report.sample(Figure::ExitToReplaced, Contender::Ours, begin.elapsed());
    cluster.ctl(&["service", "rm", "web"])?;
    until("the end of the service's containers", || Ok(web_processes(cluster)? == 0))
}

/// The whole update of ten replicas, from the command to the last new task running.
fn roll_ten(cluster: &Cluster, runs: usize, report: &mut Report) -> Result<()> {
    cluster.ctl(&[
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "10",
        "--publish",
        "80:80",
        "--update-parallelism",
        "2",
        "--update-monitor",
        "0s",
        "web:1",
    ])?;
    for run in 0..runs {
        let image = if run % 2 == 0 { "web:2" } else { "web:1" };
        let begin = Instant::now();
        cluster.ctl(&["service", "update", "--detach", "--image", image, "web"])?;
        until("ten new tasks", || Ok(running(cluster, image)? == 10))?;
        report.sample(Figure::RollTen, Contender::Ours, begin.elapsed());
        until("the update to be over", || {
            let service = cluster.ctl_json(&["service", "inspect", "web"])?;
            Ok(service.to_string().contains("\"completed\""))
        })?;
    }
    Ok(())
}

fn running(cluster: &Cluster, image: &str) -> Result<usize> {
    let tasks = cluster.ctl_json(&["service", "ps", "web"])?;
    let all = tasks.as_array().context("service ps printed no list")?;
    let runs = all.iter().filter(|task| {
        task["image"] == image
            && task["desired_state"] == "running"
            && task["observed_state"] == "running"
    });
    Ok(runs.count())
}

/// Ten replicas under a steady load, while they are rolled, drained, and lose a worker.
fn under_load(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let load = Load::start(cluster)?;
    cluster.ctl(&["service", "update", "--image", "web:2", "--force", "web"])?;
    tell(report, "an update of ten replicas", load.stop(None)?);

    let load = Load::start(cluster)?;
    cluster.ctl(&["node", "drain", "worker-1"])?;
    tell(report, "a drain", load.stop(None)?);
    cluster.ctl(&["node", "update", "--availability", "active", "worker-1"])?;

    let victim = cluster.workers()?.into_iter().find(|(name, _)| name == "worker-2");
    let (name, address) = victim.context("worker-2 is not on")?;
    let load = Load::start(cluster)?;
    cluster.lab.kill(&name)?;
    until("ten tasks on what is left", || {
        let tasks = cluster.ctl_json(&["service", "ps", "web"])?;
        let all = tasks.as_array().context("service ps printed no list")?;
        let there = all.iter().filter(|task| {
            task["node"] != name.as_str()
                && task["desired_state"] == "running"
                && task["observed_state"] == "running"
        });
        Ok(there.count() == 10)
    })?;
    tell(report, "the loss of a worker (requests to the others)", load.stop(Some(address))?);
    cluster.lab.start(&name)?;
    until("the worker's return", || {
        let nodes = cluster.ctl_json(&["node", "ls"])?;
        let rows = nodes.as_array().context("node ls printed no list")?;
        Ok(rows.iter().any(|row| row["name"] == name.as_str() && row["state"] == "ready"))
    })?;
    cluster.ctl(&["service", "rm", "web"])?;
    until("the end of the service's containers", || Ok(web_processes(cluster)? == 0))
}

fn tell(report: &mut Report, during: &str, told: Told) {
    let error = told.first_error.map(|error| format!(", first: {error}")).unwrap_or_default();
    report.note(&format!(
        "{} requests a second during {during}: {} sent, {} failed{error}; p99 {:.0} ms.",
        load::RATE,
        told.sent,
        told.failed,
        told.p99.as_secs_f64() * 1000.0
    ));
}

fn web_processes(cluster: &Cluster) -> Result<usize> {
    let mut count = 0;
    for (worker, _) in cluster.workers()? {
        let processes = cluster.lab.processes(&worker)?.into_iter();
        count += processes
            .filter(|process| process.argv.first().is_some_and(|program| program == "/web"))
            .count();
    }
    Ok(count)
}

fn worker_loss(cluster: &Cluster, report: &mut Report) -> Result<()> {
    let (replicas, _) = cluster.visit_until(PATIENCE, |seen| seen.len() >= 2)?;
    let victim = replicas[0].node.clone();
    let begin = Instant::now();
    cluster.lab.kill(&victim)?;
    let gone = victim.clone();
    cluster.visit_until(PATIENCE, move |seen| {
        seen.values().filter(|replica| replica.node != gone).count() >= 2
    })?;
    report.sample(Figure::WorkerLossToReplaced, Contender::Ours, begin.elapsed());
    cluster.lab.start(&victim)?;
    until("the worker's return", || {
        let nodes = cluster.ctl_json(&["node", "ls"])?;
        let rows = nodes.as_array().context("node ls printed no list")?;
        Ok(rows.iter().any(|row| row["name"] == victim.as_str() && row["state"] == "ready"))
    })
}

fn leader_loss(cluster: &Cluster, run: usize, report: &mut Report) -> Result<()> {
    let leader = cluster.leader()?;
    let begin = Instant::now();
    cluster.lab.kill(&leader)?;
    // A write that changes nothing anybody runs: a label on a worker.
    let label = format!("bench.run={run}");
    until("the first write", || {
        Ok(cluster.ctl(&["node", "update", "--label-add", &label, "worker-1"]).is_ok())
    })?;
    report.sample(Figure::LeaderLossToWrite, Contender::Ours, begin.elapsed());
    cluster.lab.start(&leader)?;
    let managers = cluster.lab.status()?.into_iter().filter(|node| node.role == Role::Manager);
    let managers: Vec<_> = managers.map(|node| (node.name, node.address)).collect();
    until("all managers to be up to date", || {
        managers
            .iter()
            .try_fold(true, |all, (name, address)| Ok(all && cluster.is_current(name, *address)?))
    })
}

/// Waits for a condition between measurements; bounded, so that a stuck cluster ends the bench.
fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !condition()? {
        ensure!(begin.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(POLL);
    }
    Ok(())
}
