//! A service's tasks seen as slots, and the steps a stage wants taken.
//!
//! A slot is filled by its *holder*. During an update a *newcomer* may fill it beside the holder; when
//! the holder goes, the newcomer is the holder. A slot's *lead* is its holder, or else the task that
//! ended last and was not dealt with yet. Everything else in a slot is being stopped, or history.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_model::service::{RolloutKind, RolloutState};
use cluster_model::{
    Change, Desired, NewTask, Node, Observed, Reason, Rollout, Service, ServiceId, State, Task,
    TaskId,
};

use crate::storm::Storms;
use crate::{Ids, Note, earlier};

/// What a stage looks at.
pub(crate) struct View<'a> {
    pub state: &'a State,
    pub service: &'a Service,
    pub slots: &'a Slots<'a>,
    pub storms: &'a Storms,
    pub now_ms: u64,
    /// When the leader that looks began to lead.
    pub leads_since_ms: u64,
}

impl<'a> View<'a> {
    pub fn is_outdated(&self, task: &Task) -> bool {
        self.state.is_outdated(self.service, task)
    }

    /// The revision of slots that have none yet: the one before, while the new one is not to be
    /// spread further.
    pub fn fresh_revision(&self) -> u32 {
        let service = self.service;
        let update = service.rollout.as_ref().filter(|r| r.kind == RolloutKind::Update);
        let held_back = update.filter(|rollout| match rollout.state {
            RolloutState::Running => service.canaries() > 0,
            RolloutState::AwaitingPromotion | RolloutState::PausedByUser | RolloutState::Paused => {
                true
            }
            RolloutState::Completed => false,
        });
        held_back
            .map(|rollout| rollout.from)
            .filter(|from| service.revisions.contains_key(from))
            .unwrap_or(service.revision)
    }

    /// The slot is filled, about to be filled again, spent under what it would be filled with, or
    /// done.
    pub fn occupied(&self, slot: &Slot<'_>) -> bool {
        slot.lead().is_some()
            || slot.completed(self.service.revision).is_some()
            || slot.exhausted().is_some_and(|last| {
                last.revision == self.service.revision || last.revision == self.fresh_revision()
            })
    }

    /// The node of a task, if it is known to be down.
    pub fn silent_node(&self, task: &Task) -> Option<&'a Node> {
        task.node.filter(|node| self.state.is_down(*node)).and_then(|node| self.state.node(node))
    }

    /// As [`up`], and its node is heard. What runs on a silent node fills its slot but is no help.
    pub fn up(&self, task: &Task) -> bool {
        up(task) && self.silent_node(task).is_none()
    }

    /// As [`Task::serves`], and its node is heard.
    pub fn serves(&self, task: &Task) -> bool {
        task.serves() && self.silent_node(task).is_none()
    }

    /// Of jobs: the task that is a slot's completion in the present run.
    pub fn done(&self, slot: &Slot<'a>) -> Option<&'a Task> {
        let revision = self.service.revision;
        slot.tasks()
            .filter(|_| self.service.spec.mode.is_job())
            .find(|task| task.status.state == Observed::Complete && task.revision == revision)
    }
}

/// The tasks of one service, ordered by slot.
pub(crate) struct Slots<'a> {
    tasks: Vec<&'a Task>,
}

impl<'a> Slots<'a> {
    pub fn of(state: &'a State, service: ServiceId) -> Self {
        Self { tasks: state.tasks_of_service(service).collect() }
    }

    pub fn iter(&self) -> impl Iterator<Item = Slot<'_>> {
        self.tasks.chunk_by(|a, b| a.slot == b.slot).map(|tasks| Slot { tasks })
    }
}

/// All known tasks of one slot; never empty.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a> {
    tasks: &'a [&'a Task],
}

impl<'a> Slot<'a> {
    pub fn number(&self) -> u32 {
        self.tasks.first().map_or(0, |task| task.slot)
    }

    pub fn tasks(&self) -> impl Iterator<Item = &'a Task> + use<'a> {
        self.tasks.iter().copied()
    }

    /// The task that fills the slot; of two, the one that was there first.
    pub fn holder(&self) -> Option<&'a Task> {
        self.fillers().find(|task| !self.fills(task.extras.beside))
    }

    /// The task that fills the slot beside its holder.
    pub fn newcomer(&self) -> Option<&'a Task> {
        self.fillers().find(|task| self.fills(task.extras.beside))
    }

    fn fillers(&self) -> impl Iterator<Item = &'a Task> + use<'a> {
        self.tasks().filter(|task| task.fills_slot())
    }

    fn fills(&self, id: Option<TaskId>) -> bool {
        id.is_some_and(|id| self.fillers().any(|task| task.id == id))
    }

    /// Tasks that ended although they were wanted.
    pub fn ended(&self) -> impl Iterator<Item = &'a Task> + use<'a> {
        self.tasks().filter(|task| task.is_wanted() && task.status.state.is_terminal())
    }

    /// A newcomer that ended and that nothing followed yet.
    pub fn ended_newcomer(&self) -> Option<&'a Task> {
        let holder = self.holder()?.id;
        let newcomers = self.ended().filter(|task| task.extras.beside == Some(holder));
        newcomers.max_by_key(|task| age(task)).filter(|_| self.newcomer().is_none())
    }

    /// When both of two ended, the slot is what the first of them made it.
    pub fn lead(&self) -> Option<&'a Task> {
        self.holder().or_else(|| {
            let beside_ended =
                |task: &Task| self.ended().any(|other| task.extras.beside == Some(other.id));
            self.ended().filter(|task| !beside_ended(task)).max_by_key(|task| age(task))
        })
    }

    /// The last attempt in this slot after which its policy allowed no other.
    pub fn exhausted(&self) -> Option<&'a Task> {
        self.tasks().filter(|task| task.reason == Reason::Exhausted).max_by_key(|task| age(task))
    }

    /// The job's task that did what the slot is there for.
    pub fn completed(&self, revision: u32) -> Option<&'a Task> {
        self.tasks().find(|task| task.reason == Reason::Completed && task.revision == revision)
    }

    /// A task may be running that must not while this one does.
    pub fn others_alive(&self, than: &Task) -> bool {
        let barred = |task: &Task| task.id != than.id && !task.is_beside(than);
        self.tasks().any(|task| barred(task) && task.holds_resources())
    }

    /// A task other than this one may be running.
    pub fn any_alive(&self, except: Option<TaskId>) -> bool {
        self.tasks().any(|task| Some(task.id) != except && task.holds_resources())
    }

    pub fn newest(&self) -> Option<&'a Task> {
        self.tasks().max_by_key(|task| age(task))
    }
}

