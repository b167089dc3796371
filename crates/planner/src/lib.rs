//! The planners: what should change, given a view of the state.
//!
//! Pure functions of (view, now, ids): no clock, no randomness, no I/O, no hash order. A planner
//! proposes and cannot act; `apply` re-checks every change. Leader-only opinion: unlike the model it
//! may change freely between releases.
//!
//! Each pass works on a speculative copy: a change is applied to it when proposed, so later stages
//! see what earlier ones did, and creating and placing a task are one proposal.

mod draft;
mod drain;
pub mod liveness;
mod reaper;
mod replicated;
mod restart;
mod rollout;
mod schedule;
mod slot;

use std::collections::BTreeSet;

use cluster_model::{Change, ServiceId, State};

use draft::Draft;
pub use draft::Ids;

/// What a pass proposes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub changes: Vec<Change>,
    /// When to look again although nothing changed, in cluster time.
    pub wake_at_ms: Option<u64>,
}

/// What a pass looks at. Tasks that wait for a node are always looked at.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    All,
    Services(&'a BTreeSet<ServiceId>),
}

/// Runs all planners over the scope. At a fixpoint it proposes nothing.
pub fn plan(view: &State, scope: Scope<'_>, now_ms: u64, ids: &mut Ids) -> Plan {
    let mut draft = Draft::new(view, now_ms, ids);
    match scope {
        Scope::All => {
            let all: Vec<ServiceId> = view.services().map(|service| service.id).collect();
            all.into_iter().for_each(|id| service(&mut draft, id));
        }
        Scope::Services(some) => some.iter().for_each(|id| service(&mut draft, *id)),
    }
    schedule::run(&mut draft);
    draft.finish()
}

fn service(draft: &mut Draft<'_>, id: ServiceId) {
    // Tasks of a removed service end by themselves: `apply` asked them to.
    if draft.state().service(id).is_none_or(|service| service.removed) {
        return;
    }
    replicated::scale(draft, id);
    restart::run(draft, id);
    drain::run(draft, id);
    rollout::run(draft, id);
    reaper::run(draft, id);
}

#[cfg(test)]
mod tests;
