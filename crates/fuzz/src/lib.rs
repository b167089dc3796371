//! The fuzz targets: functions that give any bytes to a parser of outside input and judge what it
//! does. None may panic, hang, or take memory out of proportion; many hold stronger properties,
//! such as that what reads is written to what reads the same.
//!
//! `fuzz/` wraps each of them for libFuzzer and is built by `cargo xtask fuzz` with flags of its
//! own. The test of this crate, part of the default test command, gives every kept input to them,
//! so that what was fixed stays fixed where no fuzzer runs.
//!
//! Never here: product code. A parser that is private has a door in its crate's `fuzzing` module.

mod files;
mod images;
mod memory;
mod raft;
mod scratch;
mod spec;
mod texts;
mod wire;

pub use memory::{Bounded, LARGEST};

/// A parser under test.
pub struct Target {
    /// Also the name of its corpus folder and its binary.
    pub name: &'static str,
    /// What outside input it reads, for people.
    pub reads: &'static str,
    /// Gives it one input; panics when a property does not hold.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, reads: &'static str, run: fn(&[u8])) -> Target {
    Target { name, reads, run }
}

/// All of them, in the order in which they run.
pub const TARGETS: &[Target] = &[
    target("spec", "a service spec, from the wire to a plan", spec::spec),
    target("session", "messages between workers and managers", wire::session),
    target("raft_messages", "messages between managers", raft::messages),
    target("commands", "commands of the log, applied", raft::commands),
    target("log_records", "records and segments of the log", raft::records),
    target("snapshot", "snapshot files and the state in them", raft::snapshot),
    target("state_file", "saved snapshots of a whole cluster", files::state_file),
    target("documents", "image manifests, indexes and configurations", images::documents),
    target("layer", "layers of images, unpacked", images::layer),
    target("archive", "image archives, imported", images::archive),
    target("reference", "image references and digests", texts::reference),
    target("constraint", "placement constraints, compared with a node", texts::constraint),
    target("cron", "schedules and time zones", texts::cron),
    target("flags", "values of clusterctl's flags", texts::flags),
    target("command_line", "clusterctl's whole command line", texts::command_line),
    target("token", "join tokens, ids and roles", texts::token),
    target("certificate", "certificates and certificate requests", texts::certificate),
    target("identity", "identity files and context files", files::identity),
    target("worker_files", "what a worker keeps on its disk", files::worker),
    target("container", "the shim's protocol, logs, and users of an image", texts::container),
    target("mesh", "first bytes between workers, subnets", texts::mesh),
];

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
