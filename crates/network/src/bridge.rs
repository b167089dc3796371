//! The bridge the containers of this machine live on.
//!
//! Owns: the bridge device, one pinned network namespace and one veth pair per
//! container, the addresses of the subnet, and one packet filter table. Never
//! deals with published ports (that is [`mesh`](crate::mesh)) or with
//! processes: whoever starts a container joins [`Attachment::netns`].
//!
//! The kernel is the only record. [`Bridge::ensure`] adopts every complete
//! attachment a predecessor left, [`Bridge::recover`] removes those nobody
//! wants any more; a crash between two steps leaves something incomplete,
//! which is removed the same way. No `ip` binary is needed, `nft` is used when
//! it is there.

mod config;
mod error;
mod firewall;
mod ipam;
mod netlink;
mod netns;
mod setup;
mod subnet;
pub mod survey;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use config::{BridgeConfig, ConfigError, Notice};
pub use error::Error;
pub use subnet::{Subnet, SubnetError};

use error::{at_attach, at_bridge, at_detach};
use ipam::Ipam;
use netlink::{Cable, Link, Netlink};
use netns::{Inside, Sysctl};
use setup::{adopt, check_routes, ensure_device, ids_in, load_rules, underlay_mtu};

/// The container's side of the network, as the runtime needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// File that pins the namespace; join it with setns or name it in the
    /// container's configuration.
    pub netns: PathBuf,
    pub ip: Ipv4Addr,
    pub gateway: Ipv4Addr,
    pub prefix_len: u8,
    /// Our end of the cable, for statistics.
    pub host_device: String,
}

/// Handle to the bridge; clones share it. Dropping it changes nothing in the
/// kernel, so containers keep their network when the worker ends.
#[derive(Debug, Clone)]
pub struct Bridge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: BridgeConfig,
    netlink: Netlink,
    bridge: Link,
    notices: Vec<Notice>,
    state: Mutex<State>,
    /// Serialises work on one id and bounds how many ids are worked on.
    lanes: Vec<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct State {
    ipam: Ipam,
    attached: HashMap<String, Attachment>,
}

const LANES: usize = 16;
const CONTAINER_DEVICE: &str = "eth0";
/// The loopback device is always the first one.
const LOOPBACK: u32 = 1;

/// What every container's namespace gets, as with Docker: any user may bind
/// low ports and ping.
const CONTAINER_SYSCTLS: &[Sysctl] = &[
    Sysctl { key: "net/ipv4/ip_unprivileged_port_start", value: "0", optional: false },
    Sysctl { key: "net/ipv4/ping_group_range", value: "0 2147483647", optional: true },
    // The bridge is IPv4 only; a link-local address would be a way around the rules.
    Sysctl { key: "net/ipv6/conf/default/disable_ipv6", value: "1", optional: true },
];

const MACHINE_SYSCTLS: &[Sysctl] = &[
    Sysctl { key: "net/ipv4/ip_forward", value: "1", optional: false },
    // The mesh opens many connections to few addresses; without this they run
    // out of ports within a minute of heavy use.
    Sysctl { key: "net/ipv4/tcp_tw_reuse", value: "1", optional: true },
];

impl Bridge {
    /// Makes the bridge exist and be usable in the network namespace of the
    /// calling thread, and adopts the attachments it finds.
    ///
    /// Idempotent. What works only in part is told by [`Bridge::notices`].
    pub async fn ensure(config: BridgeConfig) -> Result<Self, Error> {
        config.validate()?;
        let step = |step| at_bridge(&config.bridge_name, step);
        tokio::fs::create_dir_all(&config.netns_dir)
            .await
            .map_err(step("creating the namespace folder"))?;
        let netlink = Netlink::open().map_err(step("opening a netlink socket"))?;
        let routes = netlink.routes().await.map_err(step("reading routes"))?;
        let links = netlink.links().await.map_err(step("reading devices"))?;
        let mut notices = check_routes(&config, &routes, &links)?;
        let mtu = underlay_mtu(&routes, &links);
        let bridge = ensure_device(&config, &netlink, mtu).await?;
        for sysctl in MACHINE_SYSCTLS {
            sysctl.write().map_err(step("setting kernel parameters"))?;
        }
        notices.extend(load_rules(&config).await);
        let attached = adopt(&config, &netlink, &bridge).await?;
        let taken: Vec<_> = attached.values().map(|a| a.ip).collect();
        for notice in &notices {
            tracing::warn!(bridge = config.bridge_name, %notice, "container network is degraded");
        }
        Ok(Bridge(Arc::new(Inner {
            state: Mutex::new(State { ipam: Ipam::new(config.subnet, &taken), attached }),
            lanes: (0..LANES).map(|_| tokio::sync::Mutex::new(())).collect(),
            config,
            netlink,
            bridge,
            notices,
        })))
    }

