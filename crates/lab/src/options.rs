//! What a lab is built from.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::lab::Role;

const MAX_MANAGERS: usize = 7;
const MAX_WORKERS: usize = 200;
const MAX_NAME: usize = 20;
const MIN_DISK: u64 = 64 << 20;

/// Where labs live unless told otherwise: `$CLUSTER_LAB_DIR` or `/var/lib/cluster-lab`.
pub fn default_base() -> PathBuf {
    std::env::var_os("CLUSTER_LAB_DIR")
        .map_or_else(|| PathBuf::from("/var/lib/cluster-lab"), PathBuf::from)
}

/// Everything [`crate::Lab::up`] needs to know.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Lower-case letters, digits and dashes; prefixes namespaces and cgroups.
    pub name: String,
    pub managers: usize,
    pub workers: usize,
    /// The folder that holds one folder per lab; not below /run, which every node has for itself.
    pub base: PathBuf,
    /// Where `cluster-manager` and `cluster-worker` are.
    pub bin_dir: PathBuf,
    /// The program whose `lab` subcommand reaches [`crate::hidden_main`], and which answers
    /// `cluster token` and `node ls`: `clusterctl`.
    pub helper: PathBuf,
    /// The lab's network, a /24; only its first three bytes count.
    pub subnet: Ipv4Addr,
    pub heartbeat_period: Option<Duration>,
    pub lease: Option<Duration>,
    pub manager_args: Vec<String>,
    pub worker_args: Vec<String>,
    /// Extra environment of every daemon, for example `RUST_LOG`.
    pub env: Vec<(String, String)>,
    /// Loopback addresses of the machine, and the published port they lead to.
    pub expose: Vec<(SocketAddr, u16)>,
    /// Gives each node a disk of so many bytes for its data, so that it can be filled; it is kept
    /// in memory. None: the machine's disk.
    pub disk: Option<u64>,
    /// How long all nodes together may take to become ready.
    pub ready_within: Duration,
}

/// A machine for which [`crate::Lab::up_machines`] asks what to run.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    pub name: &'a str,
    pub role: Role,
    pub address: Ipv4Addr,
    /// A folder of its own that outlives power-offs; it is not created for it.
    pub data: &'a Path,
}

impl LabOptions {
    /// Three managers and three workers from the binaries in `bin_dir`.
    pub fn new(name: impl Into<String>, bin_dir: impl Into<PathBuf>) -> Self {
        let bin_dir = bin_dir.into();
        Self {
            name: name.into(),
            managers: 3,
            workers: 3,
            base: default_base(),
            helper: bin_dir.join("clusterctl"),
            bin_dir,
            subnet: Ipv4Addr::new(10, 77, 0, 0),
            heartbeat_period: None,
            lease: None,
            manager_args: Vec::new(),
            worker_args: Vec::new(),
            env: Vec::new(),
            expose: Vec::new(),
            disk: None,
            ready_within: Duration::from_secs(60),
        }
    }

    /// The lab's own folder.
    pub fn folder(&self) -> PathBuf {
        self.base.join(&self.name)
    }

    /// Refuses what could not work, before anything is built.
    pub fn validate(&self) -> Result<()> {
        validate_name(&self.name)?;
        bound("managers", self.managers, 1, MAX_MANAGERS, "give 1 to 7, best 1, 3 or 5")?;
        bound("workers", self.workers, 0, MAX_WORKERS, "give 0 to 200")?;
        if self.disk.is_some_and(|bytes| bytes < MIN_DISK) {
            let value = self.disk.unwrap_or_default().to_string();
            let fix = "give at least 64 MiB; an image and its containers must fit";
            return Err(Error::BadOption { what: "disk", value, fix });
        }
        for (what, path) in [
            ("lab folder", &self.base),
            ("program folder", &self.bin_dir),
            ("helper", &self.helper),
        ] {
            check_visible(what, path)?;
        }
        for (listen, _) in &self.expose {
            if !listen.ip().is_loopback() {
                let value = listen.to_string();
                return Err(Error::BadOption {
                    what: "expose",
                    value,
                    fix: "only loopback addresses are forwarded",
                });
            }
        }
        Ok(())
    }
}

pub(crate) fn validate_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    if starts && name.len() <= MAX_NAME && name.chars().all(plain) && !name.ends_with('-') {
        return Ok(());
    }
    Err(Error::BadOption {
        what: "lab name",
        value: name.escape_default().to_string(),
        fix: "use up to 20 lower-case letters, digits and dashes, starting with a letter",
    })
}

fn bound(
    what: &'static str,
    count: usize,
    least: usize,
    most: usize,
    fix: &'static str,
) -> Result<()> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    Err(Error::BadOption { what, value: count.to_string(), fix })
}

/// Nodes mount their own /run and /proc, so nothing they need may lie there.
fn check_visible(what: &'static str, path: &Path) -> Result<()> {
    let value = || path.display().to_string();
    if !path.is_absolute() {
        return Err(Error::BadOption { what, value: value(), fix: "give an absolute path" });
    }
    let hidden = ["/run", "/var/run", "/proc", "/sys"];
    if hidden.iter().any(|root| path.starts_with(root)) {
        return Err(Error::BadOption {
            what,
            value: value(),
            fix: "nodes have their own /run, /proc and /sys; put it elsewhere",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_with_the_reason() {
        for good in ["lab", "t-1", "a"] {
            assert!(validate_name(good).is_ok(), "{good}");
        }
        for bad in ["", "Lab", "1lab", "a b", "lab-", "a\nb", &"x".repeat(21)] {
            assert!(validate_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn folders_that_nodes_cannot_see_are_refused() {
        let mut options = LabOptions::new("lab", "/usr/bin");
        assert!(options.validate().is_ok());
        options.base = PathBuf::from("/run/labs");
        assert!(options.validate().is_err());
        options.base = PathBuf::from("labs");
        assert!(options.validate().is_err());
    }

    #[test]
    fn only_loopback_is_exposed() {
        let mut options = LabOptions::new("lab", "/usr/bin");
        options.expose = vec![("0.0.0.0:8080".parse().unwrap(), 80)];
        assert!(options.validate().is_err());
        options.expose = vec![("127.0.0.1:8080".parse().unwrap(), 80)];
        assert!(options.validate().is_ok());
    }
}
