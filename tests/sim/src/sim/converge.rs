//! After the faults: what is desired runs, once, and nothing else; then nobody writes any more.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use cluster_manager::raft::View;
use cluster_model::{Availability, NodeState, Rollout, RolloutState, Service};
use cluster_runtime::State;
use tokio::task::JoinHandle;

use super::{CONVERGE, SECOND, Sim};
use crate::trace::seconds;

/// How often it is looked whether peace has come.
const LOOK: u64 = SECOND / 4;
/// Peace that lasts so long is peace.
const STEADY: u64 = 2 * SECOND;

impl Sim {
    /// Waits for peace, within the bound.
    pub(super) fn settle(
        &mut self,
        activating: Option<JoinHandle<anyhow::Result<()>>>,
    ) -> anyhow::Result<()> {
        let begun = self.now;
        let mut since: Option<(u64, u64)> = None;
        let mut next = self.now;
        loop {
            self.step()?;
            if self.now < next {
                continue;
            }
            next = self.now + LOOK;
            let active = activating.as_ref().is_none_or(JoinHandle::is_finished);
            let missing = match active {
                false => "nodes are not all active".to_owned(),
                true => match self.missing() {
                    Ok(index) => {
                        let (at, first) = *since.get_or_insert((self.now, index));
                        if index != first {
                            since = Some((self.now, index));
                        } else if self.now - at >= STEADY {
                            let took = seconds(at - begun);
                            self.tell(format!("peace after {took:.1} s, at index {index}"));
                            return Ok(());
                        }
                        "writes go on although all is as desired".to_owned()
                    }
                    Err(missing) => {
                        since = None;
                        missing.to_string()
                    }
                },
            };
            if self.now - begun > CONVERGE {
                bail!("no peace within {:.0} s: {missing}", seconds(CONVERGE));
            }
        }
    }

    /// What is still missing, or the index at which all is well.
    fn missing(&self) -> anyhow::Result<u64> {
        let leader = self.leader().context("nobody leads")?;
        let view = self.managers[leader].context().context("the leader is gone")?.raft.view();
        for manager in &self.managers {
            let context = manager.context().context("a manager does not run")?;
            let applied = context.raft.view().applied_index;
            if applied != view.applied_index {
                bail!("manager {} is at index {applied}", manager.number + 1);
            }
        }
        for node in view.state.nodes() {
            if node.state != NodeState::Ready || node.spec.availability != Availability::Active {
                bail!("node {} is {:?} {:?}", node.name, node.state, node.spec.availability);
            }
        }
        self.all_runs(&view)?;
        Ok(view.applied_index)
    }

    fn all_runs(&self, view: &View) -> anyhow::Result<()> {
        let mut running: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for worker in &self.workers {
            for container in worker.containers() {
                if container.state != State::Running {
                    continue;
                }
                let label = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
                let slot = (label("cluster.service"), label("cluster.slot"));
                running.entry(slot).or_default().push(container.id.to_string());
            }
        }
        let mut expected = 0;
        for service in view.state.services() {
            if service.removed {
                bail!("service {} is still being removed", service.spec.name);
            }
            let rollout = service.rollout.as_ref();
            if rollout.is_some_and(|rollout| rollout.message.starts_with("no slot came up")) {
                bail!("a rollout failed by a deadline that no run lasts for: {rollout:?}");
            }
            // One that gave up waits for its user; its slots run all the same.
            let goes = |rollout: &Rollout| {
                !rollout.state.is_over() && rollout.state != RolloutState::Paused
            };
            if rollout.is_some_and(goes) {
                bail!(
                    "service {} is still being rolled out:{}",
                    service.spec.name,
                    tell(view, service)
                );
            }
            let id = service.id.to_string();
            let slots = running.keys().filter(|(of, _)| *of == id).count();
            if slots != service.spec.replicas() as usize {
                let (name, wanted) = (&service.spec.name, service.spec.replicas());
                let told = tell(view, service);
                bail!("{name} runs in {slots} slots instead of {wanted}:{told}");
            }
            expected += slots;
        }
        if let Some((slot, ids)) = running.iter().find(|(_, ids)| ids.len() > 1) {
            bail!("slot {slot:?} runs {} times: {ids:?}", ids.len());
        }
        if running.len() != expected {
            let known = |id: &String| view.state.services().any(|s| s.id.to_string() == *id);
            let stray: Vec<_> = running.iter().filter(|((of, _), _)| !known(of)).collect();
            bail!("containers of no service run: {stray:?}");
        }
        Ok(())
    }
}

/// A service and its tasks, for whoever looks for the reason.
fn tell(view: &View, service: &Service) -> String {
    let mut text = format!(
        " revision {} of {} replicas, rollout {:?}",
        service.revision,
        service.spec.replicas(),
        service.rollout
    );
    for task in view.state.tasks_of_service(service.id) {
        text.push_str(&format!(
            "\n    slot {} task {} revision {}: {:?} {:?} on {:?}, {:?}, at {} since {}, {:?}",
            task.slot,
            task.id,
            task.revision,
            task.desired,
            task.status.state,
            task.node.and_then(|node| view.state.node(node)).map(|node| &node.name),
            task.reason,
            task.status.at_ms,
            task.status.started_at_ms,
            task.status.details.message
        ));
    }
    text
}
