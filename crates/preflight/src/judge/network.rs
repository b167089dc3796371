//! The network of a worker.

use std::fmt::Write as _;

use cluster_network::survey::{Chain, conflicts};

use crate::Level;
use crate::facts::{Facts, WorkerFacts};

use super::{Verdict, bad, ok};

/// From here on, nft knows all that the bridge and what is planned beside it need.
const NFT_MIN: (u32, u32, u32) = (1, 0, 6);
/// Ports that the managers choose from.
const PUBLISHED: (u16, u16) = (30_000, 32_767);
const INSTALL_NFT: &str = "`apt install nftables`";

pub(super) fn devices(facts: &Facts) -> Option<Verdict> {
    let worker = facts.worker.as_ref()?;
    match worker.trial.as_ref().map(|trial| &trial.devices) {
        Ok(Ok(())) => ok("bridge and veth pair created in a scratch namespace"),
        Ok(Err(error)) => bad(
            Level::Fail,
            error,
            "the kernel must have bridge and veth (`modprobe bridge veth`; install the full kernel \
             package instead of a stripped one)",
        ),
        Err(error) => bad(
            Level::Fail,
            format!("no scratch network namespace: {error}"),
            "run this as root; in a container, allow it CAP_SYS_ADMIN and network namespaces",
        ),
    }
}

pub(super) fn nft(facts: &Facts) -> Option<Verdict> {
    let worker = facts.worker.as_ref()?;
    let version = match &worker.nft_version {
        Ok(version) => version,
        Err(error) => return bad(Level::Degraded, error, INSTALL_NFT),
    };
    if let Ok(Err(error)) = worker.trial.as_ref().map(|trial| &trial.rules) {
        let fix = "the kernel must have nftables with NAT and conntrack (`modprobe nf_tables nft_masq \
                   nft_ct nft_chain_nat`), and nft must be 1.0.6 or later";
        return bad(Level::Degraded, format!("nft {version} did not load our rules: {error}"), fix);
    }
    if worker.trial.is_err() {
        // Why is said by another check.
        return ok(format!("nft {version}; our rules were not tried"));
    }
    if parsed(version).is_some_and(|version| version < NFT_MIN) {
        // It was just seen to load what is used today.
        return ok(format!("nft {version} loaded our rules (1.0.6 or later is better tested)"));
    }
    ok(format!("nft {version} loaded our rules in a scratch namespace"))
}

