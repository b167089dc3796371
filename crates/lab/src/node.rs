//! One node: switching it on and off, and its agent.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::cgroup::{Hierarchy, node_path};
use crate::enter::Entry;
use crate::error::{Error, Result};
use crate::init::{Files, Spec};
use crate::netns;
use crate::process::{Identity, Process, innermost_pid, wait_for};
use crate::relay::{Config, LaneRule};
use crate::state::{Folder, Node, State, write_private};
use crate::switch::Switch;

/// The cgroup leaf of agent and shims; containers get [`CONTAINERS`].
pub(crate) const AGENT: &str = "agent";
const CONTAINERS: &str = "ctr";
const AGENT_WITHIN: Duration = Duration::from_secs(5);

/// The tools that work on the nodes of one lab.
pub(crate) struct Hall<'a> {
    pub folder: &'a Folder,
    pub cgroups: &'a Hierarchy,
    pub switch: &'a Switch,
}

/// What to hand the runtime as the parent of containers' cgroups.
pub(crate) fn container_cgroup(lab: &str, node: &str) -> String {
    format!("/{}/{CONTAINERS}", node_path(lab, node))
}

impl Hall<'_> {
    fn files(&self, node: &str) -> Files {
        Files::new(&self.folder.node(node))
    }

    /// Power on: namespaces, cable, process 1, agent.
    pub fn switch_on(&self, state: &State, name: &str) -> Result<Identity> {
        let node = state.node(name)?;
        self.switch.plug(name, node.address)?;
        let leaf = self.cgroups.create(&state.name, name, AGENT)?;
        self.cgroups.create(&state.name, name, CONTAINERS)?;
        let spec = self.write_spec(state, node)?;
        let mut command = Command::new(&state.helper);
        command
            .args(["lab", "__node-init"])
            .arg(&spec)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let fresh = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWPID;
        Entry::default()
            .new_session()
            .cgroup(&leaf)?
            .join(&netns::path(&self.switch.namespace(name)), CloneFlags::CLONE_NEWNET)?
            .leave(fresh)
            .apply(&mut command);
        let program = state.helper.display().to_string();
        let output = command.output().map_err(|source| Error::Spawn { program, source })?;
        let said = String::from_utf8_lossy(&output.stdout);
        let failed =
            |reason: &str| Error::NodeInit { node: name.to_owned(), reason: reason.to_owned() };
        if let Some(reason) = said.lines().find_map(|line| line.strip_prefix("error ")) {
            return Err(failed(reason));
        }
        if !said.lines().any(|line| line == "ready") {
            return Err(failed(&format!(
                "process 1 ended early ({}): {}",
                output.status,
                said.trim()
            )));
        }
        let pid = said.lines().find_map(|line| line.strip_prefix("pid ")?.parse().ok());
        pid.and_then(Identity::of).ok_or_else(|| failed("process 1 is gone"))
    }

    fn write_spec(&self, state: &State, node: &Node) -> Result<PathBuf> {
        let folder = self.folder.node(&node.name);
        fs::create_dir_all(&folder).map_err(|source| Error::file("creating", &folder, source))?;
        self.mount_disk(state, &node.name)?;
        let files = self.files(&node.name);
        for stale in [&files.pid, &files.exit] {
            remove_if_there(stale)?;
        }
        match nix::unistd::mkfifo(&files.control, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(errno) => return Err(Error::file("creating", files.control, errno.into())),
        }
        let spec = Spec {
            node: node.name.clone(),
            argv: node.argv.clone(),
            env: node.env.clone(),
            log: self.folder.log(&node.name),
            hosts: self.folder.hosts(),
            files,
        };
        let path = folder.join("init.json");
        let text = serde_json::to_vec(&spec)
            .map_err(|source| Error::BadState { path: path.clone(), source })?;
        write_private(&path, &text)?;
        Ok(path)
    }

    /// The node's disk, where it is one of its own; it outlives power-offs.
    fn mount_disk(&self, state: &State, name: &str) -> Result<()> {
        let Some(bytes) = state.disk else { return Ok(()) };
        let path = self.folder.data(name);
        fs::create_dir_all(&path).map_err(|source| Error::file("creating", &path, source))?;
        if is_mount_point(&path) {
            return Ok(());
        }
        let options = format!("size={bytes},mode=700");
        let kind = Some("tmpfs");
        mount(kind, &path, kind, MsFlags::empty(), Some(options.as_str()))
            .map_err(|errno| Error::file("mounting a disk at", path, errno.into()))
    }

    /// Power off: first the cable, so that nobody hears the sockets close, then everything dies.
    /// Fine for a node that is off already, or half on.
    pub fn switch_off(&self, lab: &str, name: &str, init: Option<Identity>) -> Result<()> {
        self.switch.unplug(name)?;
        if let Some(init) = init {
            init.kill()?;
        }
        self.cgroups.destroy(lab, Some(name))?;
        self.switch.discard(name)?;
        let files = self.files(name);
        remove_if_there(&files.pid)
    }

    /// The agent of a running node, when it runs.
    pub fn agent(&self, lab: &str, name: &str) -> Result<Option<Process>> {
        let Ok(text) = fs::read_to_string(self.files(name).pid) else {
            return Ok(None);
        };
        let Ok(inner) = text.trim().parse::<i32>() else {
            return Ok(None);
        };
        let mut processes = self.cgroups.processes(lab, name)?.into_iter();
        // Containers' PID namespaces lie deeper and have the same small numbers.
        Ok(processes
            .find(|process| process.cgroup == AGENT && innermost_pid(process.pid) == Some(inner)))
    }

    /// SIGKILL to the agent alone; containers and shims live on.
    pub fn kill_agent(&self, lab: &str, name: &str) -> Result<()> {
        let Some(agent) = self.agent(lab, name)?.and_then(|agent| Identity::of(agent.pid)) else {
            return Ok(());
        };
        agent.kill()?;
        let gone = || (!self.files(name).pid.exists()).then_some(());
        wait_for(AGENT_WITHIN, gone).ok_or_else(|| self.agent_timeout(name, "the end of the agent"))
    }

    /// Sends a signal to the agent alone; fine when there is none.
    pub fn signal_agent(&self, lab: &str, name: &str, signal: Signal) -> Result<()> {
        match self.agent(lab, name)?.and_then(|agent| Identity::of(agent.pid)) {
            Some(agent) => agent.signal(signal),
            None => Ok(()),
        }
    }

    /// Starts the relay of a node's port and puts it between port and bridge.
    pub fn start_relay(&self, state: &State, name: &str, lanes: Vec<LaneRule>) -> Result<Identity> {
        let (port, trunk) = self.switch.divert(name)?;
        let config = Config { port, trunk, seed: seed_of(name), lanes };
        let path = self.folder.node(name).join("relay.json");
        let text = serde_json::to_vec(&config)
            .map_err(|source| Error::BadState { path: path.clone(), source })?;
        write_private(&path, &text)?;
        let mut command = Command::new(&state.helper);
        command
            .args(["lab", "__relay"])
            .arg(&path)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let leaf = self.cgroups.create(&state.name, "relay", AGENT)?;
        let namespace = netns::path(&self.switch.namespace("switch"));
        Entry::default()
            .new_session()
            .cgroup(&leaf)?
            .join(&namespace, CloneFlags::CLONE_NEWNET)?
            .apply(&mut command);
        let program = state.helper.display().to_string();
        let spawn_error = |source| Error::Spawn { program: program.clone(), source };
        let mut child = command.spawn().map_err(spawn_error)?;
        let mut said = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            io::Read::read_to_string(&mut stdout, &mut said).map_err(spawn_error)?;
        }
        let relay = i32::try_from(child.id()).ok().and_then(Identity::of);
        // Waited for beside us, so that its end leaves no corpse in a process that lives long.
        std::thread::spawn(move || child.wait());
        match relay {
            Some(relay) if said.lines().any(|line| line == "ready") => Ok(relay),
            _ => Err(Error::NodeInit {
                node: format!("the relay of {name}"),
                reason: said.trim().to_owned(),
            }),
        }
    }

    /// Starts the agent of a running node again; fine when it runs.
    pub fn start_agent(&self, lab: &str, name: &str) -> Result<()> {
        self.send_start(name)?;
        let started = wait_for(AGENT_WITHIN, || match self.agent(lab, name) {
            Ok(None) => None,
            Ok(Some(_)) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        });
        started.unwrap_or_else(|| Err(self.agent_timeout(name, "the start of the agent")))
    }

    /// Starts the agent and waits for its end; `None` when it still runs after `within`.
    pub fn try_agent(&self, name: &str, within: Duration) -> Result<Option<String>> {
        let files = self.files(name);
        remove_if_there(&files.exit)?;
        self.send_start(name)?;
        let ended =
            || (!files.pid.exists()).then(|| fs::read_to_string(&files.exit).ok()).flatten();
        Ok(wait_for(within, ended))
    }

    fn send_start(&self, name: &str) -> Result<()> {
        let control = self.files(name).control;
        let sent = fs::File::options().read(true).write(true).open(&control);
        sent.and_then(|mut fifo| fifo.write_all(b"start\n"))
            .map_err(|source| Error::file("writing", control, source))
    }

    /// How the agent of this node ended, when it ended.
    pub fn agent_exit(&self, name: &str) -> Option<String> {
        let files = self.files(name);
        if files.pid.exists() {
            return None;
        }
        fs::read_to_string(files.exit).ok()
    }

    fn agent_timeout(&self, name: &str, what: &str) -> Error {
        let detail = format!("see {}", self.folder.log(name).display());
        Error::TimedOut { what: format!("{what} of {name}"), within: AGENT_WITHIN, detail }
    }
}

/// Each port has dice of its own, and the same in every run.
fn seed_of(name: &str) -> u64 {
    name.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(257).wrapping_add(byte.into()))
}

fn is_mount_point(path: &std::path::Path) -> bool {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| path == point)
}

fn remove_if_there(path: &std::path::Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("removing", path, source))
        }
        _ => Ok(()),
    }
}
