//! What a caller may say about a pull, and what it hears back.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PullPolicy {
    /// Pull only what is not on this node.
    #[default]
    Missing,
    /// Ask the registry each time; layers already here are not loaded again.
    Always,
    /// Only what is on this node.
    Never,
}

/// How registries are reached; the same for the whole worker.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// `host[:port]` of registries that may be spoken to without TLS. Loopback
    /// addresses may always.
    pub insecure: Vec<String>,
    /// PEM certificates trusted beside the system's.
    pub extra_ca: Vec<Vec<u8>>,
    /// For name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Longest silence in the middle of an answer.
    pub read_timeout: Duration,
    /// Layers in flight at once.
    pub parallel: usize,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            extra_ca: Vec::new(),
            connect_timeout: Duration::from_secs(3),
            read_timeout: Duration::from_secs(30),
            parallel: 3,
        }
    }
}

impl RegistryOptions {
    pub(crate) fn may_use_plain_http(&self, registry: &str) -> bool {
        self.insecure.iter().any(|host| host == registry) || is_loopback(registry)
    }
}

pub(crate) fn split_host(registry: &str) -> (&str, Option<u16>) {
    if let Some(v6) = registry.strip_prefix('[') {
        let (host, rest) = v6.split_once(']').unwrap_or((v6, ""));
        return (host, rest.strip_prefix(':').and_then(|p| p.parse().ok()));
    }
    match registry.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (registry, None),
    }
}

fn is_loopback(registry: &str) -> bool {
    let (host, _) = split_host(registry);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Credentials for one registry. Never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Auth {
    Basic { username: String, password: String },
    Bearer(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Auth::Basic(redacted)",
            Self::Bearer(_) => "Auth::Bearer(redacted)",
        })
    }
}

/// How far a pull is; sent through a watch channel, so only the latest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub phase: Phase,
    pub layers_total: u32,
    /// Layers unpacked and committed, or here already.
    pub layers_done: u32,
    pub bytes_total: u64,
    pub bytes_done: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    #[default]
    Resolving,
    Pulling,
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_only_where_allowed() {
        let options = RegistryOptions {
            insecure: vec!["r.example:5000".to_owned()],
            ..RegistryOptions::default()
        };
        for yes in ["r.example:5000", "localhost", "localhost:1", "127.8.9.1:5000", "[::1]:5"] {
            assert!(options.may_use_plain_http(yes), "{yes}");
        }
        for no in ["r.example", "r.example:5001", "10.0.0.1:5000", "localhost.example"] {
            assert!(!options.may_use_plain_http(no), "{no}");
        }
    }

    #[test]
    fn credentials_do_not_show() {
        let auth = Auth::Basic { username: "u".into(), password: "secret".into() };
        assert!(!format!("{auth:?}").contains("secret"));
    }
}
