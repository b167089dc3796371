//! Every rtnetlink message this crate sends, in one place: the crate breaks
//! its API between minor releases, so nothing else may name its types.
//!
//! A netlink socket belongs to the network namespace of the thread that opened
//! it. [`Netlink::open`] therefore has to be called on a thread that is where
//! the socket shall act; afterwards it may be used from anywhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// An open socket; its background task ends with it.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

/// What we need to know of a network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    pub is_bridge: bool,
    pub is_up: bool,
    /// Index of the bridge it is a port of.
    pub controller: Option<u32>,
}

/// An IPv4 route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub destination: Ipv4Addr,
    pub prefix_len: u8,
    pub device: Option<u32>,
    pub metric: u32,
}

/// The two ends of a container's cable.
#[derive(Debug)]
pub struct Cable<'a> {
    pub host_end: &'a str,
    pub container_end: &'a str,
    pub bridge: u32,
    pub mtu: u32,
    pub container_mac: [u8; 6],
    pub netns: BorrowedFd<'a>,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace. Needs an
    /// entered tokio runtime.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Netlink { handle, connection: tokio::spawn(connection) })
    }

    pub async fn links(&self) -> io::Result<Vec<Link>> {
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(into_io)?;
        Ok(links.iter().map(link).collect())
    }

    /// The device of that name, if there is one.
    pub async fn link(&self, name: &str) -> io::Result<Option<Link>> {
        let found = self.handle.link().get().match_name(name).execute().try_next().await;
        match found.map_err(into_io) {
            Ok(message) => Ok(message.as_ref().map(link)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a bridge that keeps `mac` whatever ports come and go. One that
    /// exists already is fine.
    pub async fn add_bridge(&self, name: &str, mac: [u8; 6], mtu: u32) -> io::Result<()> {
        let message = LinkBridge::new(name).address(mac.to_vec()).mtu(mtu).build();
        let added = self.handle.link().add(message).execute().await;
        tolerate(added, libc::EEXIST)
    }

    /// Creates both ends in one message: ours on the bridge and up, the other
    /// one already inside the container's namespace.
    pub async fn add_cable(&self, cable: Cable<'_>) -> io::Result<()> {
        let peer = LinkUnspec::new_with_name(cable.container_end)
            .setns_by_fd(cable.netns.as_raw_fd())
            .address(cable.container_mac.to_vec())
            .mtu(cable.mtu)
            .build();
        let message = LinkVeth::new(cable.host_end, cable.container_end)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(cable.bridge)
            .mtu(cable.mtu)
            .up()
            .build();
        let added = self.handle.link().add(message).execute().await;
        added.map_err(into_io)
    }

    pub async fn set_up(&self, index: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        let set = self.handle.link().set(message).execute().await;
        set.map_err(into_io)
    }

    /// Makes a device a port of the bridge.
    pub async fn plug(&self, index: u32, bridge: u32) -> io::Result<()> {
        let port = LinkUnspec::new_with_index(index).controller(bridge).up();
        let set = self.handle.link().set(port.build()).execute().await;
        set.map_err(into_io)
    }

    pub async fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        let set = self.handle.link().set(message).execute().await;
        set.map_err(into_io)
    }

    /// Deletes a device; one that is gone already is fine.
    pub async fn delete_link(&self, index: u32) -> io::Result<()> {
        let deleted = self.handle.link().del(index).execute().await;
        tolerate(deleted, libc::ENODEV)
    }

    pub async fn addresses(&self, index: u32) -> io::Result<Vec<(Ipv4Addr, u8)>> {
        let found: Vec<_> = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute()
            .try_collect()
            .await
            .map_err(into_io)?;
        Ok(found
            .iter()
            .filter_map(|message| {
                let local = message.attributes.iter().find_map(|a| match a {
                    AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
                    _ => None,
                })?;
                Some((local, message.header.prefix_len))
            })
            .collect())
    }

    pub async fn add_address(&self, index: u32, ip: Ipv4Addr, prefix_len: u8) -> io::Result<()> {
        let request = self.handle.address().add(index, IpAddr::V4(ip), prefix_len);
        tolerate(request.execute().await, libc::EEXIST)
    }

    pub async fn add_default_route(&self, gateway: Ipv4Addr, device: u32) -> io::Result<()> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .output_interface(device)
            .build();
        let added = self.handle.route().add(message).execute().await;
        tolerate(added, libc::EEXIST)
    }

    pub async fn routes(&self) -> io::Result<Vec<Route>> {
        let mut filter = RouteMessage::default();
        filter.header.address_family = AddressFamily::Inet;
        let found: Vec<RouteMessage> =
            self.handle.route().get(filter).execute().try_collect().await.map_err(into_io)?;
        Ok(found.iter().filter(|r| r.header.table == RT_TABLE_MAIN).map(route).collect())
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

const RT_TABLE_MAIN: u8 = 254;

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        is_bridge: false,
        is_up: message.header.flags.contains(LinkFlags::Up),
        controller: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                link.is_bridge |= infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    link
}

fn route(message: &RouteMessage) -> Route {
    let mut route = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix_len: message.header.destination_prefix_length,
        device: None,
        metric: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => route.destination = *ip,
            RouteAttribute::Oif(index) => route.device = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    route
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

fn tolerate(result: Result<(), rtnetlink::Error>, errno: i32) -> io::Result<()> {
    match result.map_err(into_io) {
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        other => other,
    }
}
