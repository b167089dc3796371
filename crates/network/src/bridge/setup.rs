//! The steps that make the machine ready, and reading back what is there.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::config::{self, BridgeConfig, Notice};
use super::error::{Error, at_bridge};
use super::netlink::{Link, Netlink, Route};
use super::survey::{LocalRoute, conflicts};
use super::{Attachment, CONTAINER_DEVICE, firewall, netns};

pub(super) async fn ensure_device(
    config: &BridgeConfig,
    netlink: &Netlink,
    mtu: u32,
) -> Result<Link, Error> {
    let name = &config.bridge_name;
    let step = |step| at_bridge(name, step);
    let gateway = config.subnet.gateway();
    netlink.add_bridge(name, config::mac(gateway), mtu).await.map_err(step("creating it"))?;
    let found = netlink.link(name).await.map_err(step("finding it"))?;
    let mut bridge = found.ok_or_else(|| step("finding it")(io::ErrorKind::NotFound.into()))?;
    if !bridge.is_bridge {
        return Err(Error::NameTaken(name.clone()));
    }
    if bridge.mtu != mtu {
        let set = netlink.set_mtu(bridge.index, mtu).await;
        set.map_err(step("setting its MTU"))?;
        bridge.mtu = mtu;
    }
    netlink
        .add_address(bridge.index, gateway, config.subnet.prefix_len())
        .await
        .map_err(step("setting its address"))?;
    let up = netlink.set_up(bridge.index).await;
    up.map_err(step("bringing it up"))?;
    Ok(bridge)
}

/// Finds the attachments that are complete: a pinned namespace with an address
/// of ours and a cable.
pub(super) async fn adopt(
    config: &BridgeConfig,
    netlink: &Netlink,
    bridge: &Link,
) -> Result<HashMap<String, Attachment>, Error> {
    let mut attached = HashMap::new();
    for id in ids_in(&config.netns_dir).await? {
        match adopt_one(config, netlink, bridge, &id).await {
            Ok(Some(attachment)) => {
                attached.insert(id, attachment);
            }
            Ok(None) => tracing::debug!(id, "container network is incomplete, not adopted"),
            Err(error) => tracing::warn!(id, %error, "container network cannot be read"),
        }
    }
    Ok(attached)
}

async fn adopt_one(
    config: &BridgeConfig,
    netlink: &Netlink,
    bridge: &Link,
    id: &str,
) -> io::Result<Option<Attachment>> {
    let Some(cable) = netlink.link(&config.host_device(id)).await? else {
        return Ok(None);
    };
    if cable.controller != Some(bridge.index) {
        // The bridge was deleted and made anew.
        netlink.plug(cable.index, bridge.index).await?;
    }
    let Some(inside) = netns::open(&config.netns_dir.join(id)).await? else {
        return Ok(None);
    };
    let Some(device) = inside.netlink.link(CONTAINER_DEVICE).await? else {
        return Ok(None);
    };
    let addresses = inside.netlink.addresses(device.index).await?;
    let ours = addresses.iter().find(|(ip, _)| config.subnet.contains(*ip));
    // The route is the last step of building one.
    let routes = inside.netlink.routes().await?;
    let complete = routes.iter().any(|route| route.prefix_len == 0);
    Ok(ours.filter(|_| complete).map(|(ip, _)| config.attachment(id, *ip)))
}

pub(super) async fn ids_in(dir: &Path) -> Result<Vec<String>, Error> {
    let scan = |source| Error::Scan { dir: dir.to_owned(), source };
    let mut ids = Vec::new();
    let mut entries = tokio::fs::read_dir(dir).await.map_err(scan)?;
    while let Some(entry) = entries.next_entry().await.map_err(scan)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if config::is_id(&name) {
            ids.push(name);
        }
    }
    Ok(ids)
}

pub(super) async fn load_rules(config: &BridgeConfig) -> Vec<Notice> {
    let text = firewall::rules(&config.nft_table, &config.bridge_name, config.subnet);
    if let Err(error) = firewall::load(&text).await {
        return vec![Notice::no_packet_filter(&error)];
    }
    let drops = firewall::foreign_drops(&config.nft_table).await;
    let drops = drops.unwrap_or_default().into_iter();
    drops.map(|table| Notice::ForwardDropped { table }).collect()
}

/// Refuses a subnet that leads elsewhere; a wider route is only worth a word,
/// because ours is more specific and wins.
pub(super) fn check_routes(
    config: &BridgeConfig,
    routes: &[Route],
    links: &[Link],
) -> Result<Vec<Notice>, Error> {
    let subnet = config.subnet;
    let local: Vec<LocalRoute> = routes.iter().map(|route| LocalRoute::new(route, links)).collect();
    let found = conflicts(subnet, &config.bridge_name, &local);
    match found.taken {
        Some(device) => Err(Error::SubnetTaken { subnet, device }),
        None => {
            let shadowed = found.shadowed.into_iter();
            Ok(shadowed.map(|device| Notice::ShadowsRoute { subnet, device }).collect())
        }
    }
}

/// The MTU of the device the machine reaches the world through.
pub(super) fn underlay_mtu(routes: &[Route], links: &[Link]) -> u32 {
    let default = routes.iter().filter(|r| r.prefix_len == 0);
    default
        .min_by_key(|r| r.metric)
        .and_then(|r| links.iter().find(|l| Some(l.index) == r.device))
        .map_or(DEFAULT_MTU, |l| l.mtu)
}

const DEFAULT_MTU: u32 = 1500;
