//! Facts in, findings out. Pure.

mod common;
mod network;
#[cfg(test)]
mod sample;
mod worker;

use crate::{Facts, Finding, Level, Role};

/// One check: its name is stable, its reason is always the same.
struct Check {
    name: &'static str,
    /// `None`: for both.
    role: Option<Role>,
    why: &'static str,
    judge: fn(&Facts) -> Option<Verdict>,
}

struct Verdict {
    level: Level,
    seen: String,
    fix: String,
}

const WORKER: Option<Role> = Some(Role::Worker);

/// Every check, in the order in which it is told.
const CHECKS: &[Check] = &[
    Check {
        name: "kernel",
        role: None,
        why: "namespaces, overlay mounts and nftables of older kernels lack what is relied on",
        judge: common::kernel,
    },
    Check {
        name: "capabilities",
        role: None,
        why: "a worker makes namespaces, mounts, network devices and cgroups; a port below 1024 needs \
              a right too",
        judge: common::capabilities,
    },
    Check {
        name: "hostname",
        role: None,
        why: "a node is called like its host unless told otherwise, and each name is taken once",
        judge: common::name,
    },
    Check {
        name: "state-folder",
        role: None,
        why: "everything that must survive a restart is there; a full or read-only disk stops the daemon",
        judge: common::state_folder,
    },
    Check {
        name: "port",
        role: None,
        why: "managers listen at 7100 for everybody, workers at 7101 for each other",
        judge: common::port,
    },
    Check {
        name: "file-limit",
        role: None,
        why: "every session and every connection through the mesh is an open file",
        judge: common::files,
    },
    Check {
        name: "managers",
        role: None,
        why: "a machine joins through a manager, and then keeps a session with one",
        judge: common::managers,
    },
    Check {
        name: "clock-skew",
        role: None,
        why: "certificates have dates: managers refuse a machine whose clock is half an hour off",
        judge: common::skew,
    },
    Check {
        name: "clock-sync",
        role: None,
        why: "clocks that nobody keeps drift apart, and with them logs, schedules and certificates",
        judge: common::synchronized,
    },
    Check {
        name: "devices",
        role: WORKER,
        why: "each container has a veth pair on a bridge",
        judge: network::devices,
    },
    Check {
        name: "nft",
        role: WORKER,
        why: "containers reach the world through nftables' masquerading, and are shielded by it",
        judge: network::nft,
    },
    Check {
        name: "ip-forward",
        role: WORKER,
        why: "packets between containers and other machines are forwarded ones",
        judge: network::forwarding,
    },
    Check {
        name: "rp-filter",
        role: WORKER,
        why: "a strict reverse path filter drops answers that come in over another device",
        judge: network::reverse_path,
    },
    Check {
        name: "forward-policy",
        role: WORKER,
        why: "an accept of ours cannot overrule another table's drop: containers would be cut off",
        judge: network::forward_policy,
    },
    Check {
        name: "iptables-legacy",
        role: WORKER,
        why: "rules of the old iptables are not listed by nft and may drop packets unseen",
        judge: network::legacy,
    },
    Check {
        name: "subnet",
        role: WORKER,
        why: "addresses of containers must lead nowhere else from this machine",
        judge: network::subnet,
    },
    Check {
        name: "port-range",
        role: WORKER,
        why: "an outgoing connection may sit on a port that a service is to be published at",
        judge: network::port_range,
    },
    Check {
        name: "cgroup",
        role: WORKER,
        why: "limits of memory, processors and processes are set by cgroups",
        judge: worker::cgroup,
    },
    Check {
        name: "overlay",
        role: WORKER,
        why: "a container's root is an overlay of its image's layers in the state folder",
        judge: worker::overlay,
    },
    Check {
        name: "xattr",
        role: WORKER,
        why: "file capabilities and deletions in image layers are extended attributes",
        judge: worker::xattr,
    },
    Check {
        name: "pids-limit",
        role: WORKER,
        why: "all containers' processes and threads share the machine's numbers",
        judge: worker::pids,
    },
    Check {
        name: "inotify",
        role: WORKER,
        why: "programs in containers that watch files share one allowance for each user",
        judge: worker::inotify,
    },
];

/// One finding for each check of the role that has something to say.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let checks = CHECKS.iter().filter(|check| check.role.is_none_or(|role| role == facts.role));
    checks
        .filter_map(|check| {
            let Verdict { level, seen, fix } = (check.judge)(facts)?;
            let (name, why) = (check.name, check.why);
            Some(Finding { name, role: facts.role, level, seen, why, fix })
        })
        .collect()
}

/// The names of all checks.
pub fn names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|check| check.name)
}

fn ok(seen: impl Into<String>) -> Option<Verdict> {
    Some(Verdict { level: Level::Ok, seen: seen.into(), fix: String::new() })
}

fn bad(level: Level, seen: impl Into<String>, fix: impl Into<String>) -> Option<Verdict> {
    Some(Verdict { level, seen: seen.into(), fix: fix.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_machine_passes_every_check() {
        for role in [Role::Manager, Role::Worker] {
            let findings = judge(&sample::good(role));
            for finding in &findings {
                assert_eq!(finding.level, Level::Ok, "{finding:?}");
                assert_eq!(finding.fix, "", "{finding:?}");
            }
            let worker_only = findings.iter().any(|finding| finding.name == "cgroup");
            assert_eq!(worker_only, role == Role::Worker);
        }
    }

    #[test]
    fn names_are_unique_words() {
        let mut all: Vec<&str> = names().collect();
        assert!(all.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
