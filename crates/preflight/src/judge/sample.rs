//! A machine on which all is well, for tests that spoil one thing.

use cluster_network::Subnet;
use cluster_network::survey::Trial;

use crate::facts::*;
use crate::{Finding, Role};

pub fn good(role: Role) -> Facts {
    Facts {
        role,
        kernel: "6.1.0-18-cloud-amd64".into(),
        capabilities: u64::MAX,
        name: "node-1".into(),
        state: StateFolder {
            path: "/var/lib/x".into(),
            existing: "/var/lib".into(),
            read_only: false,
            no_exec: false,
            free_bytes: 50 << 30,
            writable: Ok(()),
        },
        port: Port { number: 7101, state: PortState::Free },
        files: Files { nr_open: Some(1 << 20), file_max: Some(1 << 30) },
        managers: vec![Reached { address: "10.0.0.1:7100".into(), outcome: Ok(()) }],
        clocks: vec![Clock {
            address: "10.0.0.1:7100".into(),
            read: ClockRead::Skew { ms: 300, within_ms: 1010 },
        }],
        clock_is_kept: Some(true),
        worker: (role == Role::Worker).then(worker),
    }
}

fn worker() -> WorkerFacts {
    let all = || ["cpu", "memory", "pids"].map(str::to_owned).into();
    WorkerFacts {
        trial: Ok(Trial { devices: Ok(()), rules: Ok(()) }),
        nft_version: Ok("1.0.6".into()),
        chains: Ok(Vec::new()),
        bridge: "cluster0".into(),
        legacy_tables: Vec::new(),
        bridge_is_filtered: false,
        forwarding: Setting { value: Some("0".into()), writable: true },
        reverse_path: ReversePath { strict: Vec::new(), uplinks: 1 },
        subnet: Subnet::DEFAULT,
        routes: Ok(Vec::new()),
        cgroup: Cgroup::V2(Unified {
            folder: "/sys/fs/cgroup".into(),
            available: all(),
            enabled: all(),
            creatable: Ok(()),
            can_enable: true,
        }),
        overlay: Ok(()),
        xattr: Ok(()),
        local_ports: Some((32768, 60999)),
        reserved_ports: String::new(),
        pids_max: Some(4_194_304),
        inotify_instances: Some(8192),
    }
}

/// Judges a machine after `spoil`, and picks one check.
pub fn spoiled(role: Role, name: &str, spoil: impl FnOnce(&mut Facts)) -> Finding {
    let mut facts = good(role);
    spoil(&mut facts);
    let found = super::judge(&facts).into_iter().find(|finding| finding.name == name);
    found.unwrap_or_else(|| panic!("no finding of {name}"))
}

/// As [`spoiled`], for what only a worker has.
pub fn worker_spoiled(name: &str, spoil: impl FnOnce(&mut WorkerFacts)) -> Finding {
    spoiled(Role::Worker, name, |facts| spoil(facts.worker.as_mut().expect("a worker")))
}
