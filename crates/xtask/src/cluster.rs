//! A lab with the real programs, as demo and bench use it: what a user does with `clusterctl`,
//! and what a visitor sees on port 80.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cluster_lab::{Lab, LabOptions, Process, Role};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cargo;

const ANSWER_WITHIN: Duration = Duration::from_millis(400);
const POLL: Duration = Duration::from_millis(2);

/// One replica as it shows itself to visitors.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    pub task: String,
    pub slot: String,
    pub node: String,
}

/// A running lab and its `clusterctl`.
pub struct Cluster {
    pub lab: Lab,
    ctl: PathBuf,
}

impl Cluster {
    /// Builds the programs in release mode, unless there are some to use already; returns the
    /// folder they are in.
    pub fn build(present: Option<&Path>) -> Result<PathBuf> {
        if let Some(folder) = present {
            return folder.canonicalize().with_context(|| format!("opening {}", folder.display()));
        }
        let mut command = cargo::cargo(["build", "--release"]);
        for program in ["cluster-manager", "cluster-worker", "cluster-shim", "clusterctl"] {
            command.args(["--bin", program]);
        }
        for package in ["cluster-manager", "cluster-worker", "cluster-runtime", "cluster-ctl"] {
            command.args(["--package", package]);
        }
        cargo::run(&mut command)?;
        Ok(cargo::metadata()?.target_directory.join("release"))
    }

    /// Starts three managers and three workers under this name; what a killed earlier run left
    /// behind goes first.
    pub fn up(name: &str, bin_dir: &Path) -> Result<Self> {
        let options = LabOptions::new(name, bin_dir);
        Lab::remove_in(&options.base, name).context("removing an earlier lab")?;
        Self::with(&options)
    }

    /// Starts a lab as asked.
    pub fn with(options: &LabOptions) -> Result<Self> {
        let lab = Lab::up(options).context("starting the lab")?;
        Ok(Self { lab, ctl: options.helper.clone() })
    }

