//! One slot of a service, looked at as a whole.

use std::collections::BTreeMap;

use cluster_model::{Desired, Observed, Reason, ServiceId, State, Task};

/// The tasks of a slot that somebody wants remembered.
pub struct Slot {
    pub number: u32,
    /// Wanted and not over, if there is one.
    pub filler: Option<Task>,
    /// The newest task.
    pub newest: Task,
    /// Another task than the filler may be alive.
    pub alive_beside: bool,
}

impl Slot {
    /// The slot answers: its task runs and is wanted.
    pub fn serves(&self) -> bool {
        self.filler.as_ref().is_some_and(Task::serves)
    }

    /// Nothing more will happen to the slot by itself.
    pub fn is_settled(&self) -> bool {
        self.serves() || self.is_exhausted()
    }

    /// Its task ended and its policy allows no other.
    pub fn is_exhausted(&self) -> bool {
        self.filler.is_none() && self.newest.reason == Reason::Exhausted
    }
}

/// The claimed slots of a service: those with a task that is not being removed.
pub fn slots(state: &State, service: ServiceId) -> Vec<Slot> {
    let mut by_number: BTreeMap<u32, Vec<&Task>> = BTreeMap::new();
    for task in state.tasks_of_service(service) {
        by_number.entry(task.slot).or_default().push(task);
    }
    by_number.into_iter().filter_map(|(number, tasks)| slot(number, &tasks)).collect()
}

fn slot(number: u32, tasks: &[&Task]) -> Option<Slot> {
    let kept = tasks.iter().filter(|task| task.desired != Desired::Remove);
    let newest = kept.max_by_key(|task| age_rank(task))?;
    let filler = tasks.iter().find(|task| task.fills_slot()).copied();
    let alive_beside = tasks
        .iter()
        .any(|task| task.holds_resources() && filler.is_none_or(|filler| filler.id != task.id));
    Some(Slot { number, filler: filler.cloned(), newest: (*newest).clone(), alive_beside })
}

/// Orders the tasks of a slot from oldest to newest. A wanted one is newest whatever the clocks of
/// different leaders said.
pub fn age_rank(task: &Task) -> (bool, u64, u64, u64) {
    (task.fills_slot(), task.created_at_ms, task.version, task.id.0)
}

/// It ended by itself.
pub fn ended_by_itself(task: &Task) -> bool {
    matches!(task.status.state, Observed::Complete | Observed::Failed | Observed::Rejected)
}
