//! Plans: each step is checked against the state as it is now and refused when stale.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_mutants::{Mutant, is};

use super::{Step, count};
use crate::command::{Change, NewTask, Reply};
use crate::fit::{Seeker, fits};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::node::NodeState;
use crate::seldom::Seldom;
use crate::task::{Desired, Extras, Observed, Reason, Task, TaskStatus};

impl Step<'_> {
    pub(super) fn plan(&mut self, at_ms: u64, changes: &[Change]) -> Reply {
        let mut taken = 0;
        let mut refused = 0;
        for change in changes {
            let (good, all) = self.change(at_ms, change);
            taken += good;
            refused += all - good;
        }
        Reply::Counted { taken, refused }
    }

    /// Answers how many of how many steps were taken.
    fn change(&mut self, at_ms: u64, change: &Change) -> (u32, u32) {
        let one = |done: bool| (u32::from(done), 1);
        match change {
            Change::CreateTasks { service, revision, base, tasks } => {
                (self.create_tasks(at_ms, *service, *revision, *base, tasks), count(tasks.len()))
            }
            Change::Assign { task, node } => one(self.assign(at_ms, *task, *node)),
            Change::SetDesired { task, desired, reason } => {
                one(self.set_desired(*task, *desired, reason))
            }
            Change::Explain { task, message } => one(self.explain(*task, message)),
            Change::Delete { task } => one(self.delete(*task)),
            Change::NodeDown { node, version, message } => {
                one(self.node_down(at_ms, *node, *version, message))
            }
            Change::Lose { task } => one(self.lose(at_ms, *task)),
            Change::SetRollout { service, version, rollout } => {
                one(self.set_rollout(at_ms, *service, *version, rollout))
            }
            Change::RollBack { service, version, message } => {
                one(self.roll_back(at_ms, *service, *version, message))
            }
            Change::FinishJob { service, started_at_ms, outcome } => {
                one(self.finish_job(at_ms, *service, *started_at_ms, *outcome))
            }
            Change::Launch { parent, child, scheduled_at_ms } => {
                one(self.launch(at_ms, *parent, *child, *scheduled_at_ms))
            }
            Change::SkipLaunch { parent, scheduled_at_ms, message } => {
                one(self.skip_launch(at_ms, *parent, *scheduled_at_ms, message))
            }
            Change::RemoveJob { service, started_at_ms, finished_at_ms } => {
                one(self.remove_job_of(*service, *started_at_ms, *finished_at_ms))
            }
        }
    }

    fn create_tasks(
        &mut self,
        at_ms: u64,
        service: ServiceId,
        revision: u32,
        base: TaskId,
        tasks: &[NewTask],
    ) -> u32 {
        let known = self
            .state
            .service(service)
            .filter(|service| !service.removed && service.revisions.contains_key(&revision));
        let Some(known) = known else { return 0 };
        // Another leader's clock may have been ahead when the rollout was looked at first; what it
        // creates must not seem older than itself.
        let begun_ms = known
            .rollout
            .as_ref()
            .filter(|rollout| rollout.to == revision && !rollout.state.is_over())
            .map_or(0, |rollout| rollout.started_at_ms);
        let created_at_ms = at_ms.max(begun_ms);
        let mut job = self.job_room(known, revision);
        let mut owners = self.slot_owners(service, tasks);
        let owned = known.spec.mode.is_global();
        let mut top = self.state.top_slot(service);
        let mut taken = 0;
        for (ordinal, new) in (0u64..).zip(tasks) {
            let id = TaskId(base.0.wrapping_add(ordinal));
            let orphan = new.beside.is_some_and(|beside| {
                self.state.task(beside).is_none_or(|task| {
                    !task.fills_slot() || (task.service, task.slot) != (service, new.slot)
                })
            });
            let (mut filled, mut alive) = (false, false);
            // Beyond the highest slot there is nothing to look at.
            let known = (new.slot <= top).then(|| self.state.tasks_of_slot(service, new.slot));
            for task in known.into_iter().flatten() {
                filled |= task.fills_slot() && Some(task.id) != new.beside;
                alive |= new.desired == Desired::Running && bars(task, id, new.beside);
            }
            let waits = matches!(new.desired, Desired::Ready | Desired::Running);
            let double = (filled || alive) && !is(Mutant::DoublePlacement);
            if double || orphan || !waits || self.state.task(id).is_some() {
                continue;
            }
            // The plan may be for a service of another mode that had this id before.
            if new.target.is_some() != owned || owners.refuses(new) || job.refuses(new) {
                continue;
            }
            self.write_task(Task {
                id,
                service,
                slot: new.slot,
                revision,
                version: 0,
                created_at_ms,
                node: None,
                desired: new.desired,
                reason: new.reason.clone(),
                restarts: new.restarts,
                withdrawn: 0,
                status: TaskStatus::new(Observed::Pending, at_ms),
                extras: Seldom::new(Extras {
                    not_before_ms: new.not_before_ms,
                    target: new.target,
                    beside: new.beside,
                    generic: Vec::new(),
                }),
            });
            top = top.max(new.slot);
            taken += 1;
        }
        if taken > 0 {
            self.job_goes_on(service, at_ms);
        }
        taken
    }

    /// Whether a task of the slot may be running that must not while this one does.
    fn slot_alive(
        &self,
        service: ServiceId,
        slot: u32,
        id: TaskId,
        beside: Option<TaskId>,
    ) -> bool {
        self.state.tasks_of_slot(service, slot).any(|task| bars(task, id, beside))
    }

    /// The slots that belong to nodes.
    fn slot_owners(&self, service: ServiceId, tasks: &[NewTask]) -> SlotOwners {
        let mut owners = SlotOwners::default();
        if tasks.iter().any(|task| task.target.is_some()) {
            for task in self.state.tasks_of_service(service) {
                if let Some(target) = task.extras.target {
                    owners.slot_of.insert(target, task.slot);
                    owners.node_of.insert(task.slot, target);
                }
            }
        }
        owners
    }

    fn assign(&mut self, at_ms: u64, id: TaskId, node: NodeId) -> bool {
        let Some(task) = self.state.task(id) else { return false };
        let spec = self.state.service(task.service).and_then(|s| s.rules_of(task.revision));
        let (Some(spec), Some(target)) = (spec, self.state.node(node)) else { return false };
        if task.node.is_some() || !task.fills_slot() {
            return false;
        }
        let seeker = Seeker { service: task.service, spec, task };
        let Ok(generic) = fits(self.state, target, seeker) else { return false };
        let mut task = task.clone();
        task.node = Some(node);
        task.extras.edit(|extras| extras.generic = generic);
        task.status.state = Observed::Assigned;
        task.status.at_ms = at_ms;
        task.status.details.edit(|details| details.message = None);
        self.write_task(task);
        true
    }

    fn set_desired(&mut self, id: TaskId, desired: Desired, reason: &Reason) -> bool {
        let Some(task) = self.state.task(id) else { return false };
        if desired <= task.desired {
            return false;
        }
        if desired == Desired::Running
            && (self.slot_alive(task.service, task.slot, id, task.extras.beside)
                || self.slot_done(task))
        {
            return false;
        }
        let mut task = task.clone();
        if desired > Desired::Running {
            task.reason = reason.clone();
            // Nothing was ever started for it anywhere.
            if task.node.is_none() && !task.status.state.is_terminal() {
                task.status.state = Observed::Shutdown;
            }
        }
        task.desired = desired;
        self.write_task(task);
        true
    }

    fn explain(&mut self, id: TaskId, message: &Arc<str>) -> bool {
        let Some(task) = self.state.task(id) else { return false };
        let down = task
            .node
            .and_then(|node| self.state.node(node))
            .is_some_and(|node| node.state == NodeState::Down);
        if (task.node.is_some() && !down) || task.status.state.is_terminal() {
            return false;
        }
        let mut task = task.clone();
        // When the state was entered does not change with what is said of it.
        task.status.details.edit(|details| details.message = Some(message.clone()));
        self.write_task(task);
        true
    }

    fn delete(&mut self, id: TaskId) -> bool {
        let Some(task) = self.state.task(id) else { return false };
        if !task.status.state.is_terminal() || task.fills_slot() {
            return false;
        }
        let service = task.service;
        self.forget_task(id, service);
        true
    }

    fn node_down(&mut self, at_ms: u64, id: NodeId, version: u64, message: &Arc<str>) -> bool {
        let Some(node) = self.state.node(id) else { return false };
        if node.version != version || node.state == NodeState::Down {
            return false;
        }
        let mut node = node.clone();
        node.state = NodeState::Down;
        node.state_since_ms = at_ms;
        node.last_down_ms = at_ms;
        node.down_index = self.index;
        node.message = message.clone();
        self.write_node(node);
        // Its tasks are not endpoints any more; what else becomes of them the planner decides.
        if self.is_backend(id) {
            self.state.tables.endpoints_version = self.index;
        }
        true
    }

    fn lose(&mut self, at_ms: u64, id: TaskId) -> bool {
        let Some(task) = self.state.task(id) else { return false };
        let down = task
            .node
            .and_then(|node| self.state.node(node))
            .is_some_and(|node| node.state == NodeState::Down);
        if !down || task.status.state.is_terminal() {
            return false;
        }
        self.lose_task(id, at_ms, "node down");
        true
    }
}

/// The task may be running and must not while this other one of its slot does.
fn bars(task: &Task, id: TaskId, beside: Option<TaskId>) -> bool {
    let pair = task.extras.beside == Some(id) || beside == Some(task.id);
    task.id != id && !pair && task.holds_resources()
}

/// Of services with a slot for each node: which slot is whose.
#[derive(Default)]
struct SlotOwners {
    slot_of: BTreeMap<NodeId, u32>,
    node_of: BTreeMap<u32, NodeId>,
}

impl SlotOwners {
    /// Whether the task would give a node a second slot or a slot a second node; it owns the slot
    /// otherwise.
    fn refuses(&mut self, new: &NewTask) -> bool {
        let Some(target) = new.target else { return false };
        *self.slot_of.entry(target).or_insert(new.slot) != new.slot
            || *self.node_of.entry(new.slot).or_insert(target) != target
    }
}
