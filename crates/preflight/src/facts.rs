//! What was seen of a machine, as values. No opinions.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cluster_network::Subnet;
use cluster_network::survey::{Chain, LocalRoute, Trial};

use crate::Role;

/// All of it. Errors are texts: nobody does anything with them but read them.
#[derive(Clone, Debug)]
pub struct Facts {
    pub role: Role,
    /// As the kernel states it, such as `6.1.0-18-cloud-amd64`.
    pub kernel: String,
    /// Effective capabilities as bits.
    pub capabilities: u64,
    pub name: String,
    pub state: StateFolder,
    pub port: Port,
    pub files: Files,
    pub managers: Vec<Reached>,
    pub clocks: Vec<Clock>,
    /// Whether something keeps this machine's clock; `None` when nobody knows.
    pub clock_is_kept: Option<bool>,
    /// What only a worker needs.
    pub worker: Option<WorkerFacts>,
}

#[derive(Clone, Debug)]
pub struct WorkerFacts {
    /// The scratch network; an error when there could be none.
    pub trial: Result<Trial, String>,
    pub nft_version: Result<String, String>,
    pub chains: Result<Vec<Chain>, String>,
    pub bridge: String,
    /// Tables of the old iptables that are loaded beside nft's.
    pub legacy_tables: Vec<String>,
    /// Bridged packets pass the packet filter of routed ones.
    pub bridge_is_filtered: bool,
    pub forwarding: Setting,
    pub reverse_path: ReversePath,
    pub subnet: Subnet,
    pub routes: Result<Vec<LocalRoute>, String>,
    pub cgroup: Cgroup,
    pub overlay: Result<(), String>,
    pub xattr: Result<(), String>,
    /// First and last port of outgoing connections.
    pub local_ports: Option<(u16, u16)>,
    pub reserved_ports: String,
    pub pids_max: Option<u64>,
    pub inotify_instances: Option<u64>,
}

/// The folder where the daemon keeps everything.
#[derive(Clone, Debug)]
pub struct StateFolder {
    pub path: PathBuf,
    /// The nearest folder that exists: the file system that counts.
    pub existing: PathBuf,
    pub read_only: bool,
    pub no_exec: bool,
    pub free_bytes: u64,
    /// A scratch folder was made and removed.
    pub writable: Result<(), String>,
}

#[derive(Clone, Debug)]
pub struct Port {
    pub number: u16,
    pub state: PortState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortState {
    Free,
    /// Somebody listens; the process, if it could be found.
    Taken(Option<Process>),
    /// It cannot be listened at for another reason.
    Refused(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub command: String,
}

/// How many files can be open.
#[derive(Clone, Debug)]
pub struct Files {
    /// The most a process may be given.
    pub nr_open: Option<u64>,
    /// The most all of them may have.
    pub file_max: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Reached {
    pub address: String,
    pub outcome: Result<(), String>,
}

/// What was learned of a manager's clock.
#[derive(Clone, Debug)]
pub struct Clock {
    pub address: String,
    pub read: ClockRead,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClockRead {
    /// Theirs minus ours, right to within the second number.
    Skew { ms: i64, within_ms: u64 },
    /// Dates of certificates exclude each other: one of the two clocks is far off.
    Dates(String),
    /// Not learned.
    Unknown(String),
}

/// A kernel setting.
#[derive(Clone, Debug)]
pub struct Setting {
    pub value: Option<String>,
    pub writable: bool,
}

#[derive(Clone, Debug, Default)]
pub struct ReversePath {
    /// Devices that check strictly whence packets come, `all` included.
    pub strict: Vec<String>,
    /// Devices with a default route.
    pub uplinks: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroup {
    None,
    /// Each needed controller: why a group cannot be made below it, if so.
    V1(Vec<(&'static str, Result<(), String>)>),
    V2(Unified),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unified {
    /// The folder that was looked at: the worker's parent or the nearest above it.
    pub folder: PathBuf,
    pub available: BTreeSet<String>,
    /// Handed down already.
    pub enabled: BTreeSet<String>,
    /// A scratch group was made and removed.
    pub creatable: Result<(), String>,
    /// Controllers that are not handed down yet may be: the file can be written, and no process sits
    /// here (the machine's root excepted).
    pub can_enable: bool,
}
