//! A plan being made: the speculative state, the changes so far, the next wake-up.

use cluster_model::{
    Change, Command, Desired, NewTask, Reason, ServiceId, State, Task, TaskId, apply,
};

use crate::Plan;

/// New tasks one pass may create; the rest comes with the next, which is due at once.
pub const CREATE_MAX: usize = 10_000;

/// A stream of ids from a seed that the caller draws.
#[derive(Clone, Debug)]
pub struct Ids(u64);

impl Ids {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The first of `count` ids in a row (splitmix64).
    pub fn next_base(&mut self) -> TaskId {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        TaskId(mix(self.0))
    }
}

/// Spreads a number over all bits; also where a deterministic jitter comes from.
pub fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub struct Draft<'a> {
    state: State,
    pub now_ms: u64,
    ids: &'a mut Ids,
    plan: Plan,
    created: usize,
}

impl<'a> Draft<'a> {
    pub fn new(view: &State, now_ms: u64, ids: &'a mut Ids) -> Self {
        Self { state: view.clone(), now_ms, ids, plan: Plan::default(), created: 0 }
    }

    /// The view with all changes so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Proposes a change and applies it to the speculative state.
    pub fn push(&mut self, change: Change) {
        let command = Command::Plan { at_ms: self.now_ms, changes: vec![change] };
        // The index stamps versions that never leave the draft.
        apply(&mut self.state, u64::MAX, &command);
        if let Command::Plan { changes, .. } = command {
            self.plan.changes.extend(changes);
        }
    }

    /// Proposes new tasks of one service; beyond the bound they wait for the next pass.
    pub fn create(&mut self, service: ServiceId, revision: u32, mut tasks: Vec<NewTask>) {
        let room = CREATE_MAX.saturating_sub(self.created);
        if tasks.len() > room {
            tasks.truncate(room);
            self.wake_at(self.now_ms);
        }
        if tasks.is_empty() {
            return;
        }
        self.created += tasks.len();
        let base = self.ids.next_base();
        self.push(Change::CreateTasks { service, revision, base, tasks });
    }

    pub fn set_desired(&mut self, task: TaskId, desired: Desired, reason: Reason) {
        self.push(Change::SetDesired { task, desired, reason });
    }

    /// What a successor may be: running at once, or ready while another task of the slot may live.
    pub fn successor_desired(&self, service: ServiceId, slot: u32) -> Desired {
        let alive = self.state.tasks_of_slot(service, slot).any(Task::holds_resources);
        if alive { Desired::Ready } else { Desired::Running }
    }

    pub fn wake_at(&mut self, at_ms: u64) {
        let sooner = self.plan.wake_at_ms.map_or(at_ms, |known| known.min(at_ms));
        self.plan.wake_at_ms = Some(sooner);
    }

    pub fn finish(self) -> Plan {
        self.plan
    }
}