/// Orders the tasks of a slot from old to new. Times of different leaders may disagree, so the
/// log index of the last change settles ties.
pub(crate) fn age(task: &Task) -> (u64, u64, u64) {
    (task.created_at_ms, task.version, task.id.0)
}

/// The task does what its slot is there for.
pub(crate) fn up(task: &Task) -> bool {
    task.desired == Desired::Running && task.status.state == Observed::Running
}

/// What a stage wants done, within its bound.
pub(crate) struct Steps {
    room: usize,
    bounded: bool,
    changes: Vec<Change>,
    creations: BTreeMap<u32, Vec<NewTask>>,
    launches: Vec<u64>,
    wake_at_ms: Option<u64>,
    notes: Vec<Note>,
    minds_others: bool,
}

/// A stage's steps once it is done.
pub(crate) struct Stage {
    pub changes: Vec<Change>,
    pub slots: usize,
    pub bounded: bool,
    pub wake_at_ms: Option<u64>,
    pub notes: Vec<Note>,
    /// See [`Steps::mind_others`].
    pub minds_others: bool,
}

impl Steps {
    pub fn within(room: usize) -> Self {
        Self {
            room,
            bounded: false,
            changes: Vec::new(),
            creations: BTreeMap::new(),
            launches: Vec::new(),
            wake_at_ms: None,
            notes: Vec::new(),
            minds_others: false,
        }
    }

    /// Takes room for the work on one slot; false when there is none left, which the pass then
    /// comes back to.
    pub fn take_room(&mut self) -> bool {
        if self.room == 0 {
            self.bounded = true;
            return false;
        }
        self.room -= 1;
        true
    }

    pub fn set(&mut self, task: &Task, desired: Desired, reason: Reason) {
        self.changes.push(Change::SetDesired { task: task.id, desired, reason });
    }

    pub fn create(&mut self, revision: u32, task: NewTask) {
        self.creations.entry(revision).or_default().push(task);
    }

    /// A step that is not about one task.
    pub fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Launches a job of this scheduled service.
    pub fn launch(&mut self, scheduled_at_ms: u64) {
        self.launches.push(scheduled_at_ms);
    }

    pub fn lose(&mut self, task: &Task) {
        self.changes.push(Change::Lose { task: task.id });
    }

    /// Proposes what is to become of the rollout; what was read must still be so.
    pub fn set_rollout(&mut self, view: &View<'_>, rollout: Rollout) {
        let Some(read) = &view.service.rollout else { return };
        self.changes.push(Change::SetRollout {
            service: view.service.id,
            version: read.version,
            rollout: Box::new(rollout),
        });
    }

    pub fn roll_back(&mut self, view: &View<'_>, message: Arc<str>) {
        let Some(read) = &view.service.rollout else { return };
        let (service, version) = (view.service.id, read.version);
        self.changes.push(Change::RollBack { service, version, message });
    }

    pub fn delete(&mut self, task: &Task) {
        self.changes.push(Change::Delete { task: task.id });
    }

    pub fn wake_at(&mut self, at_ms: u64) {
        self.wake_at_ms = earlier(self.wake_at_ms, Some(at_ms));
    }

    pub fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// What was decided may be otherwise once other services have moved: they take room on nodes and
    /// leave it.
    pub fn mind_others(&mut self) {
        self.minds_others = true;
    }

    /// Old tasks are let go before new ones are made: a slot takes one at a time, or two of which
    /// one is there first.
    pub fn finish(self, room: usize, service: ServiceId, ids: &mut Ids) -> Stage {
        let mut changes = self.changes;
        for (revision, tasks) in self.creations {
            let base = ids.next_base(tasks.len() as u64);
            changes.push(Change::CreateTasks { service, revision, base, tasks });
        }
        for scheduled_at_ms in self.launches {
            let child = ServiceId(ids.next_base(1).0);
            changes.push(Change::Launch { parent: service, child, scheduled_at_ms });
        }
        Stage {
            changes,
            slots: room - self.room,
            bounded: self.bounded,
            wake_at_ms: self.wake_at_ms,
            notes: self.notes,
            minds_others: self.minds_others,
        }
    }
}
