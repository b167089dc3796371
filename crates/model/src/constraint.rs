//! Placement constraints: `key == value` and `key != value`, Swarm's grammar.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::node::Node;

/// One condition a node must meet. All of a task's constraints must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    pub key: Key,
    pub operator: Operator,
    pub value: String,
}

/// What of a node is looked at. A label that a node lacks reads as the empty string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Key {
    NodeId,
    NodeHostname,
    NodeIp,
    NodeRole,
    PlatformOs,
    PlatformArch,
    /// Set by operators.
    NodeLabel(String),
    /// Set by the worker's own command line.
    EngineLabel(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    Equal,
    NotEqual,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseConstraintError {
    #[error("`{0}` has no operator: write KEY==VALUE or KEY!=VALUE")]
    NoOperator(String),
    #[error("`{0}` has no value after the operator")]
    NoValue(String),
    #[error(
        "`{0}` is not a key: use node.id, node.hostname, node.ip, node.role, node.platform.os, \
         node.platform.arch, node.labels.NAME or engine.labels.NAME"
    )]
    UnknownKey(String),
}

impl FromStr for Constraint {
    type Err = ParseConstraintError;

    fn from_str(text: &str) -> Result<Self, ParseConstraintError> {
        let shown = || text.chars().take(120).collect::<String>();
        let (key, operator, value) = if let Some((key, value)) = text.split_once("==") {
            (key, Operator::Equal, value)
        } else if let Some((key, value)) = text.split_once("!=") {
            (key, Operator::NotEqual, value)
        } else {
            return Err(ParseConstraintError::NoOperator(shown()));
        };
        let value = value.trim();
        if value.is_empty() {
            return Err(ParseConstraintError::NoValue(shown()));
        }
        Ok(Self { key: key.trim().parse()?, operator, value: value.to_owned() })
    }
}

impl FromStr for Key {
    type Err = ParseConstraintError;

    fn from_str(text: &str) -> Result<Self, ParseConstraintError> {
        let label = |prefix: &str| {
            text.strip_prefix(prefix).filter(|name| !name.is_empty()).map(str::to_owned)
        };
        Ok(match text {
            "node.id" => Key::NodeId,
            "node.hostname" => Key::NodeHostname,
            "node.ip" => Key::NodeIp,
            "node.role" => Key::NodeRole,
            "node.platform.os" => Key::PlatformOs,
            "node.platform.arch" => Key::PlatformArch,
            _ => {
                if let Some(name) = label("node.labels.") {
                    Key::NodeLabel(name)
                } else if let Some(name) = label("engine.labels.") {
                    Key::EngineLabel(name)
                } else {
                    let shown = text.chars().take(120).collect();
                    return Err(ParseConstraintError::UnknownKey(shown));
                }
            }
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::NodeId => f.write_str("node.id"),
            Key::NodeHostname => f.write_str("node.hostname"),
            Key::NodeIp => f.write_str("node.ip"),
            Key::NodeRole => f.write_str("node.role"),
            Key::PlatformOs => f.write_str("node.platform.os"),
            Key::PlatformArch => f.write_str("node.platform.arch"),
            Key::NodeLabel(name) => write!(f, "node.labels.{name}"),
            Key::EngineLabel(name) => write!(f, "engine.labels.{name}"),
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.operator {
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
        };
        write!(f, "{}{operator}{}", self.key, self.value)
    }
}

impl Constraint {
    /// Whether a node meets the constraint. Values compare without regard to case, as in Swarm.
    pub fn holds(&self, node: &Node) -> bool {
        let equal = match &self.key {
            Key::NodeId => same(&node.id.to_string(), &self.value),
            Key::NodeHostname => same(&node.name, &self.value),
            Key::NodeIp => ip_matches(&node.description.address, &self.value),
            Key::NodeRole => same("worker", &self.value),
            Key::PlatformOs => same(&node.description.os, &self.value),
            Key::PlatformArch => same(&node.description.arch, &self.value),
            Key::NodeLabel(name) => same(label(&node.spec.labels, name), &self.value),
            Key::EngineLabel(name) => same(label(&node.description.labels, name), &self.value),
        };
        equal == (self.operator == Operator::Equal)
    }
}

fn same(left: &str, right: &str) -> bool {
    left.eq_ignore_ascii_case(right)
}

fn label<'a>(labels: &'a std::collections::BTreeMap<String, String>, name: &str) -> &'a str {
    labels.get(name).map_or("", String::as_str)
}

/// An address equals an address or lies in a CIDR block.
fn ip_matches(address: &str, wanted: &str) -> bool {
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let (network, bits) = match wanted.split_once('/') {
        Some((network, bits)) => (network, bits.parse::<u32>().ok()),
        None => (wanted, Some(128)),
    };
    let (Ok(network), Some(bits)) = (network.parse::<IpAddr>(), bits) else { return false };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            u32::from(a) & mask == u32::from(n) & mask
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => {
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            u128::from(a) & mask == u128::from(n) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swarm_strings_parse_and_print_back() {
        for text in ["node.labels.rack==a", "node.hostname!=worker-1", "node.role==worker"] {
            let parsed: Constraint = text.parse().expect("parses");
            assert_eq!(parsed.to_string(), text);
        }
        let spaced: Constraint = "node.labels.rack == a".parse().expect("parses");
        assert_eq!(spaced.to_string(), "node.labels.rack==a");
    }

    #[test]
    fn errors_name_the_mend() {
        let error = |t: &str| t.parse::<Constraint>().expect_err("refused").to_string();
        assert!(error("node.role").contains("no operator"));
        assert!(error("node.role==").contains("no value"));
        assert!(error("rack==a").contains("node.labels.NAME"));
    }

    #[test]
    fn addresses_match_blocks() {
        assert!(ip_matches("10.1.2.3", "10.1.0.0/16"));
        assert!(!ip_matches("10.2.2.3", "10.1.0.0/16"));
        assert!(ip_matches("10.2.2.3", "0.0.0.0/0"));
        assert!(ip_matches("10.2.2.3", "10.2.2.3"));
        assert!(!ip_matches("", "10.2.2.3"));
    }
}
