//! One pass: the stages over the services in scope, then the scheduler, on a speculative copy of
//! the state, again for what changed until nothing does.
//!
//! A pass is bounded in all it does. Each service gets a share of a round's room, so that a large
//! one cannot starve the others.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster_model::spec::Mode;
use cluster_model::{Change, Command, Reply, Service, ServiceId, State};

use crate::slots::{Slots, Steps, View};
use crate::storm::Storms;
use crate::{
    Ids, Note, Plan, Scope, cron, drain, earlier, global, job, lost, reaper, replicated, rest,
    restart, rollout, schedule,
};

/// Slots worked on in one pass.
const SLOTS_MAX: usize = 10_000;
/// Slots of one service worked on by one stage of one round.
const SLOTS_OF_SERVICE_MAX: usize = 2_500;
/// Tasks placed or explained in one pass.
const PLACEMENTS_MAX: usize = 10_000;
/// Replicas of a service for which it pays to look at all nodes first.
const LARGE: usize = 256;
/// Rounds until a pass gives the rest to the next one.
const ROUNDS_MAX: usize = 24;
type StageFn = fn(&View<'_>, &mut Steps);

/// In this order: what is given up for lost; which slots there are; which revision they run, so
/// that a slot that failed during an update is not first restarted with the old one; restarts;
/// moves; history.
const REPLICATED: &[StageFn] = &[
    lost::plan,
    replicated::plan,
    rollout::pairs,
    rollout::judge,
    rollout::advance,
    restart::plan,
    drain::plan,
    reaper::plan,
];
/// Slots of nodes do not move.
const GLOBAL: &[StageFn] = &[
    lost::plan,
    global::plan,
    rollout::pairs,
    rollout::judge,
    rollout::advance,
    restart::plan,
    reaper::plan,
];
/// What ended well is marked before anything could take it for a failure, and the run is judged
/// before more of it starts.
const REPLICATED_JOB: &[StageFn] =
    &[lost::plan, job::settle, job::conclude, job::start, restart::plan, drain::plan, reaper::plan];
const GLOBAL_JOB: &[StageFn] =
    &[lost::plan, job::settle, global::plan, job::conclude, restart::plan, reaper::plan];
const SCHEDULED: &[StageFn] = &[cron::plan];
const REMOVED: &[StageFn] = &[lost::give_up];

fn stages(service: &Service) -> &'static [StageFn] {
    if service.removed {
        return REMOVED;
    }
    if service.spec.job.schedule.is_some() {
        return SCHEDULED;
    }
    match service.spec.mode {
        Mode::Replicated { .. } => REPLICATED,
        Mode::Global => GLOBAL,
        Mode::ReplicatedJob { .. } => REPLICATED_JOB,
        Mode::GlobalJob => GLOBAL_JOB,
    }
}

/// When a pass is made, by the leader's clock.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub ms: u64,
    /// When this leader began to lead. What others wrote down before was by other clocks, so waits
    /// that must be long enough count from here at the earliest.
    pub leads_since_ms: u64,
}

impl From<u64> for Now {
    /// One leader for ever.
    fn from(ms: u64) -> Self {
        Self { ms, leads_since_ms: 0 }
    }
}

