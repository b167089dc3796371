//! What this node should run, and what the managers may say about it.
//!
//! *Flow*: each session has one [`Intake`]; every `Assignments` message goes through
//! [`Intake::accept`], which gives the next [`Table`] or refuses. The caller writes the table down
//! ([`store`]) before anybody acts on it.
//!
//! *Guarantees*: stamps only grow; a full set takes effect when all of its parts are here; a lost
//! message is noticed. Pure but for [`store`].

pub mod store;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use cluster_model::{Desired, ServiceId, TaskId, TaskSpec};
use cluster_mutants::{Mutant, is};
use cluster_pb::dispatcher::v1 as pb;
use cluster_wire::DecodeError;
use cluster_wire::dispatch::desired_from_str;
use cluster_wire::spec::task_spec_from_pb;
use serde::{Deserialize, Serialize};

/// Tasks one node may be given.
const TASKS_MAX: usize = 100_000;

/// Where in history a message was computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    pub term: u64,
    pub version: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {} version {}", self.term, self.version)
    }
}

/// One task this node is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub task: TaskId,
    pub service: ServiceId,
    pub service_name: String,
    pub slot: u32,
    pub revision: u32,
    pub desired: Desired,
    /// Endpoints version that all workers must follow before the stop signal; 0: never served.
    pub withdrawn: u64,
    pub target_ports: Vec<u16>,
    /// Named generic resources that the task holds, by kind.
    pub generic: Vec<(String, Vec<String>)>,
    /// The task is ended here after so long without being heard by a manager; 0: never.
    pub stop_after_ms: u64,
    /// Shared by the tasks of a revision; written down once (see [`store`]).
    pub spec: Arc<TaskSpec>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub stamp: Stamp,
    pub tasks: BTreeMap<TaskId, Arc<Assignment>>,
}

/// Why a message was not taken. The session ends, and the next one starts with a full set.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the manager's assignments are of {offered}, older than {held} that this node holds")]
    Stale { offered: Stamp, held: Stamp },
    #[error("assignment message {expected} was lost: got number {got}")]
    Gap { expected: u64, got: u64 },
    #[error("changes to assignments came before a full set")]
    NotFull,
    #[error("task {task} came without a spec that this node knows")]
    NoSpec { task: TaskId },
    #[error("more than {TASKS_MAX} tasks were assigned to this node")]
    TooMany,
    #[error("an assignment cannot be understood: field `{field}`: {problem}")]
    Malformed { field: &'static str, problem: String },
    #[error("the assignment of task {task} cannot be understood")]
    Decode {
        task: String,
        #[source]
        source: DecodeError,
    },
}

/// The assignment side of one session.
#[derive(Debug, Default)]
pub struct Intake {
    sequence: u64,
    /// A full set has been taken in this session.
    based: bool,
    /// Parts of a set whose last part has not come yet.
    partial: Option<Table>,
    /// Specs of this session by service and revision.
    specs: HashMap<(ServiceId, u32), Arc<TaskSpec>>,
}

impl Intake {
    /// Takes one message. `None` means that more parts follow.
    pub fn accept(
        &mut self,
        held: &Table,
        message: pb::Assignments,
    ) -> Result<Option<Table>, Refused> {
        let stamp = Stamp { term: message.term, version: message.version };
        if stamp < held.stamp && !is(Mutant::ForgottenFence) {
            return Err(Refused::Stale { offered: stamp, held: held.stamp });
        }
        let expected = self.sequence + 1;
        if message.sequence != expected {
            return Err(Refused::Gap { expected, got: message.sequence });
        }
        self.sequence = expected;
        let mut next = match self.partial.take() {
            Some(partial) => partial,
            None if message.full => Table::default(),
            None if self.based => held.clone(),
            None => return Err(Refused::NotFull),
        };
        next.stamp = stamp;
        for assignment in message.tasks {
            let assignment = self.assignment(held, &next, assignment)?;
            next.tasks.insert(assignment.task, Arc::new(assignment));
        }
        for removed in &message.removed {
            let task = removed.parse().map_err(|error| malformed("removed", &error))?;
            next.tasks.remove(&task);
        }
        if next.tasks.len() > TASKS_MAX {
            return Err(Refused::TooMany);
        }
        if message.more {
            self.partial = Some(next);
            return Ok(None);
        }
        self.based = true;
        self.forget_unused_specs(&next);
        Ok(Some(next))
    }

    fn assignment(
        &mut self,
        held: &Table,
        next: &Table,
        message: pb::Assignment,
    ) -> Result<Assignment, Refused> {
        let task: TaskId = message.task_id.parse().map_err(|error| malformed("task_id", &error))?;
        let service: ServiceId =
            message.service_id.parse().map_err(|error| malformed("service_id", &error))?;
        let decode = |source| Refused::Decode { task: task.to_string(), source };
        let known = next.tasks.get(&task).or_else(|| held.tasks.get(&task));
        let key = (service, message.revision);
        let spec = match message.spec {
            // Tasks of one revision share one spec in memory.
            Some(spec) => {
                let spec = task_spec_from_pb(spec).map_err(decode)?;
                match self.specs.get(&key) {
                    Some(same) if **same == spec => same.clone(),
                    _ => Arc::new(spec),
                }
            }
            None => known
                .map(|known| known.spec.clone())
                .or_else(|| self.specs.get(&key).cloned())
                .ok_or(Refused::NoSpec { task })?,
        };
        self.specs.insert(key, spec.clone());
        let desired = desired_from_str(&message.desired_state).map_err(decode)?;
        let target_ports = message
            .target_ports
            .iter()
            .map(|port| u16::try_from(*port).map_err(|error| malformed("target_ports", &error)));
        Ok(Assignment {
            task,
            service,
            service_name: message.service_name,
            slot: message.slot,
            revision: message.revision,
            desired: known.map_or(desired, |known| known.desired.max(desired)),
            withdrawn: message.withdrawn,
            target_ports: target_ports.collect::<Result<_, _>>()?,
            generic: message.generic.into_iter().map(|hold| (hold.kind, hold.names)).collect(),
            stop_after_ms: message.stop_after_ms,
            spec,
        })
    }

    fn forget_unused_specs(&mut self, table: &Table) {
        if self.specs.len() > 64.max(2 * table.tasks.len()) {
            let used: std::collections::HashSet<_> =
                table.tasks.values().map(|task| (task.service, task.revision)).collect();
            self.specs.retain(|key, _| used.contains(key));
        }
    }
}

fn malformed(field: &'static str, problem: &dyn fmt::Display) -> Refused {
    Refused::Malformed { field, problem: problem.to_string() }
}

#[cfg(test)]
mod tests;
