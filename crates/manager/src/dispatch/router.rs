//! Compares each new view with the last one and tells sessions what to look at.
//!
//! Deltas of endpoints hold whole services, and every session gets all of them from a moment before
//! its full set on: those older than the full set are repetitions that the last of them makes good.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster_model::{Changes, ServiceId, State, endpoint};
use cluster_mutants::{Mutant, is};
use cluster_pb::dispatcher::v1 as pb;
use cluster_wire::object;
use tokio::time::Instant;

use crate::context::Context;

/// Every session gets every delta of endpoints, so deltas that come one after the other are put
/// together, the longer the more sessions there are: this much for each. With a few workers that is
/// nothing; with 2,000 on this manager 60 ms.
const ENDPOINTS_PAUSE: Duration = Duration::from_micros(30);
/// Backends in one message.
const BACKENDS_MAX: usize = 2000;

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
        route(&context, &last, &state, &state.changes(&last));
        endpoints.tell(&context, &state);
        last = state;
    }
}

/// What sessions were told of endpoints.
struct Told {
    state: State,
    /// There is more to tell, and it may be told at this moment.
    waits: bool,
    next: Instant,
}

impl Default for Told {
    fn default() -> Self {
        Self { state: State::default(), waits: false, next: Instant::now() }
    }
}

impl Told {
    fn tell(&mut self, context: &Context, state: &State) {
        let now = Instant::now();
        if state.endpoints_version() == self.state.endpoints_version() {
            // Nothing to compare with is held longer than needed.
            self.state = state.clone();
            return;
        }
        self.waits = now < self.next;
        if self.waits {
            return;
        }
        let delta = endpoint_delta(&self.state, state, &state.changes(&self.state));
        // Nobody listens while no session is open.
        let sessions = context.dispatch.endpoints.send(Arc::new(delta)).unwrap_or(0);
        self.next = now + ENDPOINTS_PAUSE * u32::try_from(sessions).unwrap_or(u32::MAX);
        self.state = state.clone();
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
    if !changes.nodes.is_empty() {
        context.dispatch.hearing.retain(|node| new.node(node).is_some());
    }
}

fn endpoint_delta(old: &State, new: &State, changes: &Changes) -> Vec<pb::Endpoints> {
    let mut concerned: BTreeSet<ServiceId> = changes.services.iter().copied().collect();
    concerned.extend(changes.tasks.iter().map(|task| task.service));
    for node in &changes.nodes {
        let serving = new.tasks_of_node(*node).filter(|task| task.serves());
        concerned.extend(serving.map(|task| task.service));
    }
    let mut services = Vec::new();
    let mut gone = Vec::new();
    for id in concerned {
        match (endpoint::of_service(old, id), endpoint::of_service(new, id)) {
            (before, Some(after)) if before.as_ref() != Some(&after) => {
                services.push(object::endpoints(&after));
            }
            (Some(_), None) => gone.push(id.to_string()),
            _ => {}
        }
    }
    parts(new.endpoints_version(), false, services, gone)
}

/// All endpoints, for a session that begins or fell behind.
pub fn full_endpoints(state: &State) -> Vec<pb::Endpoints> {
    let services = endpoint::publishing_services(state)
        .filter_map(|id| endpoint::of_service(state, id))
        .map(|endpoints| object::endpoints(&endpoints))
        .collect();
    parts(state.endpoints_version(), true, services, Vec::new())
}

/// Cuts a set into messages of bounded size; the last has `more` unset.
fn parts(
    version: u64,
    full: bool,
    services: Vec<pb::ServiceEndpoints>,
    gone: Vec<String>,
) -> Vec<pb::Endpoints> {
    let blank =
        || pb::Endpoints { version, full, more: true, services: Vec::new(), gone: Vec::new() };
    let mut messages = vec![pb::Endpoints { gone, ..blank() }];
    let mut held = 0;
    for service in services {
        let size = service.backends.len() + 1;
        if held + size > BACKENDS_MAX && held > 0 {
            messages.push(blank());
            held = 0;
        }
        held += size;
        if let Some(last) = messages.last_mut() {
            last.services.push(service);
        }
    }
    if let Some(last) = messages.last_mut() {
        last.more = false;
    }
    messages
}
