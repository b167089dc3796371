//! `cargo xtask demo`: the whole story on real processes and containers, told as it happens.
//!
//! Three managers, three workers, two replicas of a web app on port 80; then one container is
//! killed, one worker loses power, the leader loses power; each time the clock runs until all is
//! well again. In the end everything is removed, and that nothing is left is checked.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cargo;
use crate::cluster::{Cluster, Replica, kill_process};
use crate::image;
use crate::interrupt;
use crate::phases::Phases;
use crate::setup;

const NAME: &str = "demo";
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct Args {
    /// Use the programs in this folder instead of building them.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Leave the lab running at the end; `clusterctl lab down` removes it.
    #[arg(long)]
    keep: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let mut phases = Phases::new();
    phases.run("set-up", || setup::ensure(&[setup::LAB]))?;
    let bin_dir = phases.run("build", || Cluster::build(args.bin_dir.as_deref()))?;
    let archive = phases.run("image", image::build)?;

    interrupt::remove_labs(&[NAME])?;
    let begin = Instant::now();
    say("A cluster on this machine: three managers, three workers, each a host of its own.");
    let cluster = Cluster::up(NAME, &bin_dir)?;
    told(begin.elapsed(), "all six are ready");
    let told_story = story(&cluster, &archive);
    if told_story.is_err() {
        let folder = cargo::metadata()?.target_directory.join("demo-logs");
        cluster.save_logs(&folder)?;
        eprintln!("the nodes' logs are in {}", folder.display());
    }
    if args.keep && told_story.is_ok() {
        println!("\nThe lab is still up: `clusterctl lab status --name {NAME}`.");
        return Ok(());
    }
    say("Everything is removed again.");
    let step = Instant::now();
    let removed = cluster.down();
    told_story?;
    removed?;
    told(step.elapsed(), "no process, namespace, mount or cgroup is left behind");
    println!("\nThe story took {:.1} s.", begin.elapsed().as_secs_f64());
    Ok(())
}

fn story(cluster: &Cluster, archive: &Path) -> Result<()> {
    let step = Instant::now();
    cluster.lab.load_image(archive).context("loading the image")?;
    told(step.elapsed(), "the web app's image is on every worker");
    let replicas = create(cluster)?;
    let replicas = kill_container(cluster, &replicas)?;
    let replicas = kill_worker(cluster, &replicas)?;
    kill_leader(cluster, &replicas)
}

/// Two replicas, reachable through every worker.
fn create(cluster: &Cluster) -> Result<Vec<Replica>> {
    say("Two replicas of a web app, published on port 80 of every worker:");
    typed("service create --name web --replicas 2 --publish 80:80 web:1");
    let step = Instant::now();
    let id = cluster.ctl(&[
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "2",
        "--publish",
        "80:80",
        "web:1",
    ])?;
    told(step.elapsed(), &format!("both run; service {}", id.trim()));
    typed("service ps web");
    print!("{}", indented(&cluster.ctl(&["service", "ps", "web"])?));

    say("A visitor asks every worker; each knows the way to every replica:");
    let (replicas, _) = cluster.visit_until(PATIENCE, |seen| seen.len() == 2)?;
    for (worker, replica) in cluster.visit_each()? {
        println!("    http://{worker}/ is answered by slot {} on {}", replica.slot, replica.node);
    }
    Ok(replicas)
}

fn kill_container(cluster: &Cluster, replicas: &[Replica]) -> Result<Vec<Replica>> {
    let victim = &replicas[0];
    let process = cluster.web_process(&victim.node)?;
    say(&format!(
        "kill -9 to the web server of slot {} on {} (process {}):",
        victim.slot, victim.node, process.pid
    ));
    let step = Instant::now();
    kill_process(process.pid)?;
    let replicas = wait_for_two(cluster, |replica, victim| replica.task != victim, &victim.task)?;
    told(step.elapsed(), &replaced(&replicas, &victim.slot));
    Ok(replicas)
}

fn kill_worker(cluster: &Cluster, replicas: &[Replica]) -> Result<Vec<Replica>> {
    let victim = replicas[0].node.clone();
    say(&format!("{victim} loses power, with a replica on it; nobody is told:"));
    typed(&format!("lab kill {victim}"));
    let step = Instant::now();
    cluster.lab.kill(&victim)?;
    let replicas = wait_for_two(cluster, |replica, victim| replica.node != victim, &victim)?;
    told(
        step.elapsed(),
        &format!("two replicas answer again, on {} and {}", replicas[0].node, replicas[1].node),
    );
    typed("node ls");
    print!("{}", indented(&cluster.ctl(&["node", "ls"])?));
    Ok(replicas)
}

fn kill_leader(cluster: &Cluster, before: &[Replica]) -> Result<()> {
    let leader = cluster.leader()?;
    say(&format!("{leader}, the leader, loses power; the next change is asked for at once:"));
    typed(&format!("lab kill {leader}"));
    let step = Instant::now();
    cluster.lab.kill(&leader)?;
    typed("service scale --detach web=3");
    loop {
        match cluster.ctl(&["service", "scale", "--detach", "web=3"]) {
            Ok(_) => break,
            Err(error) => {
                ensure!(step.elapsed() < PATIENCE, "no write within {PATIENCE:?}: {error:#}")
            }
        }
    }
    told(step.elapsed(), "the change is accepted and durable");
    let (after, took) = cluster.visit_until(PATIENCE, |seen| seen.len() >= 3)?;
    told(took, &format!("{} leads now; a third replica answers", cluster.leader()?));
    let untouched = before.iter().all(|old| after.iter().any(|new| new.task == old.task));
    ensure!(
        untouched,
        "a replica was replaced because the leader died: {before:?} became {after:?}"
    );
    println!("    the two replicas from before were not touched");
    Ok(())
}

/// Waits until two replicas that `is_new` accepts answer; returns exactly the new picture.
fn wait_for_two(
    cluster: &Cluster,
    is_new: fn(&Replica, &str) -> bool,
    victim: &str,
) -> Result<Vec<Replica>> {
    let victim = victim.to_owned();
    let gone = victim.clone();
    let (replicas, _) = cluster.visit_until(PATIENCE, move |seen| {
        seen.values().filter(|replica| is_new(replica, &gone)).count() >= 2
    })?;
    Ok(replicas.into_iter().filter(|replica| is_new(replica, &victim)).collect())
}

fn replaced(replicas: &[Replica], slot: &str) -> String {
    let successor = replicas.iter().find(|replica| replica.slot == slot);
    successor.map_or_else(
        || "two replicas answer again".to_owned(),
        |replica| format!("slot {slot} answers again, as a new task on {}", replica.node),
    )
}

fn say(line: &str) {
    println!("\n{line}");
}

fn typed(line: &str) {
    println!("  $ clusterctl {line}");
}

fn told(took: Duration, line: &str) {
    println!("    after {:>5.2} s: {line}", took.as_secs_f64());
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
