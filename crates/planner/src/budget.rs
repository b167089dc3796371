//! How many tasks of a service may be taken away on purpose.
//!
//! A service says how many of its slots may be without a healthy task because of us. Slots that
//! are without one for whatever reason count.

use std::collections::{BTreeMap, BTreeSet};

use cluster_model::{ServiceId, State};

/// Slots of a service that must stay as they are, or may still be taken.
pub(crate) fn left(state: &State, service: ServiceId) -> u32 {
    let Some(owner) = state.service(service) else { return u32::MAX };
    let mut slots = BTreeSet::new();
    let mut healthy = BTreeSet::new();
    for task in state.tasks_of_service(service).filter(|task| task.fills_slot()) {
        slots.insert(task.slot);
        if task.serves() {
            healthy.insert(task.slot);
        }
    }
    let count = |slots: &BTreeSet<u32>| u32::try_from(slots.len()).unwrap_or(u32::MAX);
    let total = count(&slots).max(owner.spec.replicas());
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
