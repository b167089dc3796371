//! Dry run: what a command would lead to, found by the real planners on a copy of the state.
//!
//! Agents are simulated as obedient: what is assigned runs, what is to stop stops, jobs succeed,
//! all at once. Time advances to whenever a planner wants to look again. What would have happened
//! without the command as well is left out.
//!
//! What never lives here: a write to the cluster's state.

mod compare;
mod simulate;

use std::sync::Arc;

use cluster_model::{Command, NodeId, Refusal, ServiceId, State};

use simulate::Simulation;

/// What would be different once everything has come to rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Slots that get a task; for jobs also those that run and end.
    pub started: Vec<Effect>,
    /// Slots that lose their task.
    pub stopped: Vec<Effect>,
    /// Slots whose task is replaced on the same node.
    pub replaced: Vec<Effect>,
    /// Slots whose task is replaced on another node.
    pub moved: Vec<Effect>,
    /// Slots that lose their task to a service of higher priority.
    pub preempted: Vec<Effect>,
    /// Slots whose task finds no node, and why. Those that find none now are not listed.
    pub pending: Vec<Effect>,
    /// The simulation reached its bound before everything came to rest.
    pub truncated: bool,
}

/// What happens to one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    pub service: ServiceId,
    /// Name of the service.
    pub name: String,
    pub slot: u32,
    pub from: Option<NodeId>,
    pub to: Option<NodeId>,
    /// For people.
    pub why: Arc<str>,
}

/// Forecasts what follows from a command. Refused as the command itself would be.
///
/// *Guarantees*: equal views, commands, times and seeds give equal forecasts.
pub fn forecast(
    view: &State,
    command: &Command,
    now_ms: u64,
    seed: u64,
) -> Result<Forecast, Refusal> {
    let mut with = Simulation::new(view, now_ms, seed);
    with.command(command)?;
    with.run();
    let mut without = Simulation::new(view, now_ms, seed);
    without.run();
    let mut forecast = compare::compare(view, with.state());
    let anyway = compare::compare(view, without.state());
    forecast.leave_out(&anyway);
    forecast.truncated = with.truncated() || without.truncated();
    Ok(forecast)
}

impl Forecast {
    fn leave_out(&mut self, anyway: &Forecast) {
        let lists = [
            (&mut self.started, &anyway.started),
            (&mut self.stopped, &anyway.stopped),
            (&mut self.replaced, &anyway.replaced),
            (&mut self.moved, &anyway.moved),
            (&mut self.preempted, &anyway.preempted),
            (&mut self.pending, &anyway.pending),
        ];
        for (effects, anyway) in lists {
            effects.retain(|effect| !anyway.contains(effect));
        }
    }
}
