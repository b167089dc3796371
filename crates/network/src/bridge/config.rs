//! How the bridge is named and addressed, and what may be wrong with it.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::{Attachment, Subnet, firewall};

/// What two workers on one machine must not share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// Device name, at most 15 characters.
    pub bridge_name: String,
    pub subnet: Subnet,
    /// Run-time folder that holds one pinned namespace file per container and
    /// nothing else.
    pub netns_dir: PathBuf,
    /// Name of the packet filter table that is ours alone.
    pub nft_table: String,
    /// Start of the names of our ends of the cables, at most 4 characters.
    pub veth_prefix: String,
}

impl BridgeConfig {
    pub fn new(netns_dir: impl Into<PathBuf>) -> Self {
        BridgeConfig {
            bridge_name: "cluster0".to_owned(),
            subnet: Subnet::DEFAULT,
            netns_dir: netns_dir.into(),
            nft_table: "cluster_bridge".to_owned(),
            veth_prefix: "cv".to_owned(),
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let word = |text: &str, most: usize| {
            (1..=most).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !word(&self.bridge_name, 15) {
            return Err(ConfigError::BridgeName(self.bridge_name.clone()));
        }
        if !word(&self.veth_prefix, VETH_PREFIX_MAX) {
            return Err(ConfigError::VethPrefix(self.veth_prefix.clone()));
        }
        // nft takes a leading letter and no dashes.
        let table = &self.nft_table;
        let starts_well = table.starts_with(|c: char| c.is_ascii_alphabetic());
        if !word(table, 64) || table.contains('-') || !starts_well {
            return Err(ConfigError::Table(table.clone()));
        }
        Ok(())
    }

    pub(super) fn host_device(&self, id: &str) -> String {
        let tag = hash(id) >> (64 - 4 * VETH_TAG_LEN);
        format!("{}{tag:0width$x}", self.veth_prefix, width = VETH_TAG_LEN)
    }

    pub(super) fn attachment(&self, id: &str, ip: Ipv4Addr) -> Attachment {
        Attachment {
            netns: self.netns_dir.join(id),
            ip,
            gateway: self.subnet.gateway(),
            prefix_len: self.subnet.prefix_len(),
            host_device: self.host_device(id),
        }
    }
}

const VETH_PREFIX_MAX: usize = 4;
/// Device names have 15 characters; 44 bits keep ids of one machine apart.
const VETH_TAG_LEN: usize = 11;

/// A name the kernel would not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("bridge name `{0}` must be 1 to 15 letters, digits, - or _")]
    BridgeName(String),
    #[error("device prefix `{0}` must be 1 to 4 letters, digits, - or _")]
    VethPrefix(String),
    #[error("packet filter table `{0}` must be letters, digits or _, a letter first")]
    Table(String),
}

/// Something that works less well than it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Containers reach each other and this machine, but not the world, and
    /// are not shielded from it.
    NoPacketFilter { reason: String },
    /// Another table drops forwarded packets; containers cannot reach the world.
    ForwardDropped { table: String },
    /// A wider route is hidden by the container subnet.
    ShadowsRoute { subnet: Subnet, device: String },
}

impl Notice {
    pub(super) fn no_packet_filter(error: &firewall::Error) -> Self {
        let reason = match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        Notice::NoPacketFilter { reason }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::NoPacketFilter { reason } => write!(
                f,
                "no packet filter ({reason}): containers have no way out of this machine and no \
                 protection from outside; install nftables"
            ),
            Notice::ForwardDropped { table } => write!(
                f,
                "the packet filter table `{table}` drops forwarded packets, so containers cannot \
                 reach other machines; allow the bridge there"
            ),
            Notice::ShadowsRoute { subnet, device } => write!(
                f,
                "the container subnet {subnet} hides part of a network reached through {device}"
            ),
        }
    }
}

/// Ids become file names.
pub(super) fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// FNV-1a: stable across runs, which the standard hasher is not.
pub(super) fn hash(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A locally administered address made of the IP address, so that neighbours'
/// caches stay right when an address moves to another container.
pub(super) fn mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x42, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_fit_and_are_stable() {
        let mut config = BridgeConfig::new("/run/x");
        config.veth_prefix = "abcd".to_owned();
        assert_eq!(config.validate(), Ok(()));
        let name = config.host_device("0123456789abc");
        assert_eq!(name.len(), 15);
        assert_eq!(name, config.host_device("0123456789abc"));
        assert_ne!(name, config.host_device("0123456789abd"));
    }

    #[test]
    fn refuses_names_the_kernel_would_refuse() {
        let good = BridgeConfig::new("/run/x");
        for name in ["", "a-name-of-16-chr", "a b", "a/b", "a\nb"] {
            let config = BridgeConfig { bridge_name: name.to_owned(), ..good.clone() };
            assert_eq!(config.validate(), Err(ConfigError::BridgeName(name.into())));
        }
        for table in ["", "1x", "a-b", "a b", "x;y"] {
            let config = BridgeConfig { nft_table: table.to_owned(), ..good.clone() };
            assert_eq!(config.validate(), Err(ConfigError::Table(table.into())));
        }
        assert!(!is_id("../x") && !is_id("") && !is_id("a.b") && is_id("0a-_Z"));
    }
}
