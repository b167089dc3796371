//! The planning loop: wake, look at what changed, plan, propose. A wake-up carries no data; the
//! loop compares views, and a periodic full pass must find nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster_model::{Change, Changes, Command, Reply, Service, ServiceId, State};
use cluster_planner::storm::{self, Storm};
use cluster_planner::{Ids, Note, Now, Plan, Scope};

use crate::context::{Context, mint};

/// How often everything is looked at although nothing changed.
const FULL_PASS_PERIOD: Duration = Duration::from_secs(30);
/// Pause after a plan that could not be proposed, so that a group without majority is not flooded.
const PROPOSE_PAUSE: Duration = Duration::from_millis(200);
/// Of the time, full passes that follow changes of nodes take at most one part in so many. What is on
/// a node that changed is looked at at once.
const FULL_PASS_SHARE: u32 = 10;
/// After a pass that took time, as much time is left to everything else, within this bound: what
/// changes meanwhile is looked at together. Small clusters do not notice.
const PAUSE_MAX: Duration = Duration::from_millis(250);
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Shortest time between passes on a timer that come to nothing.
const IDLE_PAUSE: Duration = Duration::from_millis(50);

pub async fn run(context: Context) -> anyhow::Result<()> {
    let mut feed = context.raft.feed();
    feed.mark_changed();
    let mut last: Option<State> = None;
    let mut full_pass_at = Instant::now() + FULL_PASS_PERIOD;
    let mut wake_at: Option<Instant> = None;
    let mut storms = Storms::default();
    let mut full_pass = FullPass::default();
    let leads_since_ms = context.clock.now_ms();
    loop {
        let timer = wake_at.map_or(full_pass_at, |wake_at| wake_at.min(full_pass_at));
        tokio::select! {
            changed = feed.changed() => changed?,
            () = tokio::time::sleep_until(timer.into()) => {}
        }
        let state = context.raft.view().state;
        // A timer that is due counts whatever the wake-up was.
        let now = Instant::now();
        let due = now >= timer;
        let before = last.replace(state.clone());
        // Behind the sessions: a pass over thousands of tasks must keep no heartbeat waiting, and what
        // it plans cannot be told faster than they have their turn.
        let pass = context.background.run({
            let (context, state) = (context.clone(), state.clone());
            move || {
                let look = match &before {
                    None => Look::All,
                    // Which service a timer belongs to is the planner's knowledge.
                    Some(_) if due => Look::All,
                    Some(last) => Look::of(&state, &state.changes(last), full_pass.may_begin(now)),
                };
                let plan = look.plan(&context, &state, leads_since_ms);
                (look, plan)
            }
        });
        let (look, plan) = pass.await?;
        if let Look::Services { all_follow: true, .. } = look {
            let at = full_pass.next();
            wake_at = Some(wake_at.map_or(at, |known| known.min(at)));
        }
        if matches!(look, Look::All) {
            storms.look(&state, context.clock.now_ms());
        }
        let Some(plan) = plan else { continue };
        let took = now.elapsed();
        tell(&plan);
        if matches!(look, Look::All) {
            full_pass = FullPass::ended(now);
            full_pass_at = now + FULL_PASS_PERIOD;
            wake_at = None;
        }
        let done = match plan.changes.is_empty() {
            true => Done::Nothing,
            false => propose(&context, plan.changes).await,
        };
        if let Some(at_ms) = plan.wake_at_ms {
            let at = done.not_before(context.clock.instant_at(at_ms));
            wake_at = Some(wake_at.map_or(at, |known| known.min(at)));
        }
        if matches!(done, Done::Failed) {
            // Nothing in the state will tell that this was not done.
            last = None;
            feed.mark_changed();
        }
        if took > PAUSE_MIN {
            tokio::time::sleep(took.min(PAUSE_MAX)).await;
        }
    }
}

/// What became of a pass.
enum Done {
    Nothing,
    Some,
    /// Every step was stale: what made it so is a change that wakes the loop by itself.
    Refused,
    Failed,
}

impl Done {
    /// A pass that got nowhere is not repeated at once, whatever the planner thinks.
    fn not_before(&self, at: Instant) -> Instant {
        let now = Instant::now();
        match self {
            Done::Nothing | Done::Refused | Done::Failed if at <= now => now + IDLE_PAUSE,
            _ => at,
        }
    }
}

fn tell(plan: &Plan) {
    for note in &plan.notes {
        match note {
            Note::Refused { .. } => tracing::warn!(%note, "a planner contradicts the state"),
            _ => tracing::debug!(%note, "planned"),
        }
    }
}

/// Says when a storm begins, grows and ends.
#[derive(Default)]
struct Storms {
    told: Option<Storm>,
}

impl Storms {
    fn look(&mut self, state: &State, now_ms: u64) {
        let now = storm::assess(state, now_ms);
        if now == self.told {
            return;
        }
        match &now {
            Some(storm) => tracing::error!(reason = storm.text, "replacing nothing"),
            None => tracing::warn!("the storm is over: silent nodes are replaced again"),
        }
        self.told = now;
    }
}

/// The last full pass: when it ended and what it took.
#[derive(Clone, Copy, Default)]
struct FullPass(Option<(Instant, Duration)>);

impl FullPass {
    fn ended(begun: Instant) -> Self {
        Self(Some((Instant::now(), begun.elapsed())))
    }

    /// When the next one may follow a change of a node.
    fn next(self) -> Instant {
        self.0.map_or_else(Instant::now, |(ended, took)| ended + took * FULL_PASS_SHARE)
    }

    fn may_begin(self, now: Instant) -> bool {
        self.next() <= now
    }
}

/// What a pass looks at.
enum Look {
    All,
    Services {
        services: BTreeSet<ServiceId>,
        /// A node changed, so all of them have to be looked at soon.
        all_follow: bool,
    },
}

impl Look {
    fn of(state: &State, changes: &Changes, all_may: bool) -> Self {
        let nodes = !changes.nodes.is_empty();
        if changes.cluster || nodes && all_may {
            return Look::All;
        }
        let mut services: BTreeSet<ServiceId> = changes.services.iter().copied().collect();
        services.extend(changes.tasks.iter().map(|task| task.service));
        for node in &changes.nodes {
            services.extend(state.services_of_node(*node));
        }
        if nodes {
            let global = |service: &&Service| service.spec.mode.is_global() && !service.removed;
            services.extend(state.services().filter(global).map(|service| service.id));
        }
        Look::Services { services, all_follow: nodes }
    }

    fn plan(&self, context: &Context, state: &State, leads_since_ms: u64) -> Option<Plan> {
        let mut ids = Ids::new(mint());
        let now = Now { ms: context.clock.now_ms(), leads_since_ms };
        let scope = match self {
            Look::All => Scope::All,
            // Tasks that wait for a node are looked at in any case.
            Look::Services { services, all_follow: false } if services.is_empty() => return None,
            Look::Services { services, .. } => Scope::Services(services),
        };
        Some(cluster_planner::plan(state, scope, now, &mut ids))
    }
}

async fn propose(context: &Context, changes: Vec<Change>) -> Done {
    let count = changes.len();
    let at_ms = context.clock.now_ms();
    match context.propose(Command::Plan { at_ms, changes }).await {
        Ok((index, reply)) => {
            tracing::debug!(count, index, ?reply, "plan applied");
            match reply {
                Reply::Counted { taken: 0, .. } => Done::Refused,
                _ => Done::Some,
            }
        }
        Err(failure) => {
            tracing::warn!(count, reason = %failure, "plan not applied");
            tokio::time::sleep(PROPOSE_PAUSE).await;
            Done::Failed
        }
    }
}
