//! Tasks of silent nodes: when they are given up for lost.

use cluster_model::NodeState;
use cluster_model::spec::Disconnect;

use crate::slots::{Steps, View};

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    for task in view.slots.iter().flat_map(|slot| slot.tasks()) {
        let down = task
            .node
            .and_then(|node| view.state.node(node))
            .is_some_and(|node| node.state == NodeState::Down);
        if !down || task.status.state.is_terminal() {
            continue;
        }
        if view.service.spec.disconnect != Disconnect::Replace {
            continue;
        }
        if !steps.take_room() {
            return;
        }
        steps.lose(task);
    }
}
