//! Measuring Docker Swarm on the same machines: a `dockerd` on each, and its own API.
//!
//! "Running" is the state Swarm shows for a task. Nothing is published: Swarm's routing mesh needs
//! IPVS, which not every kernel has, and leaving it out is in Swarm's favour. Each daemon has its
//! own data folder and sockets; none is the machine's own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster_lab::{Lab, LabOptions, Machine, Role};
use serde_json::Value;

use crate::cluster::kill_process;

use super::figures::{Contender, Figure, Report};
use super::idle;

pub(super) const NAME: &str = "swarm";
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);

/// A running task as Swarm's API lists it.
#[derive(Clone, Debug)]
struct Task {
    id: String,
    slot: u64,
    node: String,
}

struct Swarm {
    lab: Lab,
}

pub(super) fn measure(
    bin_dir: &Path,
    archive: &Path,
    runs: usize,
    report: &mut Report,
) -> Result<()> {
    let options = LabOptions::new(NAME, bin_dir);
    Lab::remove_in(&options.base, NAME)?;
    let swarm = Swarm { lab: Lab::up_machines(&options, daemon)? };
    let measured = swarm.form(archive).and_then(|()| swarm.all(runs, report));
    let removed = swarm.lab.down().context("removing the lab");
    measured.and(removed)
}

fn daemon(machine: &Machine<'_>) -> Vec<String> {
    let data = machine.data.join("docker").display().to_string();
    let cgroup = format!("/clusterlab/{NAME}/{}/ctr", machine.name);
    let flags = [
        ("--data-root", data.as_str()),
        ("--exec-root", "/run/docker"),
        ("--pidfile", "/run/docker.pid"),
        ("--host", "unix:///run/docker.sock"),
        ("--cgroup-parent", cgroup.as_str()),
        ("--log-level", "error"),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]);
    std::iter::once("dockerd".to_owned()).chain(flags).collect()
}

