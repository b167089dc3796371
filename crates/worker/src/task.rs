//! The tasks of this node: one supervisor for each, fed with whole tables of assignments.
//!
//! *Flow*: at start [`Tasks::adopt`] gives every container that is already here its supervisor;
//! each accepted table goes through [`Tasks::follow`]. A container that no assignment names is let
//! alone until the first full set of this process has come: until then nobody knows that it is
//! superfluous.
//!
//! Never here: what the managers want (they say), restarting anything, and how containers run.

pub mod container;
pub mod ending;
pub mod machine;
pub mod record;
pub mod supervisor;

use std::collections::HashMap;
use std::sync::Arc;

use cluster_daemon::{OnError, Scope};
use cluster_model::TaskId;
use cluster_mutants::{Mutant, is};
use cluster_runtime::{Observed, State};
use tokio::sync::watch;

use crate::assignments::{Assignment, Table};
use crate::node::{Attached, NetworkError, Node};
use crate::task::record::Record;
use crate::task::supervisor::{Found, Supervisor, Wanted};

/// The supervisors.
pub struct Tasks {
    node: Arc<Node>,
    scope: Scope,
    running: HashMap<TaskId, watch::Sender<Wanted>>,
    /// Containers found at start that the kept assignments do not name.
    orphans: HashMap<TaskId, Found>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("finding the containers of this node")]
    Recover(#[source] cluster_runtime::Error),
    #[error("finding the networks of this node's containers")]
    Network(#[source] NetworkError),
}

impl Tasks {
    /// Finds what runs and looks after it, before any manager is asked.
    pub async fn adopt(node: Arc<Node>, scope: Scope, table: &Table) -> Result<Self, Error> {
        let recover = node.parts.runtime.recover();
        let containers =
            node.health.watch("finding containers", recover).await.map_err(Error::Recover)?;
        let live = containers
            .iter()
            .filter(|container| !matches!(container.state, State::Exited(_)))
            .map(|container| container.id.as_str().to_owned())
            .collect();
        let attached = node.parts.network.recover(&live).await.map_err(Error::Network)?;
        let mut tasks = Self { node, scope, running: HashMap::new(), orphans: HashMap::new() };
        let mut found = tasks.found(containers, attached);
        if is(Mutant::ForgottenContainers) {
            found.clear();
        }
        tracing::info!(containers = found.len(), assigned = table.tasks.len(), "containers found");
        for assignment in table.tasks.values() {
            let found = found.remove(&assignment.task).unwrap_or_default();
            tasks.supervise(assignment.task, Wanted::Assigned(assignment.clone()), found).await;
        }
        tasks.orphans = found;
        Ok(tasks)
    }

    fn found(
        &self,
        containers: Vec<Observed>,
        mut attached: HashMap<String, Attached>,
    ) -> HashMap<TaskId, Found> {
        let mut found: HashMap<TaskId, Found> = HashMap::new();
        for container in containers {
            let Ok(task) = container.id.as_str().parse::<TaskId>() else {
                tracing::warn!(container = %container.id, "a container is no task's; it is let alone");
                continue;
            };
            let attached = attached.remove(container.id.as_str());
            found.insert(task, Found { container: Some(container), attached });
        }
        // A task whose container is gone may have left files.
        let kept = std::fs::read_dir(self.node.data.tasks()).into_iter().flatten().flatten();
        for entry in kept {
            if let Some(task) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                found.entry(task).or_default();
            }
        }
        found
    }

    /// Makes the supervisors want what the table says.
    pub async fn follow(&mut self, table: &Table) {
        for assignment in table.tasks.values() {
            self.assign(assignment).await;
        }
        for (task, found) in std::mem::take(&mut self.orphans) {
            tracing::info!(task_id = %task, "a container of an earlier assignment is removed");
            self.supervise(task, Wanted::Gone, found).await;
        }
        self.running.retain(|task, wanted| {
            if wanted.is_closed() {
                return false;
            }
            if !table.tasks.contains_key(task) && !is(Mutant::KeptOrphans) {
                wanted.send_if_modified(|wanted| {
                    !matches!(wanted, Wanted::Gone) && {
                        *wanted = Wanted::Gone;
                        true
                    }
                });
            }
            true
        });
    }

    async fn assign(&mut self, assignment: &Arc<Assignment>) {
        if let Some(wanted) = self.running.get(&assignment.task)
            && !wanted.is_closed()
        {
            wanted.send_if_modified(|wanted| match wanted {
                Wanted::Assigned(held) if held == assignment => false,
                Wanted::Assigned(held) => {
                    *held = assignment.clone();
                    true
                }
                // It was let go of; a task is never given twice.
                Wanted::Gone => false,
            });
            return;
        }
        let found = self.orphans.remove(&assignment.task).unwrap_or_default();
        self.supervise(assignment.task, Wanted::Assigned(assignment.clone()), found).await;
    }

    async fn supervise(&mut self, task: TaskId, wanted: Wanted, found: Found) {
        let path = self.node.data.task(task);
        let record = cluster_daemon::blocking(move || Record::load(&path)).await;
        let record = record.unwrap_or_default();
        let (sender, receiver) = watch::channel(wanted);
        let supervisor = Supervisor::new(self.node.clone(), task, receiver, found, record);
        self.running.insert(task, sender);
        self.scope.spawn("task", OnError::Log, supervisor.run());
    }

    /// Tasks that have not been forgotten.
    pub fn count(&self) -> usize {
        self.running.values().filter(|wanted| !wanted.is_closed()).count()
    }
}