    /// Runs `clusterctl` as the client; an error carries what it said.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        let ctl = self.ctl.to_string_lossy();
        let argv: Vec<&str> = std::iter::once(ctl.as_ref()).chain(args.iter().copied()).collect();
        let output = self.lab.exec_output("client", &argv)?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("clusterctl {} ({}): {}{}", args.join(" "), output.status, stdout, stderr.trim());
        }
        Ok(stdout)
    }

    pub fn ctl_json(&self, args: &[&str]) -> Result<Value> {
        let text = self.ctl(&[args, &["--output", "json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("clusterctl {} printed no JSON", args.join(" ")))
    }

    /// The manager that leads.
    pub fn leader(&self) -> Result<String> {
        let info = self.ctl_json(&["cluster", "info"])?;
        let managers = info["managers"].as_array().context("cluster info lists no managers")?;
        let leader = managers.iter().find(|manager| manager["leader"] == true);
        let name = leader.and_then(|leader| leader["name"].as_str());
        Ok(name.context("no manager leads")?.to_owned())
    }

    /// Whether this manager by itself answers a linearizable read, hence holds all that was
    /// committed before.
    pub fn is_current(&self, manager: &str, address: Ipv4Addr) -> Result<bool> {
        let text =
            fs::read(self.lab.client_context_file()).context("reading the client's context")?;
        let mut context: Value =
            serde_json::from_slice(&text).context("reading the client's context")?;
        let all = context["managers"].as_array().context("the context names no managers")?;
        let prefix = format!("{address}:");
        let only = all.iter().find(|one| one.as_str().is_some_and(|one| one.starts_with(&prefix)));
        context["managers"] = Value::Array(only.cloned().into_iter().collect());
        let path = self.lab.folder().join(format!("{manager}-context.json"));
        fs::write(&path, context.to_string())
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(self
            .ctl(&["--context-file", &path.to_string_lossy(), "--timeout", "1s", "cluster", "info"])
            .is_ok())
    }

    /// Names and addresses of the workers that are on.
    pub fn workers(&self) -> Result<Vec<(String, Ipv4Addr)>> {
        let status = self.lab.status()?.into_iter();
        let on = status.filter(|node| {
            node.role == Role::Worker && node.state != cluster_lab::NodeState::Stopped
        });
        Ok(on.map(|node| (node.name, node.address)).collect())
    }

    /// Asks every worker's port until the replicas that answered satisfy `enough`; returns them
    /// and how long it took. A worker that does not answer is asked again.
    pub fn visit_until(
        &self,
        within: Duration,
        enough: impl Fn(&BTreeMap<String, Replica>) -> bool + Send + 'static,
    ) -> Result<(Vec<Replica>, Duration)> {
        let addresses: Vec<_> = self
            .workers()?
            .into_iter()
            .map(|(_, address)| SocketAddr::from((address, 80)))
            .collect();
        let begin = Instant::now();
        let seen = self.lab.inside("client", move || {
            let mut seen = BTreeMap::new();
            while begin.elapsed() < within {
                for address in &addresses {
                    if let Some(replica) =
                        ask(*address, "/").ok().as_deref().and_then(parse_replica)
                    {
                        seen.insert(replica.task.clone(), replica);
                    }
                }
                if enough(&seen) {
                    return Ok((seen.into_values().collect(), begin.elapsed()));
                }
                std::thread::sleep(POLL);
            }
            Err(seen)
        })?;
        seen.map_err(|seen| anyhow::anyhow!("not within {within:?}; answers came from {seen:?}"))
    }

    /// One visit through every worker; every worker must answer.
    pub fn visit_each(&self) -> Result<Vec<(String, Replica)>> {
        let workers = self.workers()?;
        self.lab.inside("client", move || {
            let visit = |(name, address): (String, Ipv4Addr)| {
                let answer = ask(SocketAddr::from((address, 80)), "/")
                    .with_context(|| format!("{name} does not answer"))?;
                let replica = parse_replica(&answer)
                    .with_context(|| format!("{name} answered {answer:?}"))?;
                Ok((name, replica))
            };
            workers.into_iter().map(visit).collect()
        })?
    }

    /// The web server's process of the replica on `node`.
    pub fn web_process(&self, node: &str) -> Result<Process> {
        let processes = self.lab.processes(node)?.into_iter();
        let mut webs = processes
            .filter(|process| process.argv.first().is_some_and(|program| program == "/web"));
        webs.next().with_context(|| format!("no web server runs on {node}"))
    }

    /// Keeps the logs of all nodes for whoever must find out what went wrong.
    pub fn save_logs(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        for node in self.lab.status()? {
            let target = folder.join(format!("{}.log", node.name));
            fs::copy(self.lab.log_path(&node.name), &target)
                .with_context(|| format!("writing {}", target.display()))?;
        }
        Ok(())
    }

    /// Removes the lab and proves that nothing of it is left.
    pub fn down(self) -> Result<()> {
        let (name, folder) = (self.lab.name().to_owned(), self.lab.folder().to_owned());
        self.lab.down().context("removing the lab")?;
        let base = folder.parent().unwrap_or(&folder);
        let mut left = Lab::leftovers_in(base, &name)?;
        left.extend(processes_naming(&folder));
        if left.is_empty() { Ok(()) } else { bail!("left behind: {}", left.join(", ")) }
    }
}

/// Processes whose command line names the lab's folder.
fn processes_naming(folder: &Path) -> Vec<String> {
    let needle = folder.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| {
        let pid = entry.file_name().into_string().ok()?.parse::<u32>().ok()?;
        let line = String::from_utf8_lossy(&fs::read(entry.path().join("cmdline")).ok()?)
            .replace('\0', " ");
        line.contains(&needle).then(|| format!("process {pid} ({})", line.trim()))
    });
    lines.collect()
}

/// SIGKILL to a process of this machine, as a crash would end it.
pub fn kill_process(pid: i32) -> Result<()> {
    kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("killing process {pid}"))
}

/// One GET; the body of a 200.
pub fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    ask_within(address, path, ANSWER_WITHIN)
}

/// The same, with time for a slow machine.
pub fn ask_within(address: SocketAddr, path: &str, within: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_read_timeout(Some(within))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()));
    }
    Ok(body.to_owned())
}

pub fn parse_replica(body: &str) -> Option<Replica> {
    let field = |name: &str| {
        let mut lines = body.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    Some(Replica { task: field("task")?, slot: field("slot")?, node: field("node")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_its_replica() {
        let replica =
            parse_replica("version 1\nservice web\ntask abc\nslot 2\nnode worker-3\n").unwrap();
        assert_eq!(
            (replica.task.as_str(), replica.slot.as_str(), replica.node.as_str()),
            ("abc", "2", "worker-3")
        );
        assert!(parse_replica("<html>").is_none());
    }
}