impl Swarm {
    fn docker(&self, node: &str, args: &[&str]) -> Result<String> {
        let argv = [&["docker", "--host", "unix:///run/docker.sock"], args].concat();
        let output = self.lab.exec_output(node, &argv)?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("docker {} on {node} ({}): {}", args.join(" "), output.status, stderr.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Asks a node's API through its socket, seen through the daemon's root folder.
    fn api(&self, node: &str, path: &str) -> Result<Value> {
        let status = self.lab.status()?.into_iter().find(|row| row.name == node);
        let pid = status
            .and_then(|row| row.pid)
            .with_context(|| format!("dockerd does not run on {node}"))?;
        let mut stream = UnixStream::connect(format!("/proc/{pid}/root/run/docker.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // Version 1.0, so that the answer is not chunked.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) =
            answer.split_once("\r\n\r\n").context("the API's answer has no end of head")?;
        ensure!(head.contains(" 200 "), "{path}: {}", head.lines().next().unwrap_or_default());
        Ok(serde_json::from_str(body)?)
    }

    fn nodes(&self, role: Role) -> Result<Vec<(String, String)>> {
        let nodes = self.lab.status()?.into_iter().filter(|node| node.role == role);
        Ok(nodes.map(|node| (node.name, node.address.to_string())).collect())
    }

    fn form(&self, archive: &Path) -> Result<()> {
        let (managers, workers) = (self.nodes(Role::Manager)?, self.nodes(Role::Worker)?);
        for (node, _) in managers.iter().chain(&workers) {
            until("dockerd to answer", || Ok(self.api(node, "/info").is_ok()))?;
        }
        let (first, address) = &managers[0];
        self.docker(first, &["swarm", "init", "--advertise-addr", address])?;
        for (role, nodes) in [("manager", &managers[1..]), ("worker", &workers[..])] {
            let token = self.docker(first, &["swarm", "join-token", "--quiet", role])?;
            for (node, own) in nodes {
                let remote = format!("{address}:2377");
                self.docker(
                    node,
                    &["swarm", "join", "--token", &token, "--advertise-addr", own, &remote],
                )?;
            }
        }
        let archive = archive.display().to_string();
        for (node, _) in &workers {
            self.docker(node, &["load", "--quiet", "--input", &archive])?;
        }
        Ok(())
    }

    fn all(&self, runs: usize, report: &mut Report) -> Result<()> {
        let kinds = |name: &str| match name {
            "dockerd" => Some("dockerd"),
            "containerd" => Some("containerd"),
            _ => None,
        };
        idle::weigh(&self.lab, Contender::Swarm, kinds, report)?;
        for _ in 0..runs {
            self.create_and_exit(report)?;
        }
        self.roll_ten(runs, report)?;
        self.create()?;
        let shims = |name: &str| {
            name.starts_with("containerd-shim").then_some("containerd-shim, one a container")
        };
        idle::weigh(&self.lab, Contender::Swarm, shims, report)?;
        for _ in 0..runs {
            self.worker_loss(report)?;
        }
        for run in 0..runs {
            self.leader_loss(run, report)?;
        }
        Ok(())
    }

    /// A manager that is on and answers for the cluster.
    fn speaker(&self) -> Result<String> {
        for (node, _) in self.nodes(Role::Manager)? {
            if self.api(&node, "/nodes").is_ok() {
                return Ok(node);
            }
        }
        bail!("no manager of the swarm answers")
    }

    fn running(&self, speaker: &str) -> Result<Vec<Task>> {
        let listed = self.api(speaker, "/tasks")?;
        let tasks = listed.as_array().context("the task list is no list")?.iter();
        let running = tasks.filter(|task| {
            task["Status"]["State"] == "running" && task["DesiredState"] == "running"
        });
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(running
            .map(|task| Task {
                id: text(&task["ID"]),
                slot: task["Slot"].as_u64().unwrap_or(0),
                node: text(&task["NodeID"]),
            })
            .collect())
    }

    fn create(&self) -> Result<(Vec<Task>, Duration)> {
        let speaker = self.speaker()?;
        let begin = Instant::now();
        self.docker(
            &speaker,
            &[
                "service",
                "create",
                "--quiet",
                "--detach",
                "--no-resolve-image",
                "--name",
                "web",
                "--replicas",
                "2",
                "--constraint",
                "node.role==worker",
                "web:1",
            ],
        )?;
        let tasks = self.until_running(&speaker, |tasks| tasks.len() == 2)?;
        Ok((tasks, begin.elapsed()))
    }

    fn until_running(&self, speaker: &str, enough: impl Fn(&[Task]) -> bool) -> Result<Vec<Task>> {
        let mut tasks = Vec::new();
        until("the tasks to run", || {
            tasks = self.running(speaker)?;
            Ok(enough(&tasks))
        })?;
        Ok(tasks)
    }

    /// The lab's name of a node that Swarm names by id.
    fn name_of(&self, speaker: &str, id: &str) -> Result<String> {
        let node = self.api(speaker, &format!("/nodes/{id}"))?;
        Ok(node["Description"]["Hostname"]
            .as_str()
            .context("the node has no host name")?
            .to_owned())
    }

    fn create_and_exit(&self, report: &mut Report) -> Result<()> {
        let (tasks, took) = self.create()?;
        report.sample(Figure::CreateToRunning, Contender::Swarm, took);
        let speaker = self.speaker()?;
        let victim = tasks[0].clone();
        let node = self.name_of(&speaker, &victim.node)?;
        let processes = self.lab.processes(&node)?.into_iter();
        let mut webs = processes
            .filter(|process| process.argv.first().is_some_and(|program| program == "/web"));
        let process = webs.next().with_context(|| format!("no web server runs on {node}"))?;
        let begin = Instant::now();
        kill_process(process.pid)?;
        self.until_running(&speaker, |tasks| {
            tasks.iter().any(|task| task.slot == victim.slot && task.id != victim.id)
        })?;
        report.sample(Figure::ExitToReplaced, Contender::Swarm, begin.elapsed());
        self.docker(&speaker, &["service", "rm", "web"])?;
        until("the service's containers to end", || {
            Ok(self.nodes(Role::Worker)?.iter().all(|(node, _)| {
                self.api(node, "/containers/json")
                    .is_ok_and(|list| list.as_array().is_some_and(Vec::is_empty))
            }))
        })
    }

    /// The same update as ours, by Swarm's own rules: each batch waits for running.
    fn roll_ten(&self, runs: usize, report: &mut Report) -> Result<()> {
        let speaker = self.speaker()?;
        let create = "service create --quiet --detach --no-resolve-image --name web --replicas 10 \
                      --update-parallelism 2 --constraint node.role==worker web:1";
        self.docker(&speaker, &create.split_whitespace().collect::<Vec<_>>())?;
        let mut old = self.until_running(&speaker, |tasks| tasks.len() == 10)?;
        for run in 0..runs {
            let image = if run % 2 == 0 { "web:2" } else { "web:1" };
            let begin = Instant::now();
            self.docker(
                &speaker,
                &[
                    "service",
                    "update",
                    "--quiet",
                    "--detach",
                    "--no-resolve-image",
                    "--image",
                    image,
                    "web",
                ],
            )?;
            let before: Vec<String> = old.iter().map(|task| task.id.clone()).collect();
            old = self.until_running(&speaker, |tasks| {
                tasks.iter().filter(|task| !before.contains(&task.id)).count() == 10
            })?;
            report.sample(Figure::RollTen, Contender::Swarm, begin.elapsed());
            until("the update to be over", || {
                let service = self.api(&speaker, "/services/web")?;
                Ok(service["UpdateStatus"]["State"] == "completed")
            })?;
        }
        self.docker(&speaker, &["service", "rm", "web"])?;
        until("the service's containers to end", || {
            Ok(self.nodes(Role::Worker)?.iter().all(|(node, _)| {
                self.api(node, "/containers/json")
                    .is_ok_and(|list| list.as_array().is_some_and(Vec::is_empty))
            }))
        })
    }

    fn worker_loss(&self, report: &mut Report) -> Result<()> {
        let speaker = self.speaker()?;
        let tasks = self.until_running(&speaker, |tasks| tasks.len() == 2)?;
        let victim = tasks[0].node.clone();
        let node = self.name_of(&speaker, &victim)?;
        let begin = Instant::now();
        self.lab.kill(&node)?;
        self.until_running(&speaker, |tasks| {
            tasks.iter().filter(|task| task.node != victim).count() >= 2
        })?;
        report.sample(Figure::WorkerLossToReplaced, Contender::Swarm, begin.elapsed());
        self.lab.start(&node)?;
        until("the worker's return", || {
            Ok(self.api(&speaker, &format!("/nodes/{victim}"))?["Status"]["State"] == "ready")
        })
    }

    fn leader_loss(&self, run: usize, report: &mut Report) -> Result<()> {
        let listed = self.api(&self.speaker()?, "/nodes")?;
        let nodes = listed.as_array().context("the node list is no list")?;
        let leader = nodes.iter().find(|node| node["ManagerStatus"]["Leader"] == true);
        let leader = leader
            .and_then(|node| node["Description"]["Hostname"].as_str())
            .context("nobody leads")?;
        let managers = self.nodes(Role::Manager)?;
        let others: Vec<&str> =
            managers.iter().map(|(name, _)| name.as_str()).filter(|name| *name != leader).collect();
        let label = format!("bench.run={run}");
        let begin = Instant::now();
        self.lab.kill(leader)?;
        until("the first write", || {
            let write = |node: &&str| {
                self.docker(node, &["node", "update", "--label-add", &label, "worker-1"]).is_ok()
            };
            Ok(others.iter().any(write))
        })?;
        report.sample(Figure::LeaderLossToWrite, Contender::Swarm, begin.elapsed());
        self.lab.start(leader)?;
        until("all managers to be reachable", || {
            let Ok(listed) = self.api(others[0], "/nodes") else { return Ok(false) };
            let nodes = listed.as_array().map(Vec::as_slice).unwrap_or_default();
            let reachable =
                nodes.iter().filter(|node| node["ManagerStatus"]["Reachability"] == "reachable");
            Ok(reachable.count() == managers.len())
        })
    }
}

fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !condition()? {
        ensure!(begin.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(POLL);
    }
    Ok(())
}
