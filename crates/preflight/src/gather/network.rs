//! The network of this machine, and the scratch one.

use std::fs;

use cluster_network::BridgeConfig;
use cluster_network::survey::{self, Chain, LocalRoute, Trial};
use nix::unistd::{AccessFlags, access};

use super::text;
use crate::Options;
use crate::facts::{ReversePath, Setting};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

pub(super) struct Network {
    pub trial: Result<Trial, String>,
    pub nft_version: Result<String, String>,
    pub chains: Result<Vec<Chain>, String>,
    pub legacy_tables: Vec<String>,
    pub bridge_is_filtered: bool,
    pub forwarding: Setting,
    pub reverse_path: ReversePath,
    pub routes: Result<Vec<LocalRoute>, String>,
    pub local_ports: Option<(u16, u16)>,
}

pub(super) async fn look(options: &Options) -> Network {
    let mut config = BridgeConfig::new("/run/cluster-worker/netns");
    config.bridge_name.clone_from(&options.bridge);
    config.subnet = options.subnet;
    let trial = tokio::task::spawn_blocking(move || survey::attempt(config)).await;
    let trial = match trial {
        Ok(Ok(trial)) => Ok(trial),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let routes = survey::routes().await.map_err(|error| error.to_string());
    let default_routes = routes.iter().flatten().filter(|route| route.prefix_len == 0);
    let mut uplinks: Vec<&str> = default_routes.map(|route| route.device.as_str()).collect();
    uplinks.sort_unstable();
    uplinks.dedup();
    let reverse_path = ReversePath { strict: strict(&uplinks), uplinks: uplinks.len() };
    // Absent where the old tables are not loaded.
    let legacy = text("/proc/net/ip_tables_names").unwrap_or_default();
    Network {
        trial,
        nft_version: survey::nft_version().await,
        chains: survey::chains().await,
        legacy_tables: legacy.lines().map(str::to_owned).collect(),
        bridge_is_filtered: text("/proc/sys/net/bridge/bridge-nf-call-iptables").as_deref()
            == Some("1"),
        forwarding: Setting {
            value: text(FORWARDING),
            writable: access(FORWARDING, AccessFlags::W_OK).is_ok(),
        },
        reverse_path,
        routes,
        local_ports: local_ports(
            &text("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default(),
        ),
    }
}

/// Devices that are strict; the larger of a device's value and that of `all` counts.
fn strict(devices: &[&str]) -> Vec<String> {
    let value = |device: &str| -> u32 {
        let path = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    let all = value("all");
    let strict = devices.iter().filter(|device| value(device).max(all) == 1);
    strict.map(|device| (*device).to_owned()).collect()
}

fn local_ports(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports() {
        assert_eq!(local_ports("32768\t60999"), Some((32768, 60999)));
        assert_eq!(local_ports(""), None);
    }
}
