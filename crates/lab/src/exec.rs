//! Running a command on a node or as the client.
//!
//! On a node the command joins all its namespaces. Joining a PID namespace takes a fork after
//! the fact, hence the small process `__enter` between us and the command; it passes the exit
//! code on. The client is only a network namespace with the lab's hosts file.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};

use crate::cgroup::Hierarchy;
use crate::enter::{Entry, unblock_signals};
use crate::error::{Error, Result};
use crate::netns;
use crate::node::AGENT;
use crate::state::{Folder, Node, State};
use crate::switch::Switch;

/// The name of the client's namespace, also accepted as a place to run commands.
pub(crate) const CLIENT: &str = "client";
const NOT_FOUND: i32 = 127;

/// Where a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    Client,
    Node(&'a str),
}

impl<'a> From<&'a str> for Place<'a> {
    fn from(name: &'a str) -> Self {
        if name == CLIENT { Self::Client } else { Self::Node(name) }
    }
}

impl<'a> From<&'a String> for Place<'a> {
    fn from(name: &'a String) -> Self {
        Self::from(name.as_str())
    }
}

/// A command ready to be spawned, with inherited streams unless the caller says otherwise.
pub(crate) fn command<S: AsRef<OsStr>>(
    state: &State,
    folder: &Folder,
    cgroups: &Hierarchy,
    place: Place<'_>,
    argv: &[S],
) -> Result<Command> {
    let [program, args @ ..] = argv else {
        return Err(Error::BadOption {
            what: "command",
            value: String::new(),
            fix: "give a command after --",
        });
    };
    let mut command = match place {
        Place::Client => {
            let mut command = Command::new(program);
            command.args(args);
            client_entry(state, folder, cgroups)?.apply(&mut command);
            command
        }
        Place::Node(name) => {
            let mut command = Command::new(&state.helper);
            command.args(["lab", "__enter", "--"]).arg(program).args(args);
            node_entry(state, cgroups, state.node(name)?)?.apply(&mut command);
            command
        }
    };
    command
        .env("CLUSTERCTL_CONTEXT_FILE", folder.client_context())
        .env("PATH", search_path(&state.bin_dir));
    Ok(command)
}

fn client_entry(state: &State, folder: &Folder, cgroups: &Hierarchy) -> Result<Entry> {
    let namespace = netns::path(&Switch::new(&state.name).namespace(CLIENT));
    let leaf = cgroups.create(&state.name, CLIENT, AGENT)?;
    Entry::default()
        .cgroup(&leaf)?
        .join(&namespace, CloneFlags::CLONE_NEWNET)?
        .cover(&folder.hosts(), Path::new("/etc/hosts"))
}

fn node_entry(state: &State, cgroups: &Hierarchy, node: &Node) -> Result<Entry> {
    let Some(init) = node.running() else {
        let fix = "start it first";
        return Err(Error::WrongState { node: node.name.clone(), state: "stopped", fix });
    };
    if cgroups.is_frozen(&state.name, &node.name) {
        return Err(Error::WrongState {
            node: node.name.clone(),
            state: "paused",
            fix: "resume it first",
        });
    }
    let leaf = cgroups.create(&state.name, &node.name, AGENT)?;
    let namespace = |kind: &str| PathBuf::from(format!("/proc/{}/ns/{kind}", init.pid));
    // The mount namespace comes last: it changes what paths mean.
    Entry::default()
        .cgroup(&leaf)?
        .join(&namespace("net"), CloneFlags::CLONE_NEWNET)?
        .join(&namespace("uts"), CloneFlags::CLONE_NEWUTS)?
        .join(&namespace("pid"), CloneFlags::CLONE_NEWPID)?
        .join(&namespace("mnt"), CloneFlags::CLONE_NEWNS)
}

/// Our programs first, so that `lab exec client -- clusterctl` finds the one of this lab.
fn search_path(bin_dir: &Path) -> OsString {
    let mut path = bin_dir.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()));
    path
}

/// `__enter -- COMMAND…`: runs the command in the PID namespace its caller joined; returns its
/// exit code, or 128 + the signal that ended it.
pub fn enter_main(args: &[String]) -> i32 {
    let words = args.strip_prefix(&["--".to_owned()]).unwrap_or(args);
    let [program, args @ ..] = words else {
        eprintln!("lab: no command given");
        return 2;
    };
    // Ctrl-C reaches the command too, being in our process group; we stay to report its end.
    let mut typed = SigSet::empty();
    typed.add(Signal::SIGINT);
    typed.add(Signal::SIGQUIT);
    if let Err(errno) = typed.thread_block() {
        eprintln!("lab: blocking signals: {errno}");
        return 1;
    }
    let mut command = Command::new(program);
    command.args(args);
    unblock_signals(&mut command);
    match command.status() {
        Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        Err(error) => {
            eprintln!("lab: running {program}: {error}");
            NOT_FOUND
        }
    }
}
