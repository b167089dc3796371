//! Placement constraints: conditions on nodes, a superset of Swarm's grammar.
//!
//! `KEY==VALUE`, `KEY!=VALUE`, `KEY<VALUE` and the other orders, `KEY in (A, B)`, `KEY !in (A, B)`,
//! `KEY exists`, `KEY !exists`. Here are the types and their meaning, in `parse` their text, in
//! `order` what is less than what.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::node::Node;

mod order;
mod parse;

pub use parse::{CHARACTERS_MAX, ParseConstraintError, VALUES_MAX};

/// One condition a node must meet. All of a task's constraints must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    pub key: Key,
    pub rule: Rule,
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

/// What is asked of the value. Equality ignores case, as in Swarm; the orders hold only between two
/// numbers or two versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    Equal(String),
    NotEqual(String),
    Less(String),
    AtMost(String),
    Greater(String),
    AtLeast(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    /// The label is there, or the value is not empty.
    Exists,
    NotExists,
}

impl Constraint {
    /// Whether a node meets the constraint.
    pub fn holds(&self, node: &Node) -> bool {
        let is = |wanted: &String| self.key.equals(node, wanted);
        let ordered = |wanted: &str, good: fn(Ordering) -> bool| {
            order::compare(&self.key.value(node), wanted).is_some_and(good)
        };
        match &self.rule {
            Rule::Equal(wanted) => is(wanted),
            Rule::NotEqual(wanted) => !is(wanted),
            Rule::Less(wanted) => ordered(wanted, Ordering::is_lt),
            Rule::AtMost(wanted) => ordered(wanted, Ordering::is_le),
            Rule::Greater(wanted) => ordered(wanted, Ordering::is_gt),
            Rule::AtLeast(wanted) => ordered(wanted, Ordering::is_ge),
            Rule::In(wanted) => wanted.iter().any(is),
            Rule::NotIn(wanted) => !wanted.iter().any(is),
            Rule::Exists => self.key.exists(node),
            Rule::NotExists => !self.key.exists(node),
        }
    }
}

impl Rule {
    /// What the user wrote to compare with.
    pub fn values(&self) -> &[String] {
        match self {
            Rule::Equal(value)
            | Rule::NotEqual(value)
            | Rule::Less(value)
            | Rule::AtMost(value)
            | Rule::Greater(value)
            | Rule::AtLeast(value) => std::slice::from_ref(value),
            Rule::In(values) | Rule::NotIn(values) => values,
            Rule::Exists | Rule::NotExists => &[],
        }
    }
}

impl Key {
    /// What a node has under the key; empty when it lacks the label.
    pub fn value<'a>(&self, node: &'a Node) -> Cow<'a, str> {
        let text = match self {
            Key::NodeId => return Cow::Owned(node.id.to_string()),
            Key::NodeHostname => &node.name,
            Key::NodeIp => &node.description.address,
            Key::NodeRole => "worker",
            Key::PlatformOs => &node.description.os,
            Key::PlatformArch => &node.description.arch,
            Key::NodeLabel(name) => label(&node.spec.labels, name),
            Key::EngineLabel(name) => label(&node.description.labels, name),
        };
        Cow::Borrowed(text)
    }

    fn equals(&self, node: &Node, wanted: &str) -> bool {
        match self {
            Key::NodeIp => ip_matches(&node.description.address, wanted),
            _ => self.value(node).eq_ignore_ascii_case(wanted),
        }
    }

    fn exists(&self, node: &Node) -> bool {
        match self {
            Key::NodeLabel(name) => node.spec.labels.contains_key(name),
            Key::EngineLabel(name) => node.description.labels.contains_key(name),
            _ => !self.value(node).is_empty(),
        }
    }
}

fn label<'a>(labels: &'a BTreeMap<String, String>, name: &str) -> &'a str {
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
mod tests;
