//! The lab as its users see it.
//!
//! A `Lab` holds no state of its own beyond where it is: every call reads `lab.json` under the
//! lock, so that a test and a `clusterctl lab` beside it see the same thing.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use serde::{Deserialize, Serialize};

use crate::bringup;
use crate::cgroup::Hierarchy;
use crate::error::{Error, Result};
use crate::exec::{self, CLIENT, Place};
use crate::forward::{self, Mapping};
use crate::node::{AGENT, Hall};
use crate::options::{LabOptions, validate_name};
use crate::process::Process;
use crate::state::{Folder, Node, State};
use crate::switch::{Cut, Direction, Switch};
use crate::teardown;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Manager,
    Worker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manager => "manager",
            Self::Worker => "worker",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    Running,
    /// The node is on, its agent is not.
    AgentDown,
    Stopped,
    Paused,
    /// On, but some or all frames from or to it are dropped.
    Cut,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::AgentDown => "agent-down",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
            Self::Cut => "cut",
        })
    }
}

/// One row of `lab status`; who leads only the cluster itself can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub name: String,
    pub role: Role,
    pub address: Ipv4Addr,
    /// The agent's pid on this machine.
    pub pid: Option<i32>,
    pub state: NodeState,
}

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    name: String,
    folder: Folder,
    cgroups: Hierarchy,
}

impl Lab {
    /// Builds the lab and returns when every node is ready. On an error everything is removed
    /// again; the error carries the end of the log that explains it.
    pub fn up(options: &LabOptions) -> Result<Self> {
        bringup::up(options)
    }

    /// Opens the lab `name` under [`crate::default_base`].
    pub fn open(name: &str) -> Result<Self> {
        Self::open_in(&crate::default_base(), name)
    }

    /// Opens the lab `name` under `base`.
    pub fn open_in(base: &Path, name: &str) -> Result<Self> {
        let lab = Self::at(base, name)?;
        lab.load()?;
        Ok(lab)
    }

    /// The handle of a lab that may not be there yet.
    pub(crate) fn at(base: &Path, name: &str) -> Result<Self> {
        require_root()?;
        validate_name(name)?;
        let folder = Folder { path: base.join(name) };
        Ok(Self { name: name.to_owned(), folder, cgroups: Hierarchy::detect()? })
    }

