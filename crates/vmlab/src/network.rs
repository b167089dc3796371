//! The machines' network: a bridge in a namespace of its own, and a tap device for each machine.
//!
//! The namespace has one connected route, no default route, and does not forward.

use std::fs::File;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::error::{Error, Result};
use crate::exec::run;
use crate::machine::{Machine, gateway};

pub(crate) const NAMESPACE: &str = "cluster-vm-lab";
const BRIDGE: &str = "machines";

fn exists() -> bool {
    std::path::Path::new("/run/netns").join(NAMESPACE).exists()
}

fn ip(args: &[&str]) -> Result<()> {
    run(Command::new("ip").args(args)).map(drop)
}

fn ip_inside(args: &[&str]) -> Result<()> {
    ip(&[&["-n", NAMESPACE], args].concat())
}

/// Creates what is missing of it.
pub(crate) fn create(machines: &[Machine]) -> Result<()> {
    if !exists() {
        ip(&["netns", "add", NAMESPACE])?;
        ip_inside(&["link", "set", "lo", "up"])?;
        ip_inside(&["link", "add", BRIDGE, "type", "bridge", "stp_state", "0"])?;
        ip_inside(&["address", "add", &format!("{}/24", gateway()), "dev", BRIDGE])?;
        ip_inside(&["link", "set", BRIDGE, "up"])?;
    }
    let present = run(Command::new("ip").args(["-n", NAMESPACE, "-o", "link", "show"]))?;
    for machine in machines {
        let tap = machine.tap();
        if present.contains(&format!(" {tap}:")) {
            continue;
        }
        ip_inside(&["tuntap", "add", &tap, "mode", "tap"])?;
        ip_inside(&["link", "set", &tap, "master", BRIDGE, "up"])?;
    }
    Ok(())
}

pub(crate) fn remove() -> Result<()> {
    if exists() { ip(&["netns", "delete", NAMESPACE]) } else { Ok(()) }
}

/// A command that will run in the namespace.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", NAMESPACE, program]);
    command
}

/// Runs `act` on a thread inside the namespace.
pub(crate) fn inside<T: Send>(act: impl FnOnce() -> T + Send) -> Result<T> {
    let path = std::path::Path::new("/run/netns").join(NAMESPACE);
    let namespace = File::open(&path).map_err(|source| Error::file("opening", &path, source))?;
    thread::scope(|scope| {
        let ran = scope.spawn(move || -> Result<T> {
            setns(&namespace, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::system("entering the machines' network", errno))?;
            Ok(act())
        });
        ran.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