    /// What does not work as it should; empty when all is well.
    pub fn notices(&self) -> &[Notice] {
        &self.0.notices
    }

    pub fn config(&self) -> &BridgeConfig {
        &self.0.config
    }

    /// Loads our packet filter table again, in case somebody flushed it.
    pub async fn reload_rules(&self) -> Vec<Notice> {
        load_rules(&self.0.config).await
    }

    /// Gives container `id` a network of its own.
    ///
    /// An id that is attached gets the same answer again. Goes on in the
    /// background when the caller stops waiting, so nothing is left half-made;
    /// then `detach` or `recover` removes it.
    pub async fn attach(&self, id: &str) -> Result<Attachment, Error> {
        let (inner, id) = (self.0.clone(), checked(id)?);
        owned(id.clone(), async move {
            let _lane = inner.lane(&id).lock().await;
            inner.attach(&id).await
        })
        .await
    }

    /// Takes the network of `id` away. One that has none is fine.
    pub async fn detach(&self, id: &str) -> Result<(), Error> {
        let (inner, id) = (self.0.clone(), checked(id)?);
        owned(id.clone(), async move {
            let _lane = inner.lane(&id).lock().await;
            inner.detach(&id).await
        })
        .await
    }

    /// Removes every attachment whose id is not in `live`, and everything
    /// incomplete. Returns what is left. Called once, before any `attach`.
    pub async fn recover(
        &self,
        live: &HashSet<String>,
    ) -> Result<HashMap<String, Attachment>, Error> {
        let ids = ids_in(&self.0.config.netns_dir).await?;
        for id in ids {
            if !(live.contains(&id) && self.0.lock().attached.contains_key(&id)) {
                self.detach(&id).await?;
            }
        }
        self.0.remove_loose_cables().await?;
        Ok(self.0.lock().attached.clone())
    }

    pub fn attachment(&self, id: &str) -> Option<Attachment> {
        self.0.lock().attached.get(id).cloned()
    }

