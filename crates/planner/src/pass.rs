//! One pass: the stages over the services in scope, then the scheduler, on a speculative copy of
//! the state, again for what changed until nothing does.
//!
//! A pass is bounded in all it does. Each service gets a share of a round's room, so that a large
//! one cannot starve the others.

use std::collections::BTreeSet;

use cluster_model::command::WRITTEN_BY_THIS_PLAN;
use cluster_model::{Change, Command, Reply, ServiceId, State};

use crate::slots::{Slots, Steps, View};
use crate::{
    Ids, Note, Plan, Scope, drain, earlier, lost, reaper, replicated, restart, rollout, schedule,
};

/// Slots worked on in one pass.
const SLOTS_MAX: usize = 10_000;
/// Slots of one service worked on by one stage of one round.
const SLOTS_OF_SERVICE_MAX: usize = 2_500;
/// Tasks placed or explained in one pass.
const PLACEMENTS_MAX: usize = 10_000;
/// Rounds until a pass gives the rest to the next one.
const ROUNDS_MAX: usize = 24;
/// Stamps speculative writes, so that a rollout written twice in a pass is known as such.
const SPECULATIVE_INDEX: u64 = WRITTEN_BY_THIS_PLAN;

type StageFn = fn(&View<'_>, &mut Steps);

/// In this order: what is given up for lost; which slots there are; which revision they run, so that a
/// slot that failed during an update is not first restarted with the old one; restarts; moves;
/// history.
const STAGES: [StageFn; 8] = [
    lost::plan,
    replicated::plan,
    rollout::pairs,
    rollout::judge,
    rollout::advance,
    restart::plan,
    drain::plan,
    reaper::plan,
];

/// Plans for the services in scope and for every task that waits for a node.
///
/// *Guarantees*: a plan applied to the view it was made from is taken whole, and a second pass at
/// the same time then finds nothing unless the first was bounded (`wake_at_ms` is then `now_ms`).
/// *Assumes*: a full pass after every change of a node, at start, and at `wake_at_ms`.
pub fn plan(view: &State, scope: Scope<'_>, now_ms: u64, ids: &mut Ids) -> Plan {
    let mut services: Vec<ServiceId> = match scope {
        Scope::All => view.services().map(|service| service.id).collect(),
        Scope::Services(ids) => ids.iter().copied().collect(),
    };
    let mut pass = Pass::new(view, now_ms);
    for _ in 0..ROUNDS_MAX {
        pass.bounded = false;
        for service in services {
            pass.reconcile(service, ids);
        }
        pass.schedule();
        services = std::mem::take(&mut pass.dirty).into_iter().collect();
        if services.is_empty() || pass.slots_left == 0 {
            break;
        }
    }
    // Without progress another pass would not come further either.
    let unfinished = pass.bounded || !services.is_empty();
    if unfinished && !pass.plan.changes.is_empty() {
        pass.plan.wake_at_ms = Some(now_ms);
        pass.plan.notes.push(Note::Bounded);
    }
    pass.plan
}

struct Pass {
    state: State,
    now_ms: u64,
    plan: Plan,
    /// Services that changed in this round.
    dirty: BTreeSet<ServiceId>,
    slots_left: usize,
    placements_left: usize,
    /// The last round left something undone.
    bounded: bool,
}

impl Pass {
    fn new(view: &State, now_ms: u64) -> Self {
        Self {
            state: view.clone(),
            now_ms,
            plan: Plan::default(),
            dirty: BTreeSet::new(),
            slots_left: SLOTS_MAX,
            placements_left: PLACEMENTS_MAX,
            bounded: false,
        }
    }

    /// Runs the stages over one service. Its slots are surveyed again only after a stage that
    /// changed something, so a service at rest is read once.
    fn reconcile(&mut self, id: ServiceId, ids: &mut Ids) {
        let mut stages = STAGES.iter();
        loop {
            let state = self.state.clone();
            let Some(service) = state.service(id).filter(|service| !service.removed) else {
                return;
            };
            let slots = Slots::of(&state, id);
            let view = View { state: &state, service, slots: &slots, now_ms: self.now_ms };
            loop {
                let Some(stage) = stages.next() else { return };
                if self.run(*stage, &view, ids) {
                    break;
                }
            }
        }
    }

    /// Answers whether the stage changed anything.
    fn run(&mut self, stage: StageFn, view: &View<'_>, ids: &mut Ids) -> bool {
        let room = self.slots_left.min(SLOTS_OF_SERVICE_MAX);
        let mut steps = Steps::within(room);
        stage(view, &mut steps);
        let done = steps.finish(room, view.service.id, ids);
        self.slots_left -= done.slots;
        self.bounded |= done.bounded;
        self.plan.wake_at_ms = earlier(self.plan.wake_at_ms, done.wake_at_ms);
        for note in done.notes {
            if !self.plan.notes.contains(&note) {
                self.plan.notes.push(note);
            }
        }
        if done.changes.is_empty() {
            return false;
        }
        self.dirty.insert(view.service.id);
        self.take(done.changes);
        true
    }

    fn schedule(&mut self) {
        let state = self.state.clone();
        let placed = schedule::plan(&state, self.now_ms, self.placements_left);
        self.placements_left -= placed.changes.len();
        self.bounded |= placed.bounded;
        self.plan.notes.retain(|note| !matches!(note, Note::Unplaced { .. }));
        self.plan.notes.extend(placed.notes);
        for change in &placed.changes {
            if let Change::Assign { task, .. } | Change::Explain { task, .. } = change {
                self.dirty.extend(state.task(*task).map(|task| task.service));
            }
        }
        self.take(placed.changes);
    }

    fn take(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let command = Command::Plan { at_ms: self.now_ms, changes };
        let outcome = cluster_model::apply(&mut self.state, SPECULATIVE_INDEX, &command);
        if let Ok(Reply::Counted { refused: count @ 1.., .. }) = outcome.reply {
            self.plan.notes.push(Note::Refused { count });
        }
        if let Command::Plan { changes, .. } = command {
            self.plan.changes.extend(changes);
        }
    }
}
