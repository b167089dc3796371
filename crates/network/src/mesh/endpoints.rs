//! What the mesh is told: which port leads to which backends.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One whole picture of all published ports of the cluster.
///
/// `version` only grows; [`Mesh::apply`](super::Mesh::apply) refuses to go
/// back. The picture is complete: what it does not list is not published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    pub version: u64,
    pub ports: Vec<PublishedPort>,
}

/// A port that every worker listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    pub published: u16,
    pub service_id: String,
    pub service_name: String,
    pub backends: Vec<Backend>,
}

/// A task that answers on a published port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Backend {
    pub task_id: String,
    pub node_id: String,
    /// The mesh port of the worker that runs the task.
    pub node_mesh_addr: SocketAddr,
    /// The port the container itself listens on.
    pub target_port: u16,
}

impl Endpoints {
    /// The target ports that are published for each task.
    pub(crate) fn targets(&self) -> HashMap<String, Vec<u16>> {
        let mut targets: HashMap<String, Vec<u16>> = HashMap::new();
        for backend in self.ports.iter().flat_map(|port| &port.backends) {
            targets.entry(backend.task_id.clone()).or_default().push(backend.target_port);
        }
        targets
    }
}
