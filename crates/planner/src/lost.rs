//! Tasks of silent nodes: when they are given up for lost, as their service's policy says, unless
//! a storm is on. A task that is waited for says so.

use cluster_model::spec::Disconnect;
use cluster_model::{Change, Node, Task};

use crate::slots::{Steps, View};

/// Beyond what is known to pass until a worker stopped a task by itself.
const MARGIN_MS: u64 = 5_000;

/// What becomes of a task on a silent node.
enum Verdict {
    Lost,
    Waits { why: String, until_ms: Option<u64> },
}

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    for (task, node) in silent(view) {
        match verdict(view, task, node) {
            Verdict::Lost => {
                if !steps.take_room() {
                    return;
                }
                steps.lose(task);
            }
            Verdict::Waits { why, until_ms } => {
                if let Some(at_ms) = until_ms {
                    steps.wake_at(at_ms);
                }
                if !task.fills_slot()
                    || task.status.details.message.as_deref() == Some(why.as_str())
                {
                    continue;
                }
                if !steps.take_room() {
                    return;
                }
                steps.change(Change::Explain { task: task.id, message: why.into() });
            }
        }
    }
}

/// Of a removed service nothing is waited for, since nothing will take its place.
pub(crate) fn give_up(view: &View<'_>, steps: &mut Steps) {
    for (task, _) in silent(view) {
        if !steps.take_room() {
            return;
        }
        steps.lose(task);
    }
}

/// Tasks that may run on nodes that are not heard.
fn silent<'a>(view: &'a View<'_>) -> impl Iterator<Item = (&'a Task, &'a Node)> {
    view.slots
        .iter()
        .flat_map(|slot| slot.tasks())
        .filter(|task| task.holds_resources())
        .filter_map(|task| Some((task, view.silent_node(task)?)))
}

fn verdict(view: &View<'_>, task: &Task, node: &Node) -> Verdict {
    let name = &node.name;
    let policy = view.service.disconnect_of(node.down_index);
    let until_ms = match policy {
        Disconnect::Replace => 0,
        Disconnect::Wait => {
            let why = format!("node {name} is down; waits for it (--on-disconnect wait)");
            return Verdict::Waits { why, until_ms: None };
        }
        Disconnect::StopAfter { after_ms } => stopped_at_ms(view, task, node, after_ms),
    };
    if let Disconnect::StopAfter { after_ms } = policy
        && view.now_ms < until_ms
    {
        let why = format!(
            "node {name} is down; waits until it has surely stopped the task (--on-disconnect \
             stop-after={after_ms}ms)"
        );
        return Verdict::Waits { why, until_ms: Some(until_ms) };
    }
    match view.storms.holds(node.id) {
        Some((why, until_ms)) => Verdict::Waits { why, until_ms },
        None => Verdict::Lost,
    }
}

/// When the worker has surely stopped the task by itself. It counts from when it last heard a
/// manager, which is before a manager last heard it, and the lease has been waited for already.
fn stopped_at_ms(view: &View<'_>, task: &Task, node: &Node, after_ms: u64) -> u64 {
    let takes_ms = view.service.task_spec(task.revision).map_or(0, |spec| {
        spec.container.stop_grace_period_ms.saturating_add(spec.drain_timeout_ms)
    });
    // The end of the lease may be written by the clock of a leader that is no more.
    let since_ms = node.state_since_ms.max(view.leads_since_ms);
    since_ms.saturating_add(after_ms).saturating_add(takes_ms).saturating_add(MARGIN_MS)
}
