//! Nodes, the cluster and its tokens.

use cluster_daemon::chain;
use cluster_identity::{CaDigest, JoinSecret, JoinToken, Role};
use cluster_model::cluster::Secret;
use cluster_model::{
    Availability, Command, DrainPolicy, Manager, NodeId, NodeSpec, NodeState, Reply, State,
};
use cluster_pb::control::v1 as pb;
use cluster_pb::types::v1 as types;
use cluster_planner::{explain, storm};
use cluster_wire::{Code, Failure, object, spec};
use tonic::Status;

use super::{ControlService, cluster_of, page, page_limit};
use crate::api::lookup::{self, Member};
use crate::managers::{change, survey};
use crate::raft::View;

/// Tasks named that a drain waits for.
const DRAIN_WAITS_MAX: usize = 100;

const DRAIN_DEADLINE_MAX_MS: u64 = 7 * 24 * 3600 * 1000;

impl ControlService {
    pub(super) async fn nodes(
        &self,
        request: pb::ListNodesRequest,
    ) -> Result<pb::ListNodesResponse, Failure> {
        let view = self.context.read(request.stale).await?;
        let mut all: Vec<types::Node> = Vec::with_capacity(view.state.node_count());
        all.extend(self.managers_as_nodes(&view, |_, _| true).await);
        all.extend(view.state.nodes().map(|node| object::node(&view.state, node)));
        all.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        all.retain(|node| node.name > request.after);
        let (nodes, more) = page(all.into_iter(), page_limit(request.limit));
        let next = nodes.last().filter(|_| more).map(|last| last.name.clone()).unwrap_or_default();
        Ok(pb::ListNodesResponse { nodes, index: view.applied_index, next })
    }

    pub(super) async fn find_node(&self, view: &View, text: &str) -> Result<types::Node, Failure> {
        match lookup::member(&view.state, text)? {
            Member::Worker(node) => {
                let mut shown = object::node(&view.state, node);
                if node.spec.availability == Availability::Drain {
                    let now_ms = self.context.clock.now_ms();
                    shown.drain_waits = explain::drain(&view.state, node.id, now_ms);
                    let left = shown.drain_waits.len().saturating_sub(DRAIN_WAITS_MAX);
                    shown.drain_waits.truncate(DRAIN_WAITS_MAX);
                    if left > 0 {
                        shown.drain_waits.push(format!("{left} more are left out"));
                    }
                }
                Ok(shown)
            }
            Member::Manager(id, _) => {
                let found = self.managers_as_nodes(view, |other, _| other == id).await.pop();
                found.ok_or_else(|| Failure::not_found("node", text))
            }
        }
    }

    async fn managers_as_nodes(
        &self,
        view: &View,
        wanted: impl Fn(NodeId, &Manager) -> bool,
    ) -> Vec<types::Node> {
        let Some(cluster) = view.state.cluster() else { return Vec::new() };
        let leader = self.context.raft.leader().map(|(id, _)| id);
        let managers: Vec<(&NodeId, &Manager)> =
            cluster.managers.iter().filter(|(id, manager)| wanted(**id, manager)).collect();
        let looks = managers.iter().map(|(id, manager)| self.reaches(**id, &manager.address));
        let reached = futures::future::join_all(looks).await;
        let node = |(id, manager): (&NodeId, &Manager), up: bool| {
            let status = match (leader == Some(*id), up) {
                (true, _) => "leader",
                (false, true) => "follower",
                (false, false) => "unreachable",
            };
            types::Node {
                id: id.to_string(),
                name: manager.name.clone(),
                created_at_ms: manager.joined_at_ms,
                availability: "active".to_owned(),
                state: if up { "ready" } else { "down" }.to_owned(),
                role: "manager".to_owned(),
                manager_status: status.to_owned(),
                description: Some(types::NodeDescription {
                    address: manager.address.clone(),
                    ..Default::default()
                }),
                ..Default::default()
            }
        };
        managers.into_iter().zip(reached).map(|(entry, up)| node(entry, up)).collect()
    }

    async fn reaches(&self, id: NodeId, address: &str) -> bool {
        survey::reaches(&self.context, id, address).await
    }

    pub(super) async fn change_node(
        &self,
        request: pb::UpdateNodeRequest,
    ) -> Result<pb::UpdateNodeResponse, Failure> {
        let availability = request.availability.clone();
        let view = self.context.read(false).await?;
        let (id, command) = self.node_command(request, &view.state)?;
        let (index, reply) = self.context.propose(command).await?;
        tracing::info!(node_id = %id, availability, "node updated");
        let version = match reply {
            Reply::Node { version, .. } => version,
            _ => index,
        };
        Ok(pb::UpdateNodeResponse { version })
    }

