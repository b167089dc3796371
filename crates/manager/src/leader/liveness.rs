//! Declares nodes down when their lease ends. Nothing here goes through Raft but the transition.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster_model::{Change, Command, NodeId, NodeState, State};
use cluster_planner::liveness::{self, Lease};

use crate::context::Context;

/// Longest sleep between looks: a node that becomes ready starts a lease.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
const LOOK_PERIOD_MIN: Duration = Duration::from_millis(10);
/// A look that is so late means that this process stood still, and what workers said meanwhile
/// waits to be read: nobody's silence is proven.
const STALL: Duration = Duration::from_secs(1);
/// Leases that pass before silence counts again after this process stood still: all workers may have
/// gone to other managers by then and come back at once.
const LEASES_OF_GRACE: u32 = 2;
/// After so long a new leader has been told by the other managers whom they hear, and their workers had
/// a heartbeat to say. Of whom it knows nothing then, the leader before it was the manager.
const TOLD_AFTER: Duration = Duration::from_millis(1500);

/// Nodes cannot have been heard by a leader that was none: each is taken as heard at `since`.
pub async fn run(context: Context, since: Instant) -> anyhow::Result<()> {
    let mut leases = Leases::new(since);
    let mut looked = Instant::now();
    loop {
        let now = Instant::now();
        if now.saturating_duration_since(looked) > STALL {
            tracing::warn!("this manager stood still: all leases begin anew");
            leases = Leases::new(now);
        }
        looked = now;
        context.dispatch.contact.confirm();
        let view = context.raft.view();
        let Some(lease_ms) = view.state.cluster().map(|cluster| cluster.lease_ms) else {
            tokio::time::sleep(LOOK_PERIOD).await;
            continue;
        };
        leases.look(&view.state, now);
        let (lease, hearing) = (Duration::from_millis(lease_ms), &context.dispatch.hearing);
        let told_after = TOLD_AFTER.min(lease / 2);
        if let Some(orphans) = leases.orphans(now, told_after, |node| hearing.last_heard(node)) {
            let workers = hearing.orphaned(&orphans, leases.since, lease);
            tracing::debug!(workers, "not heard since this manager leads");
        }
        let grace = lease * LEASES_OF_GRACE;
        let again = context.dispatch.contact.resumed().map(|resumed| resumed + grace);
        let last_heard = |node: NodeId| {
            let heard = leases.last_heard(node, hearing.last_heard(node));
            let excused = hearing.excused_until(node).and_then(|until| until.checked_sub(lease));
            let counts_from = [again, excused].into_iter().flatten().fold(heard, Instant::max);
            let [heard_ms, counts_from_ms] =
                [heard, counts_from].map(|moment| context.clock.at_ms(moment));
            Some(Lease { heard_ms, counts_from_ms })
        };
        let plan = liveness::plan(&view.state, &last_heard, lease_ms, context.clock.now_ms());
        if !plan.changes.is_empty() {
            declare_down(&context, plan.changes).await;
            looked = Instant::now();
        }
        let until = plan.wake_at_ms.map(|at_ms| context.clock.instant_at(at_ms));
        let pause =
            until.map_or(LOOK_PERIOD, |until| until.saturating_duration_since(Instant::now()));
        tokio::time::sleep(pause.clamp(LOOK_PERIOD_MIN, LOOK_PERIOD)).await;
    }
}

async fn declare_down(context: &Context, changes: Vec<Change>) {
    let told = changes.clone();
    let at_ms = context.clock.now_ms();
    match context.propose(Command::Plan { at_ms, changes }).await {
        Ok(_) => {
            for change in &told {
                if let Change::NodeDown { node, message, .. } = change {
                    tracing::warn!(node_id = %node, reason = %message, "node down");
                }
            }
        }
        Err(failure) => tracing::warn!(reason = %failure, "could not declare nodes down"),
    }
}

