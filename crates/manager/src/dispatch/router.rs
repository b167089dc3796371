//! Compares each new view with the last one and tells sessions what to look at.
//!
//! Deltas of endpoints lead from one told state to the next. Every session begins with the full set of
//! a told state and gets all deltas from a moment before: those older than the full set are
//! repetitions, which say of each task what the last of them says, and that is what the full set says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster_model::{Changes, Service, ServiceId, State, TaskId, endpoint};
use cluster_mutants::{Mutant, is};
use cluster_pb::dispatcher::v1 as pb;
use cluster_wire::object;
use tokio::time::Instant;

use super::table::lock;
use crate::context::Context;

/// Every session gets every delta of endpoints, so deltas that come one after the other are put
/// together, the longer the more sessions there are: this much for each. With a few workers that is
/// nothing; with 2,000 on this manager 60 ms.
const ENDPOINTS_PAUSE: Duration = Duration::from_micros(30);
/// Services that come or go, backends that come, and tasks that go, in one message: below 200 KB.
const ENTRIES_MAX: usize = 2000;

/// Routes for as long as the manager runs; its end takes the sessions with it.
pub async fn run(context: Context) {
    let _sessions_end = context.dispatch.calls.token().drop_guard();
    let mut feed = context.raft.feed();
    feed.mark_changed();
    // From nothing: what sessions that opened before this first look were sent may be older.
    let mut last = State::default();
    let mut endpoints = Told::default();
    loop {
        tokio::select! {
            changed = feed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(endpoints.next), if endpoints.waits => {}
        }
        let state = context.raft.view().state;
        let changes = state.changes(&last);
        context.dispatch.counts.follow(&last, &state, &changes);
        route(&context, &last, &state, &changes);
        endpoints.tell(&context, &state);
        last = state;
    }
}

/// When sessions may be told more of endpoints.
struct Told {
    /// There is more to tell, and it may be told at this moment.
    waits: bool,
    next: Instant,
}

impl Default for Told {
    fn default() -> Self {
        Self { waits: false, next: Instant::now() }
    }
}

impl Told {
    fn tell(&mut self, context: &Context, state: &State) {
        let now = Instant::now();
        let told = &context.dispatch.told;
        let last = lock(told).clone();
        let news = state.endpoints_version() != last.endpoints_version();
        self.waits = news && now < self.next;
        if self.waits {
            return;
        }
        // Nothing to compare with is held longer than needed. Before the delta goes out: who begins
        // now and was too late for the delta has it in its full set.
        *lock(told) = state.clone();
        // Asked after the state was put there: who begins later has it all in its full set.
        if news && context.dispatch.endpoints.receiver_count() > 0 {
            let delta = endpoint_delta(&last, state, &state.changes(&last));
            // Those who listened may have left since.
            let sessions = context.dispatch.endpoints.send(Arc::new(delta)).unwrap_or(0);
            self.next = now + ENDPOINTS_PAUSE * u32::try_from(sessions).unwrap_or(u32::MAX);
        }
    }
}

fn route(context: &Context, old: &State, new: &State, changes: &Changes) {
    let sessions = &context.dispatch.sessions;
    for change in changes.tasks.iter().filter(|change| change.assignment) {
        if let Some(node) = change.node.filter(|_| !is(Mutant::LostWakeUp)) {
            sessions.mark(node, change.task);
        }
    }
    for id in &changes.services {
        // An assignment names the container ports that are published.
        let ports = |state: &State| state.service(*id).map(|service| service.ports.clone());
        if ports(old) != ports(new) {
            for task in new.tasks_of_service(*id) {
                if let Some(node) = task.node {
                    sessions.mark(node, task.id);
                }
            }
        }
    }
    for node in &changes.nodes {
        sessions.wake(*node);
    }
    if changes.cluster || changes.trust {
        sessions.wake_all();
    }
    if changes.nodes.iter().any(|node| new.node(*node).is_none()) {
        context.dispatch.hearing.retain(|node| new.node(node).is_some());
    }
}

