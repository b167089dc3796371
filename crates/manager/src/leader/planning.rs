//! The planning loop: wake, look at what changed, plan, propose. A wake-up carries no data; the
//! loop compares views, and a periodic full pass must find nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster_model::{Change, Changes, Command, ServiceId, State};
use cluster_planner::{Ids, Plan, Scope};

use crate::context::{Context, mint};

/// How often everything is looked at although nothing changed.
const FULL_PASS_PERIOD: Duration = Duration::from_secs(30);
/// Pause after a plan that could not be proposed, so that a group without majority is not flooded.
const PROPOSE_PAUSE: Duration = Duration::from_millis(200);

pub async fn run(context: Context) -> anyhow::Result<()> {
    let mut feed = context.raft.feed();
    feed.mark_changed();
    let mut last: Option<State> = None;
    let mut full_pass_at = Instant::now() + FULL_PASS_PERIOD;
    let mut wake_at: Option<Instant> = None;
    loop {
        let timer = wake_at.map_or(full_pass_at, |wake_at| wake_at.min(full_pass_at));
        let woken_by_timer = tokio::select! {
            changed = feed.changed() => { changed?; false }
            () = tokio::time::sleep_until(timer.into()) => true,
        };
        let state = context.raft.view().state;
        let look = match &last {
            None => Look::All,
            // Which service a timer belongs to is the planner's knowledge.
            Some(_) if woken_by_timer => Look::All,
            Some(last) => Look::of(&state.changes(last)),
        };
        let quiet = Instant::now() >= full_pass_at;
        if quiet {
            full_pass_at = Instant::now() + FULL_PASS_PERIOD;
        }
        let Some(plan) = look.plan(&context, &state) else {
            last = Some(state);
            continue;
        };
        wake_at = match (plan.wake_at_ms, look) {
            (Some(at_ms), _) => {
                let at = context.clock.instant_at(at_ms);
                Some(wake_at.filter(|known| *known > Instant::now()).map_or(at, |known| known.min(at)))
            }
            (None, Look::All) => None,
            (None, Look::Services(_)) => wake_at.filter(|known| *known > Instant::now()),
        };
        last = Some(state);
        if !plan.changes.is_empty() {
            propose(&context, plan.changes).await;
        }
    }
}

/// What a pass looks at.
enum Look {
    All,
    Services(BTreeSet<ServiceId>),
}

impl Look {
    fn of(changes: &Changes) -> Self {
        if changes.cluster || !changes.nodes.is_empty() {
            return Look::All;
        }
        let services = changes.services.iter().copied();
        Look::Services(services.chain(changes.tasks.iter().map(|task| task.service)).collect())
    }

    fn plan(&self, context: &Context, state: &State) -> Option<Plan> {
        let mut ids = Ids::new(mint());
        let now_ms = context.clock.now_ms();
        let scope = match self {
            Look::All => Scope::All,
            Look::Services(services) if services.is_empty() => return None,
            Look::Services(services) => Scope::Services(services),
        };
        Some(cluster_planner::plan(state, scope, now_ms, &mut ids))
    }
}

async fn propose(context: &Context, changes: Vec<Change>) {
    let count = changes.len();
    let at_ms = context.clock.now_ms();
    match context.propose(Command::Plan { at_ms, changes }).await {
        Ok((index, reply)) => tracing::debug!(count, index, ?reply, "plan applied"),
        Err(failure) => {
            tracing::warn!(count, reason = %failure, "plan not applied");
            tokio::time::sleep(PROPOSE_PAUSE).await;
        }
    }
}