    /// Removes all attachments, the bridge and our packet filter table.
    pub async fn destroy(self) -> Result<(), Error> {
        self.recover(&HashSet::new()).await?;
        let inner = &self.0;
        let name = &inner.config.bridge_name;
        inner
            .netlink
            .delete_link(inner.bridge.index)
            .await
            .map_err(at_bridge(name, "deleting it"))?;
        if let Err(error) = firewall::unload(&inner.config.nft_table).await {
            tracing::debug!(%error, "packet filter table was not removed");
        }
        Ok(())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lane(&self, id: &str) -> &tokio::sync::Mutex<()> {
        let lane = config::hash(id) % LANES as u64;
        &self.lanes[usize::try_from(lane).unwrap_or(0)]
    }

    async fn attach(&self, id: &str) -> Result<Attachment, Error> {
        let path = self.config.netns_dir.join(id);
        let known = self.lock().attached.get(id).cloned();
        if let Some(attachment) = known {
            let inside = netns::open(&path).await;
            if inside.map_err(at_attach(id, "checking its namespace"))?.is_some() {
                return Ok(attachment);
            }
            tracing::warn!(id, "a container namespace was removed behind our back");
            self.detach(id).await?;
        }
        let ip = self.lock().ipam.allocate();
        let ip = ip.ok_or(Error::Exhausted(self.config.subnet))?;
        let attachment = self.config.attachment(id, ip);
        if let Err(error) = self.build(id, &attachment).await {
            if let Err(error) = self.remove(id).await {
                tracing::warn!(id, %error, "an unfinished container network stays behind");
            }
            self.lock().ipam.free(ip);
            return Err(error);
        }
        let mut state = self.lock();
        state.attached.insert(id.to_owned(), attachment.clone());
        Ok(attachment)
    }

    async fn build(&self, id: &str, attachment: &Attachment) -> Result<(), Error> {
        let step = |step| at_attach(id, step);
        // Whatever an earlier, interrupted attempt left.
        self.remove(id).await?;
        let Inside { netns, netlink } = netns::create(&attachment.netns, CONTAINER_SYSCTLS)
            .await
            .map_err(step("creating its namespace"))?;
        let cable = Cable {
            host_end: &attachment.host_device,
            container_end: CONTAINER_DEVICE,
            bridge: self.bridge.index,
            mtu: self.bridge.mtu,
            container_mac: config::mac(attachment.ip),
            netns: netns.as_fd(),
        };
        let added = self.netlink.add_cable(cable).await;
        added.map_err(step("creating its cable"))?;
        let device = container_device(&netlink).await;
        let device = device.map_err(step("finding its device"))?;
        netlink
            .add_address(device, attachment.ip, attachment.prefix_len)
            .await
            .map_err(step("setting its address"))?;
        for index in [LOOPBACK, device] {
            let up = netlink.set_up(index).await;
            up.map_err(step("bringing its devices up"))?;
        }
        netlink
            .add_default_route(attachment.gateway, device)
            .await
            .map_err(step("setting its route"))
    }

    async fn detach(&self, id: &str) -> Result<(), Error> {
        self.remove(id).await?;
        let mut state = self.lock();
        if let Some(attachment) = state.attached.remove(id) {
            state.ipam.free(attachment.ip);
        }
        Ok(())
    }

    /// Removes cable and namespace, in this order: deleting a namespace alone
    /// lets the cable's name linger for a while.
    async fn remove(&self, id: &str) -> Result<(), Error> {
        let cable = self.netlink.link(&self.config.host_device(id)).await;
        if let Some(cable) = cable.map_err(at_detach(id, "finding its cable"))? {
            let deleted = self.netlink.delete_link(cable.index).await;
            deleted.map_err(at_detach(id, "deleting its cable"))?;
        }
        let path = self.config.netns_dir.join(id);
        tokio::task::spawn_blocking(move || netns::release(&path))
            .await
            .map_err(|_| Error::Interrupted(id.to_owned()))?
            .map_err(at_detach(id, "releasing its namespace"))
    }

    async fn remove_loose_cables(&self) -> Result<(), Error> {
        let step = |step| at_bridge(&self.config.bridge_name, step);
        let wanted: HashSet<String> = {
            let state = self.lock();
            let cables = state.attached.values().map(|a| a.host_device.clone());
            cables.collect()
        };
        let links = self.netlink.links().await.map_err(step("reading devices"))?;
        let loose = links.iter().filter(|link| {
            link.controller == Some(self.bridge.index)
                && link.name.starts_with(&self.config.veth_prefix)
                && !wanted.contains(&link.name)
        });
        for link in loose {
            tracing::debug!(device = link.name, "removing a cable without a container");
            let deleted = self.netlink.delete_link(link.index).await;
            deleted.map_err(step("deleting a cable without a container"))?;
        }
        Ok(())
    }
}

async fn container_device(netlink: &Netlink) -> io::Result<u32> {
    let device = netlink.link(CONTAINER_DEVICE).await?;
    Ok(device.ok_or(io::ErrorKind::NotFound)?.index)
}

fn checked(id: &str) -> Result<String, Error> {
    match config::is_id(id) {
        true => Ok(id.to_owned()),
        false => Err(Error::BadId(id.chars().take(80).collect())),
    }
}

/// Runs `work` to its end even if the caller goes away.
async fn owned<T: Send + 'static>(
    id: String,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work).await.map_err(|_| Error::Interrupted(id))?
}