    /// What a request to update a node asks for.
    pub(super) fn node_command(
        &self,
        request: pb::UpdateNodeRequest,
        state: &State,
    ) -> Result<(NodeId, Command), Failure> {
        let id: NodeId = request
            .id
            .parse()
            .map_err(|error| Failure::new(Code::InvalidField, format!("field `id`: {error}")))?;
        let availability = object::availability_from_str(&request.availability)?;
        let at_ms = self.context.clock.now_ms();
        if request.drain_deadline_ms.is_some_and(|after_ms| after_ms > DRAIN_DEADLINE_MAX_MS) {
            let message = "field `drain_deadline`: at most 7 days, for example 10m";
            return Err(Failure::new(Code::InvalidField, message));
        }
        let held = state.node(id).filter(|node| node.spec.availability == Availability::Drain);
        let silent = request.drain_deadline_ms.is_none() && request.drain_force.is_none();
        let drain = match held {
            // Whoever only relabels a draining node does not speak of its bounds.
            Some(held) if silent && availability == Availability::Drain => held.spec.drain,
            _ => DrainPolicy {
                deadline_at_ms: request.drain_deadline_ms.map(|after_ms| at_ms + after_ms),
                force: request.drain_force.unwrap_or(false),
            },
        };
        let spec = NodeSpec { availability, labels: request.labels, drain };
        let command = Command::UpdateNode { id, version: request.version, spec, at_ms };
        Ok((id, command))
    }

    pub(super) async fn drop_node(
        &self,
        request: pb::RemoveNodeRequest,
    ) -> Result<pb::RemoveNodeResponse, Status> {
        let view = self.context.read(false).await?;
        let id = match lookup::member(&view.state, &request.node)? {
            Member::Worker(node) => node.id,
            Member::Manager(id, manager) => {
                self.drop_manager(id, manager, request.force).await?;
                return Ok(pb::RemoveNodeResponse { id: id.to_string() });
            }
        };
        let at_ms = self.context.clock.now_ms();
        self.context.propose(Command::RemoveNode { id, force: request.force, at_ms }).await?;
        tracing::info!(node_id = %id, "node removed");
        Ok(pb::RemoveNodeResponse { id: id.to_string() })
    }

    /// Takes a manager out of the group, as `manager rm` does; one that runs only by force.
    async fn drop_manager(&self, id: NodeId, manager: &Manager, force: bool) -> Result<(), Status> {
        if !force && self.reaches(id, &manager.address).await {
            let message = format!(
                "manager `{}` is running; stop it first, or force its removal",
                manager.name
            );
            return Err(Failure::new(Code::NodeReady, message).into());
        }
        let (manager, change) = (id.to_string(), "remove".to_owned());
        let request = pb::ChangeManagerRequest { manager, change, force: true };
        change::change(&self.context, request).await.map(drop)
    }

    pub(super) async fn cluster(
        &self,
        request: pb::GetClusterRequest,
    ) -> Result<pb::GetClusterResponse, Failure> {
        let view = self.context.read(request.stale).await?;
        let state = &view.state;
        let cluster = cluster_of(state)?;
        let leadership = self.context.raft.leadership().borrow().clone();
        let told = survey::survey(&self.context, request.stale).await;
        let state_hash = match request.state_hash {
            true => self.state_hash(&view).await?,
            false => String::new(),
        };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(pb::GetClusterResponse {
            id: cluster.id.to_string(),
            name: cluster.name.clone(),
            created_at_ms: cluster.created_at_ms,
            managers: self.answering(told.managers),
            term: leadership.term,
            index: view.applied_index,
            heartbeat_period_ms: cluster.heartbeat_period_ms,
            lease_ms: cluster.lease_ms,
            services: count(state.services().filter(|service| !service.removed).count()),
            tasks: count(state.task_count()),
            workers_ready: count(state.nodes().filter(|n| n.state == NodeState::Ready).count()),
            workers: count(state.node_count()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            strategy: spec::strategy_to_str(cluster.strategy).to_owned(),
            object_version: cluster.version,
            storm: storm::assess(state, self.context.clock.now_ms())
                .map(|storm| storm.text)
                .unwrap_or_default(),
            state_hash,
            replace_dead_managers_after_ms: cluster.upkeep.replace_dead_after_ms,
            snapshot_every_ms: cluster.upkeep.snapshot_every_ms,
            snapshot_keep: cluster.upkeep.snapshot_keep,
            warnings: told.warnings,
        })
    }

    pub(super) async fn token(
        &self,
        request: pb::GetTokenRequest,
    ) -> Result<pb::GetTokenResponse, Failure> {
        let role = match request.role.as_str() {
            "worker" => Role::Worker,
            "manager" => Role::Manager,
            _ => {
                return Err(Failure::new(
                    Code::InvalidField,
                    "field `role`: use worker or manager",
                ));
            }
        };
        if request.rotate {
            let fresh = JoinSecret::generate()
                .map_err(|error| Failure::new(Code::Internal, chain(&error)))?;
            let secret = Secret::new(fresh.expose());
            let command = match role {
                Role::Manager => Command::SetManagerToken(secret),
                _ => Command::SetWorkerToken(secret),
            };
            self.context.propose(command).await?;
            tracing::info!(%role, "join token rotated");
        }
        let view = self.context.read(false).await?;
        let cluster = cluster_of(&view.state)?;
        let stored = match role {
            Role::Manager => &cluster.manager_token,
            _ => &cluster.worker_token,
        };
        let internal = |error: &dyn std::error::Error| Failure::new(Code::Internal, chain(error));
        let token = JoinToken {
            role,
            ca_digest: CaDigest::of_pem(&cluster.ca_certificate).map_err(|e| internal(&e))?,
            secret: JoinSecret::parse(stored.expose()).map_err(|e| internal(&e))?,
        };
        Ok(pb::GetTokenResponse { token: token.to_string() })
    }
}
