//! How the tasks of services stand, kept between the calls that list them: with a million tasks a look
//! at all of them takes a fifth of a second, and mostly few services have changed.
//!
//! The router says what changes. A call compares its own view with what the router saw last, so what it
//! answers is of its view, whichever is newer.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use cluster_model::{Changes, NodeId, Service, ServiceId, State};
use cluster_wire::object::{self, Counts};

use super::table::lock;

/// Tasks that are looked at to find which services a change concerns. Beyond that all are taken to be
/// concerned: so it is when a manager starts, or has got a snapshot.
const TASKS_MAX: usize = 50_000;

pub struct KeptCounts {
    kept: Mutex<Kept>,
    /// Beyond so many tasks all services are taken to be concerned by a change.
    tasks_max: usize,
}

#[derive(Default)]
struct Kept {
    /// What the router saw last. It is never older than its last change, so it keeps nothing alive.
    state: State,
    /// Counts the changes that the router saw.
    moment: u64,
    /// The moment of the last change of so much that all services count as changed.
    all: u64,
    services: HashMap<ServiceId, Entry>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    counts: Option<Counts>,
    /// The moment of the last change.
    changed: u64,
}

impl Default for KeptCounts {
    fn default() -> Self {
        Self::bounded(TASKS_MAX)
    }
}

impl KeptCounts {
    pub(super) fn bounded(tasks_max: usize) -> Self {
        Self { kept: Mutex::default(), tasks_max }
    }

    /// The router goes on from the state before to this one.
    pub fn follow(&self, before: &State, state: &State, changes: &Changes) {
        let concerned = (extent(before, state, changes) <= self.tasks_max)
            .then(|| concerned(before, state, changes));
        let mut kept = lock(&self.kept);
        kept.moment += 1;
        kept.state = state.clone();
        let moment = kept.moment;
        let Some(concerned) = concerned else {
            kept.all = moment;
            kept.services.clear();
            return;
        };
        for id in concerned {
            match state.service(id) {
                Some(_) => kept.services.insert(id, Entry { counts: None, changed: moment }),
                None => kept.services.remove(&id),
            };
        }
    }

    pub fn reader<'a>(&'a self, view: &'a State) -> Reader<'a> {
        let (state, moment) = {
            let kept = lock(&self.kept);
            (kept.state.clone(), kept.moment)
        };
        let otherwise = concerned(&state, view, &view.changes(&state));
        Reader { kept: self, view, otherwise, moment, found: Vec::new(), counted: 0 }
    }
}

/// Reads counts of one view.
pub struct Reader<'a> {
    kept: &'a KeptCounts,
    view: &'a State,
    /// Services that may stand otherwise in the view than where the router is.
    otherwise: BTreeSet<ServiceId>,
    /// Where the router was.
    moment: u64,
    found: Vec<(ServiceId, Counts)>,
    /// Services whose tasks were looked at.
    counted: usize,
}

impl Reader<'_> {
    pub fn of(&mut self, service: &Service) -> Counts {
        if self.otherwise.contains(&service.id) {
            return self.count(service);
        }
        let entry = lock(&self.kept.kept).services.get(&service.id).copied().unwrap_or_default();
        if let Some(counts) = entry.counts.filter(|_| entry.changed <= self.moment) {
            return counts;
        }
        let counts = self.count(service);
        self.found.push((service.id, counts));
        counts
    }

    fn count(&mut self, service: &Service) -> Counts {
        self.counted += 1;
        object::counts(self.view, service)
    }

    /// Keeps what was counted, but for services that have changed meanwhile. Answers of how many
    /// services the tasks were looked at.
    pub fn keep(self) -> usize {
        let mut kept = lock(&self.kept.kept);
        for (id, counts) in self.found {
            if kept.state.service(id).is_none() {
                continue;
            }
            let all = kept.all;
            let entry = kept.services.entry(id).or_insert(Entry { counts: None, changed: all });
            if entry.changed <= self.moment {
                entry.counts = Some(counts);
            }
        }
        self.counted
    }
}

/// Tasks that would have to be looked at.
fn extent(old: &State, new: &State, changes: &Changes) -> usize {
    let of_node = |node: &NodeId| old.usage(*node).tasks.max(new.usage(*node).tasks) as usize;
    changes.tasks.len() + changes.nodes.iter().map(of_node).sum::<usize>()
}

/// Services whose counts may differ: those that changed, whose tasks did, or the nodes of their tasks.
fn concerned(old: &State, new: &State, changes: &Changes) -> BTreeSet<ServiceId> {
    let mut concerned: BTreeSet<ServiceId> = changes.services.iter().copied().collect();
    concerned.extend(changes.tasks.iter().map(|change| change.service));
    for node in &changes.nodes {
        for state in [old, new] {
            concerned.extend(state.services_of_node(*node));
        }
    }
    concerned
}
