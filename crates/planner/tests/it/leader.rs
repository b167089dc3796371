//! Planning as the leader's driver does it: a scoped pass for what changed, a full one when a node
//! changed or the time has come.

use std::collections::BTreeSet;

use cluster_model::{Change, ServiceId, State};
use cluster_planner::{Note, Scope};

use crate::world::World;

#[derive(Default)]
pub struct Leader {
    /// What it last looked at, and when it is due to look again.
    seen: Option<State>,
    wake_at_ms: Option<u64>,
}

impl Leader {
    /// One pass, taken at once. A full pass after it must find nothing.
    pub fn round(&mut self, world: &mut World) -> Vec<Change> {
        let due = self.wake_at_ms.is_some_and(|at_ms| at_ms <= world.now_ms);
        let scope: Option<BTreeSet<ServiceId>> =
            self.seen.as_ref().filter(|_| !due).and_then(|seen| {
                let changes = world.state.changes(seen);
                let tasks = changes.tasks.iter().map(|task| task.service);
                let services = changes.services.iter().copied().chain(tasks).collect();
                changes.nodes.is_empty().then_some(services)
            });
        let plan = match &scope {
            Some(services) => world.make_plan(Scope::Services(services)),
            None => world.make_plan(Scope::All),
        };
        let kept = self.wake_at_ms.filter(|at_ms| scope.is_some() && *at_ms > world.now_ms);
        self.wake_at_ms = [kept, plan.wake_at_ms].into_iter().flatten().min();
        let bounded = plan.notes.contains(&Note::Bounded);
        assert!(!bounded, "small worlds need no second pass: {plan:?}");
        if !plan.changes.is_empty() {
            world.apply_plan(plan.changes.clone());
        }
        let full = world.make_plan(Scope::All);
        assert_eq!(full.changes, vec![], "a full pass found what {scope:?} had not");
        if let Some(at_ms) = full.wake_at_ms {
            assert!(self.wake_at_ms.is_some_and(|known| known <= at_ms), "a wake-up was forgotten");
        }
        self.seen = Some(world.state.clone());
        plan.changes
    }
}
