//! A cluster whose agents do at once what they are told.

use std::collections::BTreeSet;

use cluster_model::{
    Command, Desired, NodeId, NodeState, Observed, Refusal, ServiceId, State, StatusReport, Task,
};

use crate::{Ids, Note, Scope, earlier};

/// Passes of one simulation.
const ROUNDS_MAX: usize = 2_000;
/// Time that may pass in one simulation.
const TIME_MAX_MS: u64 = 24 * 3600 * 1000;
/// Stamps simulated writes; never leaves the simulation.
const FIRST_INDEX: u64 = 1 << 62;

pub(super) struct Simulation {
    state: State,
    seen: State,
    now_ms: u64,
    end_ms: u64,
    index: u64,
    ids: Ids,
    wake_at_ms: Option<u64>,
    truncated: bool,
}

impl Simulation {
    pub fn new(view: &State, now_ms: u64, seed: u64) -> Self {
        Self {
            state: view.clone(),
            seen: view.clone(),
            now_ms,
            end_ms: now_ms.saturating_add(TIME_MAX_MS),
            index: FIRST_INDEX,
            ids: Ids::new(seed),
            wake_at_ms: None,
            truncated: false,
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn truncated(&self) -> bool {
        self.truncated
    }

    pub fn command(&mut self, command: &Command) -> Result<(), Refusal> {
        self.index += 1;
        cluster_model::apply(&mut self.state, self.index, command).reply.map(|_| ())
    }

    /// Plans and acts until nothing moves any more, or a bound is reached.
    pub fn run(&mut self) {
        let mut full = true;
        for _ in 0..ROUNDS_MAX {
            let planned = self.plan(full);
            full = false;
            if self.act() || planned {
                continue;
            }
            match self.wake_at_ms.take() {
                None => return,
                Some(at_ms) if at_ms > self.end_ms => break,
                Some(at_ms) => self.now_ms = self.now_ms.max(at_ms),
            }
            full = true;
        }
        self.truncated = true;
    }

    /// One pass, as a leader makes it. Launches by schedules are no consequence of the command.
    fn plan(&mut self, full: bool) -> bool {
        let changes = self.state.changes(&self.seen);
        let full = full || changes.cluster || !changes.nodes.is_empty();
        let mut services: BTreeSet<ServiceId> = if full {
            self.state.services().map(|service| service.id).collect()
        } else {
            let tasks = changes.tasks.iter().map(|task| task.service);
            changes.services.into_iter().chain(tasks).collect()
        };
        services.retain(|id| {
            self.state.service(*id).is_some_and(|service| service.spec.job.schedule.is_none())
        });
        self.seen = self.state.clone();
        let scope = Scope::Services(&services);
        let plan = crate::plan(&self.state, scope, self.now_ms, &mut self.ids);
        let kept = self.wake_at_ms.filter(|_| !full);
        // A bounded pass is continued by the next round.
        let bounded = plan.notes.contains(&Note::Bounded);
        self.wake_at_ms = earlier(kept, plan.wake_at_ms);
        if plan.changes.is_empty() {
            return bounded;
        }
        let command = Command::Plan { at_ms: self.now_ms, changes: plan.changes };
        // Plans are not refused as a whole.
        let _ = self.command(&command);
        true
    }

    /// Every agent that is heard does what it is told; false when there was nothing to do.
    fn act(&mut self) -> bool {
        let ready: Vec<NodeId> = self
            .state
            .nodes()
            .filter(|node| node.state == NodeState::Ready)
            .map(|node| node.id)
            .collect();
        let mut reports = Vec::new();
        for node in ready {
            for task in self.state.tasks_of_node(node) {
                if let Some(state) = self.next(task) {
                    reports.push((node, StatusReport::new(task.id, state, self.now_ms)));
                }
            }
        }
        if reports.is_empty() {
            return false;
        }
        // Reports are not refused as a whole.
        let _ = self.command(&Command::RecordStatus { reports });
        true
    }

    fn next(&self, task: &Task) -> Option<Observed> {
        let state = task.status.state;
        if state.is_terminal() {
            return None;
        }
        let job =
            || self.state.service(task.service).is_some_and(|service| service.spec.mode.is_job());
        match task.desired {
            Desired::Ready => (state < Observed::Ready).then_some(Observed::Ready),
            Desired::Running if state < Observed::Running => Some(Observed::Running),
            Desired::Running => job().then_some(Observed::Complete),
            Desired::Complete | Desired::Shutdown | Desired::Remove => Some(Observed::Shutdown),
        }
    }
}