/// From when on each ready node's silence counts, beside what was heard of it: a node that becomes
/// ready through another manager may be ready before this one is told that it was heard.
struct Leases {
    since: Instant,
    ready: BTreeMap<NodeId, Instant>,
    first: bool,
    /// Those who lost their manager when this one began to lead are known.
    asked: bool,
}

impl Leases {
    fn new(since: Instant) -> Self {
        Self { since, ready: BTreeMap::new(), first: true, asked: false }
    }

    fn look(&mut self, state: &State, now: Instant) {
        let begin = if self.first { self.since } else { now };
        self.first = false;
        let known = std::mem::take(&mut self.ready);
        self.ready = state
            .nodes()
            .filter(|node| node.state == NodeState::Ready)
            .map(|node| (node.id, known.get(&node.id).copied().unwrap_or(begin)))
            .collect();
    }

    /// Ready nodes that nobody has heard since this manager leads; answered once.
    fn orphans(
        &mut self,
        now: Instant,
        told_after: Duration,
        heard: impl Fn(NodeId) -> Option<Instant>,
    ) -> Option<Vec<NodeId>> {
        if self.asked || now < self.since + told_after {
            return None;
        }
        self.asked = true;
        let ready = self.ready.keys().copied();
        Some(ready.filter(|node| heard(*node).is_none_or(|at| at < self.since)).collect())
    }

    fn last_heard(&self, node: NodeId, heard: Option<Instant>) -> Instant {
        let begun = self.ready.get(&node).copied().unwrap_or(self.since);
        heard.map_or(begun, |heard| heard.max(begun))
    }
}

#[cfg(test)]
mod tests {
    use cluster_model::NodeDescription;

    use super::*;

    fn state_with(ready: &[u64]) -> State {
        let mut state = State::default();
        for (index, id) in (1..).step_by(2).zip(ready) {
            let register =
                Command::RegisterNode { id: NodeId(*id), name: format!("n{id}"), at_ms: 0 };
            let description = Box::new(NodeDescription::default());
            let hello = Command::NodeReady { id: NodeId(*id), description, at_ms: 0 };
            cluster_model::apply(&mut state, index, &register).reply.unwrap();
            cluster_model::apply(&mut state, index + 1, &hello).reply.unwrap();
        }
        state
    }

    #[test]
    fn a_node_has_a_lease_from_when_it_is_ready_and_not_from_the_first_election_on() {
        let since = Instant::now();
        let later = since + Duration::from_secs(600);
        let (old, new) = (NodeId(1), NodeId(2));
        let mut leases = Leases::new(since);
        leases.look(&state_with(&[1]), since + Duration::from_millis(5));
        leases.look(&state_with(&[1, 2]), later);
        assert_eq!(leases.last_heard(old, None), since);
        assert_eq!(leases.last_heard(new, None), later);
        // What was heard counts when it is newer; a new beginning forgets nothing that is.
        let heard = later + Duration::from_secs(1);
        assert_eq!(leases.last_heard(new, Some(heard)), heard);
        assert_eq!(leases.last_heard(new, Some(since)), later);
        // Down and back.
        leases.look(&state_with(&[2]), later);
        leases.look(&state_with(&[1, 2]), heard);
        assert_eq!(leases.last_heard(old, None), heard);
    }

    #[test]
    fn whom_nobody_has_heard_after_a_moment_belonged_to_the_leader_before() {
        let since = Instant::now();
        let mut leases = Leases::new(since);
        leases.look(&state_with(&[1, 2, 3]), since);
        let heard = |node: NodeId| match node.0 {
            1 => Some(since + Duration::from_secs(1)),
            2 => since.checked_sub(Duration::from_secs(1)),
            _ => None,
        };
        assert_eq!(leases.orphans(since + TOLD_AFTER / 2, TOLD_AFTER, heard), None);
        let orphans = leases.orphans(since + TOLD_AFTER, TOLD_AFTER, heard);
        assert_eq!(orphans, Some(vec![NodeId(2), NodeId(3)]));
        assert_eq!(leases.orphans(since + TOLD_AFTER * 2, TOLD_AFTER, heard), None, "once");
    }
}
