//! Roles, subjects, and the DNS names that certificates carry instead of addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the holder of a certificate is allowed to be. Stored as the certificate's OU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Manager,
    Worker,
    Admin,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown role: expected manager, worker or admin")]
pub struct UnknownRole;

impl Role {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Worker => "worker",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "manager" => Ok(Self::Manager),
            "worker" => Ok(Self::Worker),
            "admin" => Ok(Self::Admin),
            _ => Err(UnknownRole),
        }
    }
}

/// Who a certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    pub role: Role,
    pub node_id: String,
    pub cluster_id: String,
}

/// The name under which any holder of `role` is verified, whatever address was dialled.
pub fn role_server_name(role: Role, cluster_id: &str) -> String {
    format!("{role}.{cluster_id}.cluster.internal")
}

/// The name of one node, for callers that must reach exactly that node.
pub fn node_server_name(node_id: &str, cluster_id: &str) -> String {
    format!("{node_id}.{cluster_id}.cluster.internal")
}

/// Ids become DNS labels; a foreign letter here would end up inside certificates.
pub(crate) fn is_label(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 63
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}
