//! A node, and the cluster.

use std::collections::BTreeMap;

use cluster_pb::control::v1 as control;
use cluster_pb::types::v1 as pb;
use serde::Serialize;

use super::service::ResourcesView;

#[derive(Debug, Serialize)]
pub struct NodeView {
    pub id: String,
    pub name: String,
    /// `worker` or `manager`
    pub role: String,
    /// `unknown`, `ready` or `down`
    pub state: String,
    /// `active`, `pause` or `drain`
    pub availability: String,
    /// `leader`, `follower` or `unreachable`; empty for workers.
    pub manager_status: String,
    pub address: String,
    pub message: String,
    pub state_since_ms: u64,
    pub created_at_ms: u64,
    pub tasks: u32,
    pub labels: BTreeMap<String, String>,
    pub engine_labels: BTreeMap<String, String>,
    pub os: String,
    pub arch: String,
    pub agent_version: String,
    pub runtime: String,
    pub healthy: bool,
    pub notices: Vec<String>,
    pub mesh_port: u32,
    pub capacity: ResourcesView,
    pub reserved: ResourcesView,
    pub generic: Vec<GenericView>,
    /// Null: no drain, or none with a deadline.
    pub drain_deadline_ms: Option<u64>,
    /// Tasks that a drain still waits for, and for what.
    pub drain_waits: Vec<String>,
    pub version: u64,
}

#[derive(Debug, Serialize)]
pub struct GenericView {
    pub kind: String,
    pub count: u64,
    /// Empty: all of the kind are the same.
    pub names: Vec<String>,
}

impl From<pb::GenericResource> for GenericView {
    fn from(resource: pb::GenericResource) -> Self {
        let count = match resource.names.len() {
            0 => resource.count,
            named => u64::try_from(named).unwrap_or(u64::MAX),
        };
        Self { kind: resource.kind, count, names: resource.names }
    }
}

impl From<pb::Node> for NodeView {
    fn from(node: pb::Node) -> Self {
        let described = node.description.unwrap_or_default();
        Self {
            id: node.id,
            name: node.name,
            role: node.role,
            state: node.state,
            availability: node.availability,
            manager_status: node.manager_status,
            address: described.address,
            message: node.message,
            state_since_ms: node.state_since_ms,
            created_at_ms: node.created_at_ms,
            tasks: node.tasks,
            labels: node.labels,
            engine_labels: described.labels,
            os: described.os,
            arch: described.arch,
            agent_version: described.agent_version,
            runtime: described.runtime,
            healthy: described.healthy,
            notices: described.notices,
            mesh_port: described.mesh_port,
            capacity: described.capacity.unwrap_or_default().into(),
            reserved: node.reserved.unwrap_or_default().into(),
            generic: described.generic.into_iter().map(GenericView::from).collect(),
            drain_deadline_ms: (node.drain_deadline_ms != 0).then_some(node.drain_deadline_ms),
            drain_waits: node.drain_waits,
            version: node.version,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct ClusterView {
    pub id: String,
    pub name: String,
    pub version: String,
    pub created_at_ms: u64,
    pub term: u64,
    pub index: u64,
    pub heartbeat_period_ms: u64,
    pub lease_ms: u64,
    pub services: u32,
    pub tasks: u32,
    pub workers: u32,
    pub workers_ready: u32,
    /// `spread` or `bin-pack`
    pub strategy: String,
    /// Why tasks of silent nodes are not replaced; empty when all is well.
    pub storm: String,
    pub managers: Vec<ManagerView>,
    /// SHA-256 of the state at `index`.
    pub state_hash: String,
    /// 0: off.
    pub replace_dead_managers_after_ms: u64,
    /// 0: off.
    pub snapshot_every_ms: u64,
    pub snapshot_keep: u32,
    pub warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct ManagerView {
    pub id: String,
    pub name: String,
    pub address: String,
    pub leader: bool,
    pub voter: bool,
    pub matched: u64,
    pub answering: bool,
    /// `leader`, `voter`, `spare` or `leaving`
    pub role: String,
    pub heard: bool,
    pub silent_ms: u64,
    /// Null when not known.
    pub lag: Option<u64>,
    pub version: String,
    /// 0: none that is known.
    pub snapshot_at_ms: u64,
    pub snapshot_failure: String,
}

impl From<control::ManagerStatus> for ManagerView {
    fn from(manager: control::ManagerStatus) -> Self {
        Self {
            id: manager.id,
            name: manager.name,
            address: manager.address,
            leader: manager.leader,
            voter: manager.voter,
            matched: manager.matched,
            answering: manager.answering,
            role: manager.role,
            heard: manager.heard,
            silent_ms: manager.silent_ms,
            lag: manager.lag,
            version: manager.version,
            snapshot_at_ms: manager.snapshot_at_ms,
            snapshot_failure: manager.snapshot_failure,
        }
    }
}

impl From<control::GetClusterResponse> for ClusterView {
    fn from(cluster: control::GetClusterResponse) -> Self {
        Self {
            id: cluster.id,
            name: cluster.name,
            version: cluster.version,
            created_at_ms: cluster.created_at_ms,
            term: cluster.term,
            index: cluster.index,
            heartbeat_period_ms: cluster.heartbeat_period_ms,
            lease_ms: cluster.lease_ms,
            services: cluster.services,
            tasks: cluster.tasks,
            workers: cluster.workers,
            workers_ready: cluster.workers_ready,
            strategy: cluster.strategy,
            storm: cluster.storm,
            managers: cluster.managers.into_iter().map(ManagerView::from).collect(),
            state_hash: cluster.state_hash,
            replace_dead_managers_after_ms: cluster.replace_dead_managers_after_ms,
            snapshot_every_ms: cluster.snapshot_every_ms,
            snapshot_keep: cluster.snapshot_keep,
            warnings: cluster.warnings,
        }
    }
}
