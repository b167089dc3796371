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