    /// The names of the labs under `base`.
    pub fn names_in(base: &Path) -> Vec<String> {
        let entries = fs::read_dir(base).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter(|entry| entry.path().join("lab.json").is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Removes the lab: processes, namespaces, cgroups, mounts, folder.
    pub fn down(self) -> Result<()> {
        teardown::remove(&self)
    }

    /// Removes whatever there is of the lab `name`, half-built or whole; fine when there is
    /// nothing.
    pub fn remove_in(base: &Path, name: &str) -> Result<()> {
        teardown::remove(&Self::at(base, name)?)
    }

    /// What is left of the lab `name`: cgroups, namespaces, mounts, folder. Empty after a `down`
    /// that went well.
    pub fn leftovers_in(base: &Path, name: &str) -> Result<Vec<String>> {
        let lab = Self::at(base, name)?;
        Ok(teardown::leftovers(name, lab.folder(), lab.cgroups.leftovers(name)))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// The context file for programs on the machine; it names forwarded loopback ports.
    pub fn context_file(&self) -> PathBuf {
        self.folder.context()
    }

    /// The context file for programs in the client's namespace.
    pub fn client_context_file(&self) -> PathBuf {
        self.folder.client_context()
    }

    /// Where the agent of `node` logs.
    pub fn log_path(&self, node: &str) -> PathBuf {
        self.folder.log(node)
    }

    /// The data folder of `node`'s agent.
    pub fn data_path(&self, node: &str) -> PathBuf {
        self.folder.data(node)
    }

    pub fn status(&self) -> Result<Vec<NodeStatus>> {
        let state = self.load()?;
        state.nodes.iter().map(|node| self.node_status(&state, node)).collect()
    }

    fn node_status(&self, state: &State, node: &Node) -> Result<NodeStatus> {
        let row = |state, pid| NodeStatus {
            name: node.name.clone(),
            role: node.role,
            address: node.address,
            pid,
            state,
        };
        if node.running().is_none() {
            return Ok(row(NodeState::Stopped, None));
        }
        let pid = self.hall(|hall| hall.agent(&self.name, &node.name))?.map(|agent| agent.pid);
        let summary = if self.cgroups.is_frozen(&self.name, &node.name) {
            NodeState::Paused
        } else if state.cuts.iter().any(|cut| cut.concerns(&node.name)) {
            NodeState::Cut
        } else if pid.is_none() {
            NodeState::AgentDown
        } else {
            NodeState::Running
        };
        Ok(row(summary, pid))
    }

    /// Power-off: the cable goes first, so that peers hear nothing, then agent, shims and
    /// containers die at once. Fine for a node that is off.
    pub fn kill(&self, node: &str) -> Result<()> {
        self.change(|hall, state| {
            let init = state.node(node)?.init;
            hall.switch_off(&state.name, node, init)?;
            state.node_mut(node)?.init = None;
            Ok(())
        })
    }

    /// Power-on, with the data the node had. Fine for a node that is on.
    pub fn start(&self, node: &str) -> Result<()> {
        self.change(|hall, state| {
            if state.node(node)?.running().is_some() {
                return Ok(());
            }
            let init = state.node(node)?.init;
            hall.switch_off(&state.name, node, init)?;
            let init = hall.switch_on(state, node)?;
            state.node_mut(node)?.init = Some(init);
            Ok(())
        })
    }

    /// Freezes every process of the node.
    pub fn pause(&self, node: &str) -> Result<()> {
        self.require_running(node)?;
        self.cgroups.freeze(&self.name, node, true)
    }

    /// Undoes [`Lab::pause`].
    pub fn resume(&self, node: &str) -> Result<()> {
        self.require_running(node)?;
        self.cgroups.freeze(&self.name, node, false)
    }

    /// A silent partition of the node from everyone.
    pub fn cut(&self, node: &str) -> Result<()> {
        self.add_cuts(vec![
            Cut::Node { node: node.to_owned(), direction: Direction::In },
            Cut::Node { node: node.to_owned(), direction: Direction::Out },
        ])
    }

    /// A partition in one direction only.
    pub fn cut_one_way(&self, node: &str, direction: Direction) -> Result<()> {
        self.add_cuts(vec![Cut::Node { node: node.to_owned(), direction }])
    }

    /// Drops what `from` sends to `to`; both may also be `client`.
    pub fn cut_link(&self, from: &str, to: &str) -> Result<()> {
        self.add_cuts(vec![Cut::Link { from: from.to_owned(), to: to.to_owned() }])
    }

    fn add_cuts(&self, cuts: Vec<Cut>) -> Result<()> {
        self.change(|hall, state| {
            for cut in cuts {
                let places = match &cut {
                    Cut::Node { node, .. } => vec![node],
                    Cut::Link { from, to } => vec![from, to],
                };
                for place in places {
                    if place != CLIENT {
                        state.node(place)?;
                    }
                }
                state.cuts.push(cut);
            }
            state.cuts.sort();
            state.cuts.dedup();
            hall.switch.set_cuts(&state.cuts)
        })
    }

    /// Removes every cut that concerns the node.
    pub fn heal(&self, node: &str) -> Result<()> {
        self.change(|hall, state| {
            state.node(node)?;
            state.cuts.retain(|cut| !cut.concerns(node));
            hall.switch.set_cuts(&state.cuts)
        })
    }

    /// SIGKILL to the agent alone; shims and containers live on.
    pub fn kill_agent(&self, node: &str) -> Result<()> {
        self.require_running(node)?;
        self.hall(|hall| hall.kill_agent(&self.name, node))
    }

    /// Starts the agent of a node that is on. Fine when it runs.
    pub fn start_agent(&self, node: &str) -> Result<()> {
        self.require_running(node)?;
        self.hall(|hall| hall.start_agent(&self.name, node))
    }

    /// How the agent ended last, when it does not run: its code or signal.
    pub fn agent_exit(&self, node: &str) -> Result<Option<String>> {
        self.load()?.node(node)?;
        Ok(self.hall(|hall| hall.agent_exit(node)))
    }

    /// Every process of the node, containers included, with the pids of this machine.
    pub fn processes(&self, node: &str) -> Result<Vec<Process>> {
        self.load()?.node(node)?;
        self.cgroups.processes(&self.name, node)
    }

    /// A command that will run on a node or as the client; the caller spawns it.
    pub fn command<'a, S: AsRef<OsStr>>(
        &self,
        place: impl Into<Place<'a>>,
        argv: &[S],
    ) -> Result<Command> {
        exec::command(&self.load()?, &self.folder, &self.cgroups, place.into(), argv)
    }

    /// Runs a command to its end with our own streams.
    pub fn exec<'a, S: AsRef<OsStr>>(
        &self,
        place: impl Into<Place<'a>>,
        argv: &[S],
    ) -> Result<ExitStatus> {
        let mut command = self.command(place, argv)?;
        command.status().map_err(|source| Error::Spawn { program: shown(argv), source })
    }

    /// Runs a command to its end and returns what it printed.
    pub fn exec_output<'a, S: AsRef<OsStr>>(
        &self,
        place: impl Into<Place<'a>>,
        argv: &[S],
    ) -> Result<Output> {
        let mut command = self.command(place, argv)?;
        command.stdin(Stdio::null());
        command.output().map_err(|source| Error::Spawn { program: shown(argv), source })
    }

