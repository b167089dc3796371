//! After each step: what must hold, and which interesting states were reached.

use super::{Sim, WRITTEN};
use crate::invariants::{Look, Seen, Violation};

impl Sim {
    /// Judges what changed since the last time.
    pub(super) fn judge(&mut self) -> Result<(), Violation> {
        let mut managers = Vec::new();
        for (host, manager) in self.managers.iter().enumerate() {
            let Some(context) = manager.context() else { continue };
            let leadership = context.raft.leadership().borrow().clone();
            let leads = leadership.this_node_leads_and_caught_up;
            let index = *context.raft.feed().borrow();
            let at = (index, leadership.term, leads);
            if std::mem::replace(&mut self.judged_at[host], at) != at {
                let view = context.raft.view();
                managers.push(Seen { host, view, leadership, id: context.node_id });
            }
        }
        // Files are read now and then: what a worker wrote down stays for a while.
        let stamps = self.workers.iter().map(|worker| (worker.number, worker.stamp()));
        let workers: Vec<_> = match self.now % WRITTEN {
            0 => stamps.filter_map(|(number, stamp)| Some((number, stamp?))).collect(),
            _ => Vec::new(),
        };
        let (invariants, from) = (&mut self.invariants, self.judged);
        let (count, verdict) = self.history.since(from, |calls| {
            let look = Look { managers: &managers, workers: &workers, calls };
            (calls.len(), invariants.check(&look))
        });
        self.judged += count;
        verdict?;
        for seen in &managers {
            self.note(seen);
        }
        Ok(())
    }

    /// Interesting states, so that a run that never reached one shows.
    fn note(&mut self, seen: &Seen) {
        use cluster_model::{Desired, NodeState, Observed};
        if seen.leadership.this_node_leads_and_caught_up {
            self.count("views-of-a-leader");
        }
        let state = &seen.view.state;
        if state.nodes().any(|node| node.state == NodeState::Down) {
            self.count("views-with-a-node-down");
        }
        if state.services().any(|service| service.removed) {
            self.count("views-with-a-removal-under-way");
        }
        let moving = |service: &cluster_model::Service| {
            service.rollout.as_ref().is_some_and(|rollout| !rollout.state.is_over())
        };
        if state.services().any(moving) {
            self.count("views-with-a-rollout-under-way");
        }
        let has = |state_of: Observed| state.tasks().any(|task| task.status.state == state_of);
        for (observed, name) in [
            (Observed::Lost, "views-with-a-lost-task"),
            (Observed::Failed, "views-with-a-failed-task"),
            (Observed::Rejected, "views-with-a-rejected-task"),
            (Observed::Pending, "views-with-a-pending-task"),
        ] {
            if has(observed) {
                self.count(name);
            }
        }
        if state.tasks().any(|task| task.desired == Desired::Ready) {
            self.count("views-with-a-successor-waiting");
        }
    }
}
