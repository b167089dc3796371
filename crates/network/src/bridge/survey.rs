//! Whether this machine can give containers a network, found out by doing it where nobody sees it.
//!
//! For checks before anything is set up: nothing here changes the machine. What is tried is tried
//! on a thread of its own in a network namespace of its own, which is gone when the thread is.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, unshare};

use super::config::{self, BridgeConfig};
use super::firewall;
use super::netlink::{Cable, Netlink};
use super::subnet::Subnet;

pub use super::firewall::Chain;

/// What came of the attempt; the reasons are for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// A bridge and a cable were created and deleted again.
    pub devices: Result<(), String>,
    /// Our rules were loaded.
    pub rules: Result<(), String>,
}

/// An IPv4 route of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRoute {
    pub destination: Ipv4Addr,
    pub prefix_len: u8,
    pub device: String,
}

/// What stands in the way of a container subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conflicts {
    /// A device that the subnet, or a part of it, is already routed to: it cannot be used.
    pub taken: Option<String>,
    /// Devices whose wider networks the subnet hides a part of.
    pub shadowed: Vec<String>,
}

/// Builds what [`Bridge::ensure`](super::Bridge::ensure) would, in a scratch namespace. An error
/// says why there is none.
pub fn attempt(config: BridgeConfig) -> io::Result<Trial> {
    let thread = std::thread::Builder::new().name("trial".to_owned()).spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        // All of it stays on this thread: only here is the scratch namespace.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(async {
            let devices = devices(&config).await.map_err(|error| error.to_string());
            let text = firewall::rules(&config.nft_table, &config.bridge_name, config.subnet);
            // Loaded in earnest: a mere check would not ask the kernel for NAT and the like.
            let rules = firewall::load(&text).await.map_err(|error| told(&error));
            Trial { devices, rules }
        }))
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

async fn devices(config: &BridgeConfig) -> io::Result<()> {
    let at = |step: &'static str| {
        move |error: io::Error| io::Error::new(error.kind(), format!("{step}: {error}"))
    };
    let own = File::open("/proc/thread-self/ns/net").map_err(at("opening the namespace"))?;
    let netlink = Netlink::open().map_err(at("opening a netlink socket"))?;
    let (bridge, gateway) = (&config.bridge_name, config.subnet.gateway());
    let made = netlink.add_bridge(bridge, config::mac(gateway), 1500).await;
    made.map_err(at("creating a bridge"))?;
    let found = netlink.link(bridge).await?.ok_or(io::ErrorKind::NotFound);
    let found = found.map_err(io::Error::from).map_err(at("finding the bridge"))?;
    let cable = Cable {
        host_end: &config.host_device("trial"),
        container_end: "eth0",
        bridge: found.index,
        mtu: 1500,
        container_mac: config::mac(gateway),
        netns: own.as_fd(),
    };
    netlink.add_cable(cable).await.map_err(at("creating a veth pair"))?;
    let added = netlink.add_address(found.index, gateway, config.subnet.prefix_len()).await;
    added.map_err(at("giving the bridge its address"))?;
    netlink.delete_link(found.index).await.map_err(at("deleting the bridge"))
}

/// The version that the `nft` program states, such as `1.0.6`.
pub async fn nft_version() -> Result<String, String> {
    firewall::version().await.map_err(|error| told(&error))
}

/// Every base chain and user chain of this machine.
pub async fn chains() -> Result<Vec<Chain>, String> {
    firewall::chains().await.map_err(|error| told(&error))
}

/// The routes of the main table in the namespace of the calling thread.
pub async fn routes() -> io::Result<Vec<LocalRoute>> {
    let netlink = Netlink::open()?;
    let (routes, links) = (netlink.routes().await?, netlink.links().await?);
    Ok(routes.iter().map(|route| LocalRoute::new(route, &links)).collect())
}

impl LocalRoute {
    pub(super) fn new(route: &super::netlink::Route, links: &[super::netlink::Link]) -> Self {
        let device = links.iter().find(|link| Some(link.index) == route.device);
        LocalRoute {
            destination: route.destination,
            prefix_len: route.prefix_len,
            device: device.map_or("none", |link| link.name.as_str()).to_owned(),
        }
    }
}

/// Compares a subnet with the routes there are; those over `bridge` are our own. A wider route is
/// only worth a word, because ours is more specific and wins.
pub fn conflicts(subnet: Subnet, bridge: &str, routes: &[LocalRoute]) -> Conflicts {
    let mut found = Conflicts::default();
    for route in routes.iter().filter(|r| r.prefix_len > 0 && r.device != bridge) {
        let mask = u32::MAX << (32 - u32::from(route.prefix_len));
        if subnet.contains(route.destination) && route.prefix_len >= subnet.prefix_len() {
            found.taken.get_or_insert_with(|| route.device.clone());
        } else if u32::from(subnet.network()) & mask == u32::from(route.destination) & mask {
            found.shadowed.push(route.device.clone());
        }
    }
    found
}

fn told(error: &firewall::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: [u8; 4], prefix_len: u8, device: &str) -> LocalRoute {
        LocalRoute { destination: destination.into(), prefix_len, device: device.to_owned() }
    }

    #[test]
    fn a_subnet_that_leads_elsewhere_is_taken_and_a_wider_one_is_shadowed() {
        let subnet = Subnet::DEFAULT;
        let routes = [
            route([0, 0, 0, 0], 0, "eth0"),
            route([10, 88, 0, 0], 16, "cluster0"),
            route([192, 168, 0, 0], 16, "eth1"),
        ];
        assert_eq!(conflicts(subnet, "cluster0", &routes), Conflicts::default());
        let part = [route([10, 88, 7, 0], 24, "tun0")];
        assert_eq!(conflicts(subnet, "cluster0", &part).taken.as_deref(), Some("tun0"));
        let wider = [route([10, 0, 0, 0], 8, "eth0")];
        let found = conflicts(subnet, "cluster0", &wider);
        assert_eq!((found.taken, found.shadowed), (None, vec!["eth0".to_owned()]));
    }

    #[test]
    fn an_attempt_leaves_nothing_on_the_machine() {
        let before = std::fs::read_to_string("/proc/net/dev").unwrap();
        let trial = attempt(BridgeConfig::new("/run/none")).expect("a scratch namespace");
        assert_eq!(trial.devices, Ok(()));
        let names = |text: &str| -> Vec<String> {
            text.lines().filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned())).collect()
        };
        let after = std::fs::read_to_string("/proc/net/dev").unwrap();
        assert_eq!(names(&before), names(&after));
    }
}
