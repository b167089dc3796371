//! Tasks of silent nodes: when they are given up for lost, as their service's policy says, unless
//! a storm is on.
//!
//! Why a task is waited for is worked out when somebody asks ([`Held`]) and never written down: in a
//! storm that would be a write for each task of thousands of nodes, just when there is no time.

use cluster_model::spec::Disconnect;
use cluster_model::{Node, Service, State, Task};

use crate::pass::Now;
use crate::slots::{Steps, View};
use crate::storm::{Hold, Storms};

/// Beyond what is known to pass until a worker stopped a task by itself.
const MARGIN_MS: u64 = 5_000;

/// What becomes of a task on a silent node.
enum Verdict<'a> {
    Lost,
    Waits { why: Why<'a>, until_ms: Option<u64> },
}

/// Why a task on a silent node is waited for.
enum Why<'a> {
    /// Its service says so.
    Waits,
    /// Its node may not have stopped it yet.
    StopsItself {
        after_ms: u64,
    },
    Storm(Hold<'a>),
}

/// Says why tasks of silent nodes are not replaced, as things are in one view.
pub struct Held<'a> {
    state: &'a State,
    storms: Storms,
    now: Now,
}

impl<'a> Held<'a> {
    pub fn of(state: &'a State, now_ms: u64) -> Self {
        Self { state, storms: Storms::of(state, now_ms), now: now_ms.into() }
    }

    /// None: the task is not on a silent node, or is about to be replaced.
    pub fn why(&self, task: &Task) -> Option<String> {
        let node = task.node.filter(|node| self.state.is_down(*node))?;
        if !task.fills_slot() || !task.holds_resources() {
            return None;
        }
        let (node, service) = (self.state.node(node)?, self.state.service(task.service)?);
        let Verdict::Waits { why, .. } = verdict(service, &self.storms, self.now, task, node)
        else {
            return None;
        };
        let name = &node.name;
        Some(match why {
            Why::Waits => format!("node {name} is down; waits for it (--on-disconnect wait)"),
            Why::StopsItself { after_ms } => format!(
                "node {name} is down; waits until it has surely stopped the task (--on-disconnect \
                 stop-after={after_ms}ms)"
            ),
            Why::Storm(storm) => format!("node {name} is down with {storm}"),
        })
    }
}

pub(crate) fn plan(view: &View<'_>, steps: &mut Steps) {
    let now = Now { ms: view.now_ms, leads_since_ms: view.leads_since_ms };
    for (task, node) in silent(view) {
        match verdict(view.service, view.storms, now, task, node) {
            Verdict::Lost => {
                if !steps.take_room() {
                    return;
                }
                steps.lose(task);
            }
            Verdict::Waits { until_ms, .. } => {
                if let Some(at_ms) = until_ms {
                    steps.wake_at(at_ms);
                }
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

fn verdict<'a>(
    service: &Service,
    storms: &'a Storms,
    now: Now,
    task: &Task,
    node: &Node,
) -> Verdict<'a> {
    match service.disconnect_of(node.down_index) {
        Disconnect::Replace => {}
        Disconnect::Wait => return Verdict::Waits { why: Why::Waits, until_ms: None },
        Disconnect::StopAfter { after_ms } => {
            let until_ms = stopped_at_ms(service, now, task, node, after_ms);
            if now.ms < until_ms {
                let why = Why::StopsItself { after_ms };
                return Verdict::Waits { why, until_ms: Some(until_ms) };
            }
        }
    }
    match storms.holds(node) {
        Some(hold) => Verdict::Waits { until_ms: hold.ends_ms, why: Why::Storm(hold) },
        None => Verdict::Lost,
    }
}

/// When the worker has surely stopped the task by itself. It counts from when it last heard a
/// manager, which is before a manager last heard it, and the lease has been waited for already.
fn stopped_at_ms(service: &Service, now: Now, task: &Task, node: &Node, after_ms: u64) -> u64 {
    let takes_ms = service.task_spec(task.revision).map_or(0, |spec| {
        spec.container.stop_grace_period_ms.saturating_add(spec.drain_timeout_ms)
    });
    // The end of the lease may be written by the clock of a leader that is no more.
    let since_ms = node.state_since_ms.max(now.leads_since_ms);
    since_ms.saturating_add(after_ms).saturating_add(takes_ms).saturating_add(MARGIN_MS)
}