/// What changed, task by task: a service of thousands of which one changed costs one.
fn endpoint_delta(old: &State, new: &State, changes: &Changes) -> Vec<pb::Endpoints> {
    let mut whole = BTreeSet::new();
    let mut gone = Vec::new();
    for id in &changes.services {
        match (published(old, *id), published(new, *id)) {
            (Some(_), None) => gone.push(id.to_string()),
            (Some(before), Some(after)) if before.ports == after.ports => {}
            (_, Some(_)) => drop(whole.insert(*id)),
            (None, None) => {}
        }
    }
    let mut concerned: BTreeSet<(ServiceId, TaskId)> =
        changes.tasks.iter().map(|change| (change.service, change.task)).collect();
    for node in &changes.nodes {
        for state in [old, new] {
            // Most services have no ports, and a node may have hundreds of their tasks.
            let serving = state
                .tasks_of_node_in(*node, |service| published(state, service).is_some())
                .filter(|task| task.serves());
            concerned.extend(serving.map(|task| (task.service, task.id)));
        }
    }
    let mut changed: BTreeMap<ServiceId, pb::ServiceEndpoints> = BTreeMap::new();
    for (id, task) in concerned {
        let Some(service) = published(new, id).filter(|_| !whole.contains(&id)) else { continue };
        let backend = |state: &State| endpoint::backend(state, state.task(task)?);
        let (before, after) = (backend(old), backend(new));
        if before == after {
            continue;
        }
        let change = changed.entry(id).or_insert_with(|| object::endpoints_change(service));
        match after {
            Some(backend) => change.backends.push(object::backend(&backend)),
            None => change.gone.push(task.to_string()),
        }
    }
    let whole = whole.into_iter().filter_map(|id| endpoint::of_service(new, id));
    let services = whole.map(|service| object::endpoints(&service)).chain(changed.into_values());
    parts(new.endpoints_version(), false, services.collect(), gone)
}

fn published(state: &State, id: ServiceId) -> Option<&Service> {
    state.service(id).filter(|service| endpoint::is_published(service))
}

/// All endpoints of a state.
pub fn full_endpoints(state: &State) -> Vec<pb::Endpoints> {
    let services = endpoint::publishing_services(state)
        .filter_map(|id| endpoint::of_service(state, id))
        .map(|endpoints| object::endpoints(&endpoints))
        .collect();
    parts(state.endpoints_version(), true, services, Vec::new())
}

/// Cuts a set into messages of bounded size; the last has `more` unset. Of a service that does not fit
/// into one message, what follows the first part is a change to it.
fn parts(
    version: u64,
    full: bool,
    services: Vec<pb::ServiceEndpoints>,
    gone: Vec<String>,
) -> Vec<pb::Endpoints> {
    let blank =
        || pb::Endpoints { version, full, more: true, services: Vec::new(), gone: Vec::new() };
    let mut messages = Vec::new();
    let mut message = blank();
    let mut held = 0;
    for id in gone {
        if held >= ENTRIES_MAX {
            messages.push(std::mem::replace(&mut message, blank()));
            held = 0;
        }
        message.gone.push(id);
        held += 1;
    }
    for mut service in services {
        let mut backends = std::mem::take(&mut service.backends).into_iter().peekable();
        let mut gone = std::mem::take(&mut service.gone).into_iter().peekable();
        loop {
            if held >= ENTRIES_MAX {
                messages.push(std::mem::replace(&mut message, blank()));
                held = 0;
            }
            // The service itself is an entry.
            held += 1;
            let mut part = service.clone();
            part.backends.extend(backends.by_ref().take(ENTRIES_MAX - held));
            held += part.backends.len();
            part.gone.extend(gone.by_ref().take(ENTRIES_MAX - held));
            held += part.gone.len();
            message.services.push(part);
            if backends.peek().is_none() && gone.peek().is_none() {
                break;
            }
            service.delta = true;
        }
    }
    message.more = false;
    messages.push(message);
    messages
}

#[cfg(test)]
mod tests;