fn parsed(version: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

pub(super) fn forwarding(facts: &Facts) -> Option<Verdict> {
    let setting = &facts.worker.as_ref()?.forwarding;
    let fix = "`sysctl -w net.ipv4.ip_forward=1`, and the same in /etc/sysctl.d/60-cluster.conf";
    match (setting.value.as_deref(), setting.writable) {
        (Some("1"), _) => ok("net.ipv4.ip_forward = 1"),
        (Some(_), true) => ok("off; the worker switches it on when it starts"),
        (Some(value), false) => {
            bad(Level::Fail, format!("net.ipv4.ip_forward = {value}, and cannot be written"), fix)
        }
        (None, _) => bad(Level::Fail, "net.ipv4.ip_forward cannot be read", "mount /proc"),
    }
}

pub(super) fn reverse_path(facts: &Facts) -> Option<Verdict> {
    let filter = &facts.worker.as_ref()?.reverse_path;
    if filter.strict.is_empty() {
        return ok("not strict");
    }
    let devices = filter.strict.join(", ");
    if filter.uplinks < 2 {
        return ok(format!("strict on {devices}; harmless with one way out"));
    }
    let seen = format!("strict on {devices}, and {} devices lead out", filter.uplinks);
    bad(
        Level::Warn,
        seen,
        "`sysctl -w net.ipv4.conf.all.rp_filter=2`, and the same in /etc/sysctl.d/60-cluster.conf \
         (2, loose, wins over 1, strict, of a device)",
    )
}

pub(super) fn forward_policy(facts: &Facts) -> Option<Verdict> {
    let worker = facts.worker.as_ref()?;
    let chains = match &worker.chains {
        Ok(chains) => chains,
        // No nft: another check says so.
        Err(error) => return ok(format!("not looked at: {error}")),
    };
    let drops: Vec<&Chain> = chains.iter().filter(|chain| chain.drops_forwarded).collect();
    if drops.is_empty() {
        return ok("no table drops forwarded packets by default");
    }
    let tables: Vec<String> =
        drops.iter().map(|c| format!("{} {} {}", c.family, c.table, c.name)).collect();
    let mut seen = format!("policy drop in: {}", tables.join("; "));
    if worker.bridge_is_filtered {
        seen.push_str(" (and bridge-nf-call-iptables = 1: also between containers here)");
    }
    bad(Level::Degraded, seen, allow_bridge(chains, &drops, worker))
}

/// The command of whoever keeps the table, told by its chains.
fn allow_bridge(chains: &[Chain], drops: &[&Chain], worker: &WorkerFacts) -> String {
    let bridge = &worker.bridge;
    let has = |name: &str| chains.iter().any(|chain| chain.name == name);
    let mut fixes = Vec::new();
    if has("ufw-user-forward") {
        fixes.push(format!(
            "ufw: `ufw route allow in on {bridge} && ufw route allow out on {bridge}`"
        ));
    }
    if has("DOCKER-USER") {
        fixes.push(format!(
            "Docker: `iptables -I DOCKER-USER -i {bridge} -j ACCEPT && iptables -I DOCKER-USER -o \
             {bridge} -j ACCEPT` (again after each start of Docker)"
        ));
    }
    if drops.iter().any(|chain| chain.table == "firewalld") {
        fixes.push(format!(
            "firewalld: `firewall-cmd --permanent --zone=trusted --add-interface={bridge} && \
             firewall-cmd --reload`"
        ));
    }
    if fixes.is_empty() {
        let mut text = String::from("accept the bridge there:");
        for chain in drops {
            let place = format!("{} {} {}", chain.family, chain.table, chain.name);
            let _ = write!(
                text,
                " `nft insert rule {place} iifname {bridge} accept && nft insert rule {place} \
                 oifname {bridge} accept`"
            );
        }
        return text;
    }
    fixes.join("; ")
}

pub(super) fn legacy(facts: &Facts) -> Option<Verdict> {
    let tables = &facts.worker.as_ref()?.legacy_tables;
    if tables.is_empty() {
        return ok("none");
    }
    bad(
        Level::Warn,
        format!("tables of the old iptables are loaded: {}", tables.join(", ")),
        "look at `iptables-legacy -S FORWARD`: it must not drop; better, move to nftables with \
         `update-alternatives --set iptables /usr/sbin/iptables-nft` and reboot",
    )
}

pub(super) fn subnet(facts: &Facts) -> Option<Verdict> {
    let worker = facts.worker.as_ref()?;
    let subnet = worker.subnet;
    let routes = match &worker.routes {
        Ok(routes) => routes,
        Err(error) => {
            return bad(
                Level::Warn,
                format!("routes cannot be read: {error}"),
                "look with `ip route`",
            );
        }
    };
    let found = conflicts(subnet, &worker.bridge, routes);
    let fix = "choose a free range with --subnet, such as --subnet 10.99.0.0/16; the same range may be \
               used on every worker";
    if let Some(device) = found.taken {
        return bad(Level::Fail, format!("{subnet} is routed to {device} already"), fix);
    }
    if !found.shadowed.is_empty() {
        let seen = format!("{subnet} hides part of a network at {}", found.shadowed.join(", "));
        return bad(Level::Warn, seen, fix);
    }
    ok(format!("{subnet} is free"))
}

pub(super) fn port_range(facts: &Facts) -> Option<Verdict> {
    let worker = facts.worker.as_ref()?;
    let (first, last) = worker.local_ports?;
    let (low, high) = PUBLISHED;
    let mesh = facts.port.number;
    let reserved = |port: u16| is_listed(port, &worker.reserved_ports);
    let overlaps = first <= high && last >= low && !(reserved(low) && reserved(high));
    let mesh_inside = (first..=last).contains(&mesh) && !reserved(mesh);
    let seen = format!("outgoing connections use {first}-{last}");
    if !overlaps && !mesh_inside {
        return ok(seen);
    }
    let fix = format!(
        "`sysctl -w net.ipv4.ip_local_reserved_ports={mesh},{low}-{high}`, and the same in \
         /etc/sysctl.d/60-cluster.conf"
    );
    bad(Level::Warn, format!("{seen}; services are published at {low}-{high}"), fix)
}

/// Whether a port is in a list such as `80,7000-7101`.
fn is_listed(port: u16, list: &str) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        matches!((first.parse::<u16>(), last.parse::<u16>()),
            (Ok(first), Ok(last)) if (first..=last).contains(&port))
    })
}

#[cfg(test)]
mod tests {
    use cluster_network::survey::LocalRoute;

