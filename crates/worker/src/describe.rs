//! What this machine tells of itself in its hello.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use cluster_image::Platform;
use cluster_model::NodeDescription;
use cluster_model::spec::Resources;

/// Everything that is found out rather than configured.
pub fn capacity() -> Resources {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Resources {
        cpu_nanos: u64::try_from(cores).unwrap_or(1) * 1_000_000_000,
        memory_bytes: fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| memory(&text))
            .unwrap_or(0),
    }
}

fn memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The description, with the configured parts given.
pub fn description(
    address: IpAddr,
    mesh_port: u16,
    boot: u64,
    labels: BTreeMap<String, String>,
    runtime: &str,
    notices: Vec<String>,
) -> NodeDescription {
    let platform = Platform::host();
    NodeDescription {
        address: address.to_string(),
        mesh_port,
        os: platform.os,
        arch: platform.architecture,
        boot,
        capacity: capacity(),
        labels,
        agent_version: cluster_daemon::build_info().version.to_owned(),
        runtime: runtime.to_owned(),
        notices,
        healthy: true,
        generic: BTreeMap::new(),
    }
}

/// The address of this machine on the way to the first of `managers` that resolves. Sends nothing:
/// connecting a datagram socket only asks the routing table.
pub fn address_towards(managers: &[String]) -> Option<IpAddr> {
    let resolved = managers.iter().filter_map(|manager| manager.to_socket_addrs().ok());
    resolved.flatten().find_map(|manager| {
        let any: SocketAddr = match manager {
            SocketAddr::V4(_) => "0.0.0.0:0".parse().ok()?,
            SocketAddr::V6(_) => "[::]:0".parse().ok()?,
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(manager).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_machine() {
        let capacity = capacity();
        assert!(capacity.cpu_nanos >= 1_000_000_000 && capacity.memory_bytes > 1 << 20);
        assert_eq!(memory("MemFree: 1 kB\nMemTotal:  2048 kB\n"), Some(2 << 20));
        assert_eq!(memory("nothing"), None);
    }

    #[test]
    fn the_way_to_loopback_is_loopback() {
        let way = address_towards(&["127.0.0.1:7100".to_owned()]);
        assert_eq!(way, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(address_towards(&[]), None);
    }
}
