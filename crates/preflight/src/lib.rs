//! Whether a machine can be a manager or a worker, told before anything on it is changed.
//!
//! *Flow.* [`gather`] looks at the machine and tries things where nobody sees it (a scratch network
//! namespace, a scratch mount namespace, a scratch cgroup, a scratch folder); it gives [`Facts`].
//! [`judge`] turns facts into one [`Finding`] for each check, with what was seen, why it matters and
//! the exact fix. The second half is pure, so that every judgement is tested without such a machine.
//!
//! Kernel configuration and module lists are never read: what is built in is not in them, and what is
//! in them may not work.
//!
//! Called by `clusterctl doctor`, and by `init` and `join` of both daemons before they change
//! anything. What does not exist yet is not checked: overlay networks (vxlan, the underlay's MTU,
//! neighbour tables), encryption between workers, names of services (port 53), rootless mode, conntrack
//! through netlink, quotas.

pub mod facts;
mod gate;
mod gather;
mod judge;
mod show;

use std::net::IpAddr;
use std::path::PathBuf;

use cluster_identity::CaDigest;
pub use cluster_network::Subnet;
use serde::Serialize;

pub use facts::Facts;
pub use gate::{Refused, gate};
pub use gather::gather;
pub use judge::{judge, names};
pub use show::text;

/// What the machine shall become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Manager,
    Worker,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Manager => "manager",
            Role::Worker => "worker",
        }
    }

    /// The program of the role.
    pub fn program(self) -> &'static str {
        match self {
            Role::Manager => "cluster-manager",
            Role::Worker => "cluster-worker",
        }
    }
}

/// How bad it is, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    Ok,
    /// Works; may surprise later.
    Warn,
    /// Works in part.
    Degraded,
    /// Does not work.
    Fail,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "OK",
            Level::Warn => "WARN",
            Level::Degraded => "DEGRADED",
            Level::Fail => "FAIL",
        }
    }
}

/// What one check says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable: `--ignore-preflight NAME`.
    pub name: &'static str,
    pub role: Role,
    pub level: Level,
    pub seen: String,
    pub why: &'static str,
    /// What to do; empty when all is well.
    pub fix: String,
}

/// What is to be checked.
#[derive(Clone, Debug)]
pub struct Options {
    pub role: Role,
    /// The host's name when not given.
    pub name: Option<String>,
    pub data_dir: PathBuf,
    /// Where the manager, or the worker's mesh, will listen.
    pub listen: IpAddr,
    pub port: u16,
    /// Managers to join through, `HOST:PORT`.
    pub managers: Vec<String>,
    /// The CA to recognise them by, from the join token; without it their clocks are not compared.
    pub ca: Option<CaDigest>,
    pub bridge: String,
    pub subnet: Subnet,
    /// Cgroup below which containers get theirs.
    pub cgroup_parent: PathBuf,
}

impl Options {
    /// The defaults of the role's program.
    pub fn new(role: Role) -> Self {
        let (data_dir, port) = match role {
            Role::Manager => ("/var/lib/cluster-manager", 7100),
            Role::Worker => ("/var/lib/cluster-worker", 7101),
        };
        Self {
            role,
            name: None,
            data_dir: data_dir.into(),
            listen: IpAddr::from([0, 0, 0, 0]),
            port,
            managers: Vec::new(),
            ca: None,
            bridge: "cluster0".to_owned(),
            subnet: Subnet::DEFAULT,
            cgroup_parent: "/cluster".into(),
        }
    }
}

/// Gathers and judges.
pub async fn examine(options: &Options) -> Vec<Finding> {
    judge(&gather(options).await)
}

/// The worst level, OK for none.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}
