//! The lab's Ethernet: a kernel bridge in a namespace of its own, a port per node.
//!
//! It never is in the machine's own namespace, where a firewall or Docker would drop frames.
//! A partition is an nft rule on the bridge: both ends keep their carrier and hear nothing, which
//! is what hosts see when a network breaks. Unplugging (used for a power-off) removes the cable.
//! Delay, loss at random and slowness are the business of a relay between port and bridge.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};

use crate::enter::Entry;
use crate::error::{Error, Result};
use crate::netns;
use crate::relay::Link;

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

/// One lane of a node's link that does not pass everything at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Shaped {
    pub node: String,
    pub direction: Direction,
    /// None: all that no other lane names.
    pub peer: Option<String>,
    pub link: Link,
}

impl Shaped {
    pub fn same_lane(&self, other: &Self) -> bool {
        (&self.node, self.direction, &self.peer) == (&other.node, other.direction, &other.peer)
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
            shown(hardware_address(address)),
        ))?;
        ip(
            &namespace,
            &format!("link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\n"),
        )
    }

    /// Takes the node's port out of the bridge, for a relay to stand between; returns the
    /// interfaces on its two sides.
    pub fn divert(&self, place: &str) -> Result<(String, String)> {
        self.drop_trunk(place)?;
        let (port, trunk, far) = (port(place), format!("t-{place}"), format!("b-{place}"));
        self.ip(&format!(
            "link add {trunk} type veth peer name {far}\n\
             link set {far} master {BRIDGE} up\n\
             link set {trunk} up\n\
             link set {port} nomaster\n"
        ))?;
        Ok((port, trunk))
    }

    /// Puts the node's port straight on the bridge again.
    pub fn connect(&self, place: &str) -> Result<()> {
        self.drop_trunk(place)?;
        self.ip(&format!("link set {} master {BRIDGE}\n", port(place)))
    }

    fn drop_trunk(&self, place: &str) -> Result<()> {
        self.delete(&format!("t-{place}"))
    }

    fn delete(&self, interface: &str) -> Result<()> {
        match self.ip(&format!("link delete {interface}\n")) {
            Err(Error::Command { stderr, .. }) if stderr.contains("Cannot find device") => Ok(()),
            other => other,
        }
    }

    /// Pulls the cable: nothing the node still says is heard, not even that its sockets close.
    pub fn unplug(&self, place: &str) -> Result<()> {
        self.delete(&port(place))?;
        self.drop_trunk(place)
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
                    format!("iifname {} drop\n", ends(node))
                }
                Cut::Node { node, direction: Direction::In } => {
                    format!("oifname {} drop\n", ends(node))
                }
                Cut::Link { from, to } => {
                    format!("iifname {} oifname {} drop\n", ends(from), ends(to))
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

/// What nft calls the place's side of the bridge, with a relay before it or not.
fn ends(place: &str) -> String {
    format!("{{ \"{}\", \"b-{place}\" }}", port(place))
}

/// Fixed like that of a real card: after a reboot the neighbours' tables still hold it.
pub(crate) fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [2, 0, a, b, c, d]
}

fn shown(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
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
