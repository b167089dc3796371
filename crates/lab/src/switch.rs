//! The lab's Ethernet: a kernel bridge in a namespace of its own, a port per node.
//!
//! It never is in the machine's own namespace, where a firewall or Docker would drop frames.
//! A partition is an nft rule on the bridge: both ends keep their carrier and hear nothing, which
//! is what hosts see when a network breaks. Unplugging (used for a power-off) removes the cable.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};

use crate::enter::Entry;
use crate::error::{Error, Result};
use crate::netns;

const BRIDGE: &str = "br0";
const BRIDGE_FILTERS: [&str; 3] =
    ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"];

/// Which way a one-way cut drops, seen from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// What others send does not arrive.
    In,
    /// What the node sends does not arrive.
    Out,
}

/// One broken path through the switch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cut {
    Node { node: String, direction: Direction },
    Link { from: String, to: String },
}

impl Cut {
    pub fn concerns(&self, name: &str) -> bool {
        match self {
            Self::Node { node, .. } => node == name,
            Self::Link { from, to } => from == name || to == name,
        }
    }
}

/// The switch of one lab.
pub(crate) struct Switch {
    lab: String,
}

impl Switch {
    pub fn new(lab: &str) -> Self {
        Self { lab: lab.to_owned() }
    }

    /// The name of the namespace of `place` (a node, `client` or `switch`).
    pub fn namespace(&self, place: &str) -> String {
        format!("{}-{place}", self.lab)
    }

    fn own(&self) -> String {
        self.namespace("switch")
    }

    pub fn create(&self) -> Result<()> {
        netns::create(&self.own())?;
        // Frames between nodes must not meet the machine's IP firewall. The files are absent
        // where the kernel has no such coupling.
        netns::inside(&self.own(), || {
            for name in BRIDGE_FILTERS {
                let path = Path::new("/proc/sys/net/bridge").join(name);
                if path.exists() {
                    std::fs::write(path, "0")?;
                }
            }
            Ok(())
        })?;
        self.ip(&format!(
            "link set lo up\nlink add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set {BRIDGE} up\n"
        ))
    }

    /// Creates the namespace of `place` with an interface `eth0` plugged into the switch.
    pub fn plug(&self, place: &str, address: Ipv4Addr) -> Result<()> {
        let namespace = self.namespace(place);
        netns::create(&namespace)?;
        let port = port(place);
        self.ip(&format!(
            "link add {port} type veth peer name eth0 address {} netns {namespace}\n\
             link set {port} master {BRIDGE} up\n",
            hardware_address(address),
        ))?;
        ip(
            &namespace,
            &format!("link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\n"),
        )
    }

    /// Pulls the cable: nothing the node still says is heard, not even that its sockets close.
    pub fn unplug(&self, place: &str) -> Result<()> {
        let port = port(place);
        match self.ip(&format!("link delete {port}\n")) {
            Err(Error::Command { stderr, .. }) if stderr.contains("Cannot find device") => Ok(()),
            other => other,
        }
    }

    /// Removes the namespace of a place that was unplugged.
    pub fn discard(&self, place: &str) -> Result<()> {
        netns::remove(&self.namespace(place))
    }

    /// Makes the broken paths exactly these, in one transaction.
    pub fn set_cuts(&self, cuts: &[Cut]) -> Result<()> {
        let mut rules = String::new();
        for cut in cuts {
            let rule = match cut {
                Cut::Node { node, direction: Direction::Out } => {
                    format!("iifname \"{}\" drop\n", port(node))
                }
                Cut::Node { node, direction: Direction::In } => {
                    format!("oifname \"{}\" drop\n", port(node))
                }
                Cut::Link { from, to } => {
                    format!("iifname \"{}\" oifname \"{}\" drop\n", port(from), port(to))
                }
            };
            rules.push_str(&rule);
        }
        let text = format!(
            "table bridge lab\ndelete table bridge lab\n\
             table bridge lab {{\nchain through {{\ntype filter hook forward priority 0;\n{rules}}}\n}}\n"
        );
        feed("nft", &["-f", "-"], &self.own(), &text)
    }

    fn ip(&self, batch: &str) -> Result<()> {
        ip(&self.own(), batch)
    }
}

/// The switch-side end of a cable; interface names have at most 15 characters.
fn port(place: &str) -> String {
    format!("p-{place}")
}

/// Fixed like that of a real card: after a reboot the neighbours' tables still hold it.
fn hardware_address(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn ip(namespace: &str, batch: &str) -> Result<()> {
    feed("ip", &["-batch", "-"], namespace, batch)
}

/// Runs a tool inside a namespace with `text` as its input.
fn feed(program: &str, args: &[&str], namespace: &str, text: &str) -> Result<()> {
    let spawn_error = |source| Error::Spawn { program: program.to_owned(), source };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    Entry::default().join(&netns::path(namespace), CloneFlags::CLONE_NEWNET)?.apply(&mut command);
    let mut child = command.spawn().map_err(spawn_error)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that quits early says why on stderr, which is worth more than "broken pipe".
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(spawn_error)?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Command {
        program: format!("{program} in {namespace}"),
        status: output.status,
        stderr,
    })
}