    /// Imports an image archive on every worker that is on, several at a time.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let archive =
            fs::canonicalize(archive).map_err(|source| Error::file("opening", archive, source))?;
        let state = self.load()?;
        let workers =
            state.nodes.iter().filter(|node| node.role == Role::Worker && node.running().is_some());
        let workers: Vec<_> = workers.map(|node| node.name.as_str()).collect();
        for group in workers.chunks(4) {
            let loaded: Vec<Result<()>> = std::thread::scope(|scope| {
                let load = |node: &str| self.load_image_on(&state, node, &archive);
                let threads: Vec<_> =
                    group.iter().map(|node| scope.spawn(move || load(node))).collect();
                threads
                    .into_iter()
                    .map(|thread| {
                        thread.join().unwrap_or_else(|_| Err(panicked("loading the image")))
                    })
                    .collect()
            });
            loaded.into_iter().collect::<Result<Vec<()>>>()?;
        }
        Ok(())
    }

    fn load_image_on(&self, state: &State, node: &str, archive: &Path) -> Result<()> {
        let worker = state.bin_dir.join("cluster-worker");
        let data = self.folder.data(node);
        let argv: [&OsStr; 6] = [
            worker.as_os_str(),
            "image".as_ref(),
            "load".as_ref(),
            "--data-dir".as_ref(),
            data.as_os_str(),
            archive.as_os_str(),
        ];
        let output = self.exec_output(node, &argv)?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Command {
            program: format!("cluster-worker image load on {node}"),
            status: output.status,
            stderr,
        })
    }

    /// Forwards a loopback address of the machine to a published port of the mesh; returns the
    /// bound address, which differs when port 0 was asked for.
    pub fn expose(&self, listen: SocketAddr, port: u16) -> Result<SocketAddr> {
        self.change(|hall, state| {
            let workers = state.nodes.iter().filter(|node| node.role == Role::Worker);
            let targets = workers.map(|node| SocketAddr::from((node.address, port))).collect();
            let bound = start_forwarder(hall, state, &[Mapping { listen, targets }])?;
            Ok(bound[0])
        })
    }

    pub(crate) fn load(&self) -> Result<State> {
        let base = || self.folder.path.parent().unwrap_or(&self.folder.path).to_owned();
        self.folder
            .load()?
            .ok_or_else(|| Error::NoSuchLab { name: self.name.clone(), base: base() })
    }

    fn require_running(&self, node: &str) -> Result<()> {
        let state = self.load()?;
        if state.node(node)?.running().is_some() {
            return Ok(());
        }
        Err(Error::WrongState { node: node.to_owned(), state: "stopped", fix: "start it first" })
    }

    pub(crate) fn folder_ref(&self) -> &Folder {
        &self.folder
    }

    pub(crate) fn cgroups(&self) -> &Hierarchy {
        &self.cgroups
    }

    /// Works on the nodes without changing the lab's state.
    pub(crate) fn hall<T>(&self, act: impl FnOnce(&Hall<'_>) -> T) -> T {
        let switch = Switch::new(&self.name);
        act(&Hall { folder: &self.folder, cgroups: &self.cgroups, switch: &switch })
    }

    /// Changes the lab under its lock; the state is saved even when `act` fails midway, since
    /// what it did stays done.
    pub(crate) fn change<T>(
        &self,
        act: impl FnOnce(&Hall<'_>, &mut State) -> Result<T>,
    ) -> Result<T> {
        self.load()?;
        let _lock = self.folder.lock()?;
        let mut state = self.load()?;
        let outcome = self.hall(|hall| act(hall, &mut state));
        self.folder.save(&state)?;
        outcome
    }
}

/// Starts one forwarding process for these mappings and remembers it.
pub(crate) fn start_forwarder(
    hall: &Hall<'_>,
    state: &mut State,
    mappings: &[Mapping],
) -> Result<Vec<SocketAddr>> {
    let cgroup = hall.cgroups.create(&state.name, "forward", AGENT)?;
    let namespace = hall.switch.namespace(CLIENT);
    let (process, bound) = forward::start(&state.helper, &namespace, &cgroup, mappings)?;
    state.forwarders.push(process);
    Ok(bound)
}

pub(crate) fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(Error::NotRoot) }
}

fn panicked(doing: &'static str) -> Error {
    Error::system(doing, "a node", io::Error::other("the thread panicked"))
}

fn shown<S: AsRef<OsStr>>(argv: &[S]) -> String {
    argv.first().map_or_else(String::new, |program| program.as_ref().to_string_lossy().into_owned())
}