    use super::*;
    use crate::judge::sample::worker_spoiled;

    #[test]
    fn a_kernel_without_veth_and_no_namespace_at_all() {
        let found = worker_spoiled("devices", |w| {
            w.trial.as_mut().unwrap().devices = Err("Operation not supported".into());
        });
        assert_eq!(found.level, Level::Fail);
        assert!(found.fix.contains("modprobe"));
        let none = worker_spoiled("devices", |w| w.trial = Err("not permitted".into()));
        assert_eq!(none.level, Level::Fail);
        assert!(none.seen.contains("not permitted"));
    }

    #[test]
    fn without_nft_a_worker_runs_in_part() {
        let missing = worker_spoiled("nft", |w| w.nft_version = Err("cannot run nft".into()));
        assert_eq!((missing.level, missing.fix.as_str()), (Level::Degraded, INSTALL_NFT));
        let refused = worker_spoiled("nft", |w| {
            w.trial.as_mut().unwrap().rules = Err("syntax error".into());
        });
        assert_eq!(refused.level, Level::Degraded);
        let old = worker_spoiled("nft", |w| w.nft_version = Ok("1.0.2".into()));
        assert_eq!(old.level, Level::Ok);
        assert!(old.seen.contains("better tested"));
        assert_eq!(parsed("1.1"), Some((1, 1, 0)));
    }

    #[test]
    fn forwarding_must_be_on_or_settable() {
        let found = worker_spoiled("ip-forward", |w| w.forwarding.writable = false);
        assert_eq!(found.level, Level::Fail);
    }

    #[test]
    fn a_strict_filter_matters_with_two_ways_out() {
        let strict = |uplinks| {
            worker_spoiled("rp-filter", |w| {
                w.reverse_path.strict = vec!["all".into()];
                w.reverse_path.uplinks = uplinks;
            })
            .level
        };
        assert_eq!((strict(1), strict(2)), (Level::Ok, Level::Warn));
    }

    #[test]
    fn whoever_drops_is_named_with_the_command_that_helps() {
        let chain = |table: &str, name: &str, drops_forwarded| Chain {
            family: "ip".into(),
            table: table.into(),
            name: name.into(),
            drops_forwarded,
        };
        let found = |chains| worker_spoiled("forward-policy", |w| w.chains = Ok(chains));
        let docker =
            found(vec![chain("filter", "FORWARD", true), chain("filter", "DOCKER-USER", false)]);
        assert_eq!(docker.level, Level::Degraded);
        assert!(docker.fix.starts_with("Docker:") && docker.fix.contains("-i cluster0"));
        let ufw = found(vec![
            chain("filter", "FORWARD", true),
            chain("filter", "ufw-user-forward", false),
        ]);
        assert!(ufw.fix.starts_with("ufw:"));
        let firewalld = found(vec![chain("firewalld", "filter_FORWARD", true)]);
        assert!(firewalld.fix.starts_with("firewalld:"));
        let own = found(vec![chain("mine", "fw", true)]);
        assert!(own.fix.contains("nft insert rule ip mine fw iifname cluster0 accept"));
        let none = worker_spoiled("forward-policy", |w| w.chains = Err("cannot run nft".into()));
        assert_eq!(none.level, Level::Ok);
    }

    #[test]
    fn old_tables_are_worth_a_word() {
        let found = worker_spoiled("iptables-legacy", |w| w.legacy_tables = vec!["nat".into()]);
        assert_eq!(found.level, Level::Warn);
    }

    #[test]
    fn a_subnet_in_use() {
        let found = |prefix_len| {
            let route = LocalRoute {
                destination: [10, if prefix_len < 16 { 0 } else { 88 }, 0, 0].into(),
                prefix_len,
                device: "eth0".into(),
            };
            worker_spoiled("subnet", |w| w.routes = Ok(vec![route]))
        };
        assert_eq!(found(24).level, Level::Fail);
        assert!(found(24).fix.contains("--subnet"));
        assert_eq!(found(8).level, Level::Warn);
    }

    #[test]
    fn outgoing_ports_that_overlap_published_ones() {
        let found = |reserved: &str| {
            worker_spoiled("port-range", |w| {
                w.local_ports = Some((1024, 65535));
                w.reserved_ports = reserved.into();
            })
        };
        assert_eq!(found("").level, Level::Warn);
        assert!(found("").fix.contains("7101,30000-32767"));
        assert_eq!(found("7101,30000-32767").level, Level::Ok);
    }
}