/// Plans for the services in scope and for every task that waits for a node.
///
/// *Guarantees*: a plan applied to the view it was made from is taken whole, and a second pass at
/// the same time then finds nothing unless the first was bounded (`wake_at_ms` is then `now_ms`).
/// *Assumes*: a full pass soon after every change of a node (what is on that node is in scope at
/// once), at start, and at `wake_at_ms`.
pub fn plan(view: &State, scope: Scope<'_>, now: impl Into<Now>, ids: &mut Ids) -> Plan {
    let now = now.into();
    let now_ms = now.ms;
    let mut services: Vec<ServiceId> = match scope {
        Scope::All => view.services().map(|service| service.id).collect(),
        Scope::Services(ids) => with_parents(view, ids).into_iter().collect(),
    };
    // Where a pass is bounded no service is always the last.
    let first = ids.next_base(1).0 as usize % services.len().max(1);
    services.rotate_left(first);
    let mut pass = Pass::new(view, now);
    for _ in 0..ROUNDS_MAX {
        pass.bounded = false;
        for service in services {
            pass.reconcile(service, ids);
        }
        pass.schedule(ids);
        let mut dirty = std::mem::take(&mut pass.dirty);
        if !dirty.is_empty() {
            dirty.append(&mut pass.minding);
        }
        services = with_parents(&pass.state, &dirty).into_iter().collect();
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

/// What becomes of a job is looked at by the scheduled service that launched it.
fn with_parents(state: &State, services: &BTreeSet<ServiceId>) -> BTreeSet<ServiceId> {
    let parents = services.iter().filter_map(|id| state.service(*id)?.parent);
    services.iter().copied().chain(parents).collect()
}

struct Pass {
    state: State,
    storms: Arc<Storms>,
    now_ms: u64,
    leads_since_ms: u64,
    plan: Plan,
    /// Whether all nodes are well; nodes do not change within a pass.
    calm: Option<bool>,
    /// Services that changed in this round.
    dirty: BTreeSet<ServiceId>,
    /// Services that are looked at again when any other changed.
    minding: BTreeSet<ServiceId>,
    slots_left: usize,
    placements_left: usize,
    /// The last round left something undone.
    bounded: bool,
}

impl Pass {
    fn new(view: &State, now: Now) -> Self {
        let now_ms = now.ms;
        Self {
            state: view.clone(),
            leads_since_ms: now.leads_since_ms,
            storms: Arc::new(Storms::of(view, now_ms)),
            now_ms,
            plan: Plan::default(),
            calm: None,
            dirty: BTreeSet::new(),
            minding: BTreeSet::new(),
            slots_left: SLOTS_MAX,
            placements_left: PLACEMENTS_MAX,
            bounded: false,
        }
    }

    /// Runs the stages over one service. Its slots are surveyed again only after a stage that
    /// changed something, so a service at rest is read once.
    fn reconcile(&mut self, id: ServiceId, ids: &mut Ids) {
        let Some(service) = self.state.service(id) else { return };
        // To look at all nodes once pays where a service has many tasks.
        let large = service.spec.replicas() as usize >= LARGE;
        let calm = large && *self.calm.get_or_insert_with(|| rest::is_calm(&self.state));
        let at_rest = rest::is_at_rest(&self.state, service, calm);
        if at_rest && !cfg!(debug_assertions) {
            return;
        }
        let removed = service.removed;
        let mut stages = stages(service).iter();
        let storms = self.storms.clone();
        loop {
            let state = self.state.clone();
            // A stage may have removed the service.
            let Some(service) = state.service(id).filter(|service| service.removed == removed)
            else {
                return;
            };
            let slots = Slots::of(&state, id);
            let view = View {
                state: &state,
                service,
                slots: &slots,
                storms: &storms,
                now_ms: self.now_ms,
                leads_since_ms: self.leads_since_ms,
            };
            loop {
                let Some(stage) = stages.next() else { return };
                let before = self.plan.wake_at_ms;
                let changed = self.run(*stage, &view, ids);
                debug_assert!(
                    !at_rest || !changed && before == self.plan.wake_at_ms,
                    "service {id} looked at rest and was not"
                );
                if changed {
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
        if done.minds_others {
            self.minding.insert(view.service.id);
        }
        if done.changes.is_empty() {
            return false;
        }
        self.dirty.insert(view.service.id);
        for change in &done.changes {
            if let Change::Launch { child: id, .. } | Change::RemoveJob { service: id, .. } = change
            {
                self.dirty.insert(*id);
            }
        }
        self.take(done.changes);
        true
    }

    fn schedule(&mut self, ids: &mut Ids) {
        let placed = schedule::plan(&mut self.state, self.now_ms, self.placements_left, ids);
        self.placements_left = self.placements_left.saturating_sub(placed.changes.len());
        self.bounded |= placed.bounded;
        self.plan.notes.retain(|note| !matches!(note, Note::Unplaced { .. }));
        self.plan.notes.extend(placed.notes);
        for change in &placed.changes {
            match change {
                Change::Assign { task, .. }
                | Change::Explain { task, .. }
                | Change::SetDesired { task, .. } => {
                    self.dirty.extend(self.state.task(*task).map(|task| task.service));
                }
                Change::CreateTasks { service, .. } => {
                    self.dirty.insert(*service);
                }
                _ => {}
            }
        }
        self.plan.changes.extend(placed.changes);
    }

    fn take(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let command = Command::Plan { at_ms: self.now_ms, changes };
        let outcome = cluster_model::apply(&mut self.state, schedule::SPECULATIVE_INDEX, &command);
        if let Ok(Reply::Counted { refused: count @ 1.., .. }) = outcome.reply {
            self.plan.notes.push(Note::Refused { count });
        }
        if let Command::Plan { changes, .. } = command {
            self.plan.changes.extend(changes);
        }
    }
}
