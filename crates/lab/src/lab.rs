//! The lab as its users see it.
//!
//! A `Lab` holds no state of its own beyond where it is: every call reads `lab.json` under the
//! lock, so that a test and a `clusterctl lab` beside it see the same thing.

mod disk;
mod faults;
mod links;
mod status;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use crate::bringup;
use crate::cgroup::Hierarchy;
use crate::error::{Error, Result};
use crate::exec::{self, CLIENT, Place};
use crate::forward::{self, Mapping};
use crate::netns;
use crate::node::{AGENT, Hall};
use crate::options::{LabOptions, Machine, validate_name};
use crate::process::Process;
use crate::state::{Folder, State};
use crate::switch::Switch;
use crate::teardown;

pub use self::status::{NodeState, NodeStatus, Role};

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

    /// Builds only the machines; `argv` says what runs on each in place of our daemons. Returns
    /// when all are started, and knows nothing of their readiness. For measuring others.
    pub fn up_machines(
        options: &LabOptions,
        argv: impl Fn(&Machine<'_>) -> Vec<String>,
    ) -> Result<Self> {
        bringup::up_machines(options, argv)
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

    /// Runs `act` on a thread of its own inside the place's network namespace and returns what it
    /// returns. Sockets made there stay there: this is how a test talks to nodes without a
    /// process per question.
    pub fn inside<'a, T: Send + 'static>(
        &self,
        place: impl Into<Place<'a>>,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let name = match place.into() {
            Place::Client => CLIENT,
            Place::Node(name) => {
                self.require_running(name)?;
                name
            }
        };
        netns::inside(&Switch::new(&self.name).namespace(name), move || Ok(act()))
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
