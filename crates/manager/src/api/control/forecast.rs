//! Dry runs: what a change would lead to. Decoded and admitted as the change itself, planned on a
//! copy of the state, never proposed.

use cluster_model::{NodeId, State};
use cluster_pb::control::v1 as pb;
use cluster_pb::control::v1::forecast_request::Change;
use cluster_planner::forecast::{Effect, Forecast, forecast};
use cluster_wire::{Code, Failure};

use super::ControlService;
use crate::context::mint;

/// Steps in one answer.
const STEPS_MAX: usize = 1000;

impl ControlService {
    pub(super) async fn foresee(
        &self,
        request: pb::ForecastRequest,
    ) -> Result<pb::ForecastResponse, Failure> {
        let missing = || Failure::new(Code::InvalidField, "field `change`: is missing");
        let command = match request.change.ok_or_else(missing)? {
            Change::Create(create) => self.create_command(create)?.1,
            Change::Update(update) => self.update_command(update)?.1,
            Change::Node(node) => {
                let view = self.context.read(false).await?;
                self.node_command(node, &view.state)?.1
            }
        };
        let view = self.context.read(false).await?;
        let now_ms = self.context.clock.now_ms();
        let (state, index) = (view.state.clone(), view.applied_index);
        // Planning a large change takes a while and must not hold other requests up.
        let planned = self.forecasts.take(move || {
            let seen = forecast(&state, &command, now_ms, mint())?;
            Ok::<_, Failure>(encode(&state, &seen))
        });
        let mut response = planned.await??;
        response.index = index;
        Ok(response)
    }
}

fn encode(state: &State, forecast: &Forecast) -> pb::ForecastResponse {
    let count = |effects: &[Effect]| u32::try_from(effects.len()).unwrap_or(u32::MAX);
    let lists = [
        ("preempt", &forecast.preempted),
        ("move", &forecast.moved),
        ("replace", &forecast.replaced),
        ("stop", &forecast.stopped),
        ("start", &forecast.started),
    ];
    let steps = lists
        .into_iter()
        .flat_map(|(action, effects)| effects.iter().map(move |effect| (action, effect)));
    let all: usize = lists.iter().map(|(_, effects)| effects.len()).sum();
    let steps: Vec<pb::Step> =
        steps.map(|(action, effect)| step(state, action, effect)).take(STEPS_MAX).collect();
    let pending = forecast.pending.iter().map(|effect| step(state, "pending", effect));
    pb::ForecastResponse {
        truncated: forecast.truncated || all > STEPS_MAX || forecast.pending.len() > STEPS_MAX,
        steps,
        pending: pending.take(STEPS_MAX).collect(),
        started: count(&forecast.started),
        stopped: count(&forecast.stopped),
        moved: count(&forecast.moved),
        preempted: count(&forecast.preempted),
        replaced: count(&forecast.replaced),
        index: 0,
    }
}

fn step(state: &State, action: &str, effect: &Effect) -> pb::Step {
    let name = |id: Option<NodeId>| {
        id.and_then(|id| state.node(id)).map(|node| node.name.clone()).unwrap_or_default()
    };
    pb::Step {
        action: action.to_owned(),
        service_name: effect.name.clone(),
        slot: effect.slot,
        node_name: name(effect.to),
        from_node_name: name(effect.from),
        reason: effect.why.to_string(),
    }
}
