//! `apply`: the only writer of the state, a function of (state, log index, command).
//!
//! It re-checks everything the proposer relied on: proposals are made from an older view and may be
//! stale. A refused command changes nothing; a plan is checked step by step.

mod job;
mod managers;
mod plan;
mod rollout;
mod security;
mod service;

use std::sync::Arc;

use cluster_mutants::{Mutant, is, noise};

use crate::cluster::Cluster;
use crate::command::{Command, Refusal, Reply, StatusReport};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::node::{Node, NodeDescription, NodeSpec, NodeState};
use crate::seldom::Seldom;
use crate::spec::Strategy;
use crate::state::State;
use crate::task::{Desired, Details, Observed, Task, TaskStatus};
use crate::validate;

pub use job::SCHEDULED_NAME_MAX;

/// What became of a command. What it changed is found by comparing views, see `State::changes`.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub reply: Result<Reply, Refusal>,
}

/// One command being applied: the state, and the index that stamps what changes.
struct Step<'a> {
    state: &'a mut State,
    index: u64,
}

/// Applies one entry of the log.
pub fn apply(state: &mut State, index: u64, command: &Command) -> Outcome {
    Outcome { reply: Step { state, index }.command(command) }
}

impl Step<'_> {
    fn command(&mut self, command: &Command) -> Result<Reply, Refusal> {
        match command {
            Command::Bootstrap(cluster) => self.bootstrap(cluster),
            Command::CreateService { id, spec, at_ms } => self.create_service(*id, spec, *at_ms),
            Command::UpdateService { id, version, spec, at_ms, give_up } => {
                self.update_service(*id, *version, spec, *at_ms, give_up)
            }
            Command::RemoveService { id, version, .. } => self.remove_service(*id, *version),
            Command::RollBackService { id, version, to, at_ms } => {
                self.roll_back_service(*id, *version, *to, *at_ms)
            }
            Command::SteerRollout { id, steer, at_ms } => self.steer_rollout(*id, *steer, *at_ms),
            Command::UpdateCluster { version, strategy } => {
                self.update_cluster(*version, *strategy)
            }
            Command::RegisterNode { id, name, at_ms } => self.register_node(*id, name, *at_ms),
            Command::NodeReady { id, description, at_ms } => {
                self.node_ready(*id, description, *at_ms)
            }
            Command::UpdateNode { id, version, spec, .. } => self.update_node(*id, *version, spec),
            Command::RemoveNode { id, force, at_ms } => self.remove_node(*id, *force, *at_ms),
            Command::PutManager { id, manager } => {
                self.readmit(*id);
                self.edit_cluster(|cluster| {
                    cluster.managers.insert(*id, manager.clone());
                })
            }
            Command::RemoveManager { id } => {
                let known = self.state.cluster().is_some_and(|c| c.managers.contains_key(id));
                if known {
                    self.revoke(*id);
                }
                self.edit_cluster(|cluster| {
                    cluster.managers.remove(id);
                })
            }
            Command::SetWorkerToken(token) => {
                self.edit_cluster(|cluster| cluster.worker_token = token.clone())
            }
            Command::SetManagerToken(token) => {
                self.edit_cluster(|cluster| cluster.manager_token = token.clone())
            }
            Command::Plan { at_ms, changes } => Ok(self.plan(*at_ms, changes)),
            Command::RecordStatus { reports } => Ok(self.record_status(reports)),
            Command::UpdateUpkeep { version, upkeep } => self.update_upkeep(*version, *upkeep),
            Command::Recover { version, id, manager } => self.recover(*version, *id, manager),
            Command::Secure(secure) => self.secure(secure),
        }
    }

    fn bootstrap(&mut self, cluster: &Cluster) -> Result<Reply, Refusal> {
        if self.state.cluster().is_some() {
            return Err(Refusal::AlreadyBootstrapped);
        }
        let mut cluster = cluster.clone();
        cluster.version = self.index;
        self.state.tables.cluster = Some(Arc::new(cluster));
        Ok(Reply::Done)
    }

    fn edit_cluster(&mut self, edit: impl FnOnce(&mut Cluster)) -> Result<Reply, Refusal> {
        let cluster = self.state.tables.cluster.as_mut().ok_or(Refusal::NotBootstrapped)?;
        let cluster = Arc::make_mut(cluster);
        edit(cluster);
        cluster.version = self.index;
        Ok(Reply::Done)
    }

    fn update_cluster(&mut self, version: u64, strategy: Strategy) -> Result<Reply, Refusal> {
        self.same_cluster(version)?;
        self.edit_cluster(|cluster| cluster.strategy = strategy)
    }

    fn register_node(&mut self, id: NodeId, name: &str, at_ms: u64) -> Result<Reply, Refusal> {
        validate::name("name", name).map_err(Refusal::Invalid)?;
        if self.state.node(id).is_some() {
            return Err(Refusal::IdTaken(id.to_string()));
        }
        if self.state.node_named(name).is_some() {
            return Err(Refusal::NameTaken { kind: "node".into(), name: name.to_owned() });
        }
        self.write_node(Node {
            id,
            version: 0,
            created_at_ms: at_ms,
            name: name.to_owned(),
            spec: NodeSpec::default(),
            description: NodeDescription::default(),
            state: NodeState::Unknown,
            message: "joined, not yet heard from".into(),
            state_since_ms: at_ms,
            last_down_ms: 0,
            down_index: 0,
        });
        Ok(Reply::Node { id, version: self.index })
    }

    fn node_ready(
        &mut self,
        id: NodeId,
        description: &NodeDescription,
        at_ms: u64,
    ) -> Result<Reply, Refusal> {
        let mut node = self.existing_node(id)?.clone();
        // A hello of an earlier start of the worker came late.
        if description.boot < node.description.boot {
            return Ok(Reply::Node { id, version: node.version });
        }
        // Tasks of a node that is not ready are no endpoints.
        let moved = node.state != NodeState::Ready
            || (&node.description.address, node.description.mesh_port)
                != (&description.address, description.mesh_port);
        let stays_down = node.state == NodeState::Down && is(Mutant::NodeStaysDown);
        if node.state != NodeState::Ready && !stays_down {
            node.state = NodeState::Ready;
            node.state_since_ms = at_ms;
            node.message = "".into();
        }
        node.description = description.clone();
        self.write_node(node);
        if moved && self.is_backend(id) {
            self.state.tables.endpoints_version = self.index;
        }
        Ok(Reply::Node { id, version: self.index })
    }

    fn update_node(&mut self, id: NodeId, version: u64, spec: &NodeSpec) -> Result<Reply, Refusal> {
        let mut node = self.existing_node(id)?.clone();
        if node.version != version {
            return Err(Refusal::VersionMoved {
                kind: "node".into(),
                read: version,
                current: node.version,
            });
        }
        validate::labels("labels", spec.labels.iter()).map_err(Refusal::Invalid)?;
        node.spec = spec.clone();
        self.write_node(node);
        Ok(Reply::Node { id, version: self.index })
    }

    fn remove_node(&mut self, id: NodeId, force: bool, at_ms: u64) -> Result<Reply, Refusal> {
        let node = self.existing_node(id)?;
        if node.state == NodeState::Ready && !force {
            return Err(Refusal::NodeReady { name: node.name.clone() });
        }
        let tasks: Vec<TaskId> = self.state.tasks_of_node(id).map(|task| task.id).collect();
        for task in tasks {
            self.lose_task(task, at_ms, "node removed");
        }
        self.state.remove_node(id);
        self.revoke(id);
        Ok(Reply::Done)
    }

    fn existing_node(&self, id: NodeId) -> Result<&Node, Refusal> {
        let missing = || Refusal::NotFound { kind: "node".into(), id: id.to_string() };
        self.state.node(id).ok_or_else(missing)
    }

    fn write_node(&mut self, mut node: Node) {
        node.version = self.index;
        self.state.put_node(Arc::new(node));
    }

    /// Writes a task and everything that follows from the write: the endpoints' version, the
    /// withdrawal stamp, the end of tasks nobody wants to remember.
    fn write_task(&mut self, mut task: Task) {
        let served = self.state.task(task.id).is_some_and(Task::serves);
        task.version = self.index;
        if served != task.serves() && self.publishes(task.service) {
            self.state.tables.endpoints_version = self.index;
            if served && !task.status.state.is_terminal() {
                task.withdrawn = self.index;
            }
        }
        let (id, service) = (task.id, task.service);
        let over = task.desired == Desired::Remove
            && (task.status.state.is_terminal() || task.node.is_none());
        self.state.put_task(Arc::new(task));
        if over {
            self.forget_task(id, service);
        }
    }

    fn forget_task(&mut self, id: TaskId, service: ServiceId) {
        self.state.remove_task(id);
        let removed = self.state.service(service).is_some_and(|service| service.removed);
        if removed && self.state.tasks_of_service(service).next().is_none() {
            self.state.remove_service(service);
        }
    }

    /// A task of the node is an endpoint, or is one as soon as the node is heard. Workers are told of
    /// endpoints that changed, all of them: nodes that come and go without any must cost nothing.
    fn is_backend(&self, node: NodeId) -> bool {
        self.state.tasks_of_node_in(node, |service| self.publishes(service)).any(Task::serves)
    }

    fn publishes(&self, service: ServiceId) -> bool {
        self.state.service(service).is_some_and(|service| !service.ports.is_empty())
    }

    fn lose_task(&mut self, id: TaskId, at_ms: u64, why: &str) {
        let Some(task) = self.state.task(id) else { return };
        if task.status.state.is_terminal() {
            return;
        }
        let mut task = task.clone();
        task.status = TaskStatus {
            started_at_ms: task.status.started_at_ms,
            details: Seldom::new(Details { error: Some(why.into()), ..Details::default() }),
            ..TaskStatus::new(Observed::Lost, at_ms)
        };
        self.write_task(task);
    }

    fn record_status(&mut self, reports: &[(NodeId, StatusReport)]) -> Reply {
        let mut taken = 0;
        for (node, report) in reports {
            let Some(task) = self.state.task(report.task) else { continue };
            if task.node != Some(*node) {
                continue;
            }
            let state = task.status.state;
            // A running task may change whether connections come to it, and any task that has not
            // ended what it says of its state.
            let news = state == report.state
                && !state.is_terminal()
                && report.readiness > task.status.readiness;
            if news {
                let mut task = task.clone();
                task.status.ready = report.ready && state == Observed::Running;
                task.status.readiness = report.readiness;
                task.status.details.edit(|details| details.message = report.message.clone());
                self.write_task(task);
                taken += 1;
                continue;
            }
            if !state.can_advance_to(report.state) && !is(Mutant::StatusGoesBack) {
                continue;
            }
            let mut task = task.clone();
            let started_at_ms = match report.state {
                Observed::Running => report.at_ms,
                _ => task.status.started_at_ms,
            };
            let noise = if is(Mutant::ImpureApply) { noise() } else { 0 };
            task.status = TaskStatus {
                state: report.state,
                at_ms: report.at_ms + noise,
                oom: report.oom,
                started_at_ms,
                ready: report.ready && report.state == Observed::Running,
                readiness: report.readiness,
                details: Seldom::new(Details {
                    message: report.message.clone(),
                    error: report.error.clone(),
                    exit_code: report.exit_code,
                }),
            };
            self.write_task(task);
            taken += 1;
        }
        Reply::Counted { taken, refused: count(reports.len()).saturating_sub(taken) }
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
