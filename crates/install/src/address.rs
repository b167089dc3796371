//! Which address of this machine others shall use.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Devices of container and VM networks: others do not reach this machine through them.
const INNER: [&str; 9] =
    ["docker", "br-", "veth", "virbr", "cni", "cluster", "podman", "lxc", "flannel"];

/// An address of this machine, and the device that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub device: String,
    pub ip: IpAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listing this machine's addresses")]
    List(#[source] io::Error),
    #[error("this machine has no address that others could reach; give one with --advertise IP")]
    None,
    #[error("this machine has several addresses; choose the one that others reach:\n{}", listed(.0))]
    Several(Vec<Candidate>),
}

fn listed(candidates: &[Candidate]) -> String {
    let mut text = String::new();
    for Candidate { device, ip } in candidates {
        let _ = writeln!(text, "  --advertise {ip}  ({device})");
    }
    text.trim_end().to_owned()
}

/// The only address that others can reach this machine at.
pub fn only() -> Result<IpAddr, Error> {
    choose(candidates().map_err(Error::List)?)
}

fn choose(mut all: Vec<Candidate>) -> Result<IpAddr, Error> {
    if all.iter().any(|candidate| candidate.ip.is_ipv4()) {
        all.retain(|candidate| candidate.ip.is_ipv4());
    }
    match all.as_slice() {
        [] => Err(Error::None),
        [only] => Ok(only.ip),
        _ => Err(Error::Several(all)),
    }
}

fn candidates() -> io::Result<Vec<Candidate>> {
    let mut all: Vec<Candidate> = Vec::new();
    for found in getifaddrs()? {
        let device = found.interface_name;
        if !found.flags.contains(InterfaceFlags::IFF_UP)
            || found.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            || INNER.iter().any(|inner| device.starts_with(inner))
        {
            continue;
        }
        let Some(address) = found.address else { continue };
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        let Some(ip) = v4.or(v6).filter(is_global) else { continue };
        all.push(Candidate { device, ip });
    }
    Ok(all)
}

fn is_global(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

/// The address of this machine on the way to the first of `others` that has a route. Sends nothing:
/// connecting a datagram socket only asks the routing table.
pub fn towards(others: &[String]) -> Option<IpAddr> {
    let resolved = others.iter().filter_map(|other| other.to_socket_addrs().ok());
    resolved.flatten().find_map(|other| {
        let any: SocketAddr = match other {
            SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(other).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

/// `IP` or `IP:PORT`.
pub fn parse(text: &str, port: u16) -> Result<SocketAddr, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    text.parse::<SocketAddr>().map_err(|_| "use IP or IP:PORT, such as 10.0.0.1:7100".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(device: &str, ip: &str) -> Candidate {
        Candidate { device: device.to_owned(), ip: ip.parse().unwrap() }
    }

    #[test]
    fn one_is_taken_and_several_are_listed() {
        assert!(matches!(choose(Vec::new()), Err(Error::None)));
        let (a, b) = (candidate("eth0", "10.0.2.15"), candidate("eth1", "192.168.56.10"));
        let v6 = candidate("eth0", "2001:db8::1");
        assert_eq!(choose(vec![v6.clone(), a.clone()]).unwrap(), a.ip);
        assert_eq!(choose(vec![v6.clone()]).unwrap(), v6.ip);
        let text = choose(vec![a, b]).unwrap_err().to_string();
        assert!(text.contains("--advertise 192.168.56.10  (eth1)"), "{text}");
    }

    #[test]
    fn the_way_to_loopback_is_loopback() {
        assert_eq!(towards(&["127.0.0.1:7100".into()]), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(towards(&["nonsense".into()]), None);
    }

    #[test]
    fn a_port_may_be_left_out() {
        assert_eq!(parse("10.0.0.1", 7100).unwrap().to_string(), "10.0.0.1:7100");
        assert_eq!(parse("[::1]:8", 7100).unwrap().to_string(), "[::1]:8");
        assert!(parse("host:7100", 7100).is_err());
    }
}
