//! How many tasks of a service may be taken away on purpose.
//!
//! A service says how many of its slots may be without a healthy task because of us. Slots that
//! are without one for whatever reason count.

use std::collections::{BTreeMap, BTreeSet};

use cluster_model::{Service, ServiceId, State, Task};

/// The task does what it is there for, as far as anybody hears.
pub(crate) fn is_healthy(state: &State, task: &Task) -> bool {
    task.serves() && task.node.is_some_and(|node| !state.is_down(node))
}

/// Slots that a service should have filled, of which so many are at present. Those of jobs go as
/// they are done.
pub(crate) fn slots_wanted(service: &Service, filled: u32) -> u32 {
    if service.spec.mode.is_job() { filled } else { filled.max(service.spec.replicas()) }
}

/// Slots that may still be taken.
fn left(state: &State, service: ServiceId) -> u32 {
    let Some(owner) = state.service(service) else { return u32::MAX };
    let mut slots = BTreeSet::new();
    let mut healthy = BTreeSet::new();
    for task in state.tasks_of_service(service).filter(|task| task.fills_slot()) {
        slots.insert(task.slot);
        if is_healthy(state, task) {
            healthy.insert(task.slot);
        }
    }
    let count = |slots: &BTreeSet<u32>| u32::try_from(slots.len()).unwrap_or(u32::MAX);
    let total = slots_wanted(owner, count(&slots));
    owner.spec.max_unavailable.of(total).saturating_sub(total - count(&healthy))
}

/// Remembers budgets until something of the service was taken.
#[derive(Default)]
pub(crate) struct Budgets(BTreeMap<ServiceId, u32>);

impl Budgets {
    pub fn left(&mut self, state: &State, service: ServiceId) -> u32 {
        *self.0.entry(service).or_insert_with(|| left(state, service))
    }

    pub fn forget(&mut self, service: ServiceId) {
        self.0.remove(&service);
    }
}
