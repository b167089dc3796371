//! What a plan may never do to a service that is being updated, whatever happened before.

use std::collections::BTreeSet;

use cluster_model::spec::Order;
use cluster_model::{
    Availability, Change, Desired, NewTask, Observed, Reason, RolloutState, Service, ServiceId,
    State, Task,
};

/// Looks at a plan that was taken whole.
pub fn check(before: &State, changes: &[Change], after: &State) {
    for service in after.services().filter(|service| !service.removed) {
        let Some(old) = before.service(service.id) else { continue };
        let moves = Moves::of(before, after, changes, service.id);
        check_lanes(&moves, after, service);
        check_start_first(&moves, after, service);
        check_canaries(&moves, before, old, service);
        check_pause(&moves, old, service);
    }
}

/// What the plan does to one service for the sake of its update.
struct Moves<'a> {
    /// Tasks that are stopped for a newer revision, as they were, and whether they ran.
    stopped: Vec<(&'a Task, bool)>,
    created: Vec<(u32, &'a NewTask)>,
}

impl<'a> Moves<'a> {
    fn of(before: &'a State, after: &State, changes: &'a [Change], id: ServiceId) -> Self {
        let mut moves = Self { stopped: Vec::new(), created: Vec::new() };
        for change in changes {
            match change {
                Change::SetDesired {
                    task: stopped,
                    desired: Desired::Shutdown,
                    reason: Reason::Update,
                } => {
                    let task = before.task(*stopped).filter(|task| task.service == id);
                    // What is given up for lost in the same plan did not run.
                    let runs = after
                        .task(*stopped)
                        .is_some_and(|task| task.status.state == Observed::Running);
                    moves.stopped.extend(task.map(|task| (task, runs && up(task))));
                }
                Change::CreateTasks { service, revision, tasks, .. } if *service == id => {
                    moves.created.extend(tasks.iter().map(|task| (*revision, task)));
                }
                _ => {}
            }
        }
        moves
    }

    fn stopped_up(&self) -> impl Iterator<Item = &'a Task> {
        self.stopped.iter().filter(|(_, ran)| *ran).map(|(task, _)| *task)
    }
}

fn up(task: &Task) -> bool {
    task.desired == Desired::Running && task.status.state == Observed::Running
}

/// Who begins to move finds a free lane. Slots that failed, or that were filled anew for another
/// reason, are no moves.
fn check_lanes(moves: &Moves<'_>, after: &State, service: &Service) {
    let current =
        |new: &&(u32, &NewTask)| new.0 == service.revision && new.1.reason == Reason::Update;
    let stopped: BTreeSet<u32> = moves.stopped.iter().map(|(task, _)| task.slot).collect();
    let began = |new: &NewTask| new.beside.is_some() || stopped.contains(&new.slot);
    let (moved, revived): (Vec<&NewTask>, Vec<&NewTask>) =
        moves.created.iter().filter(current).map(|(_, new)| *new).partition(|new| began(new));
    let tasks: Vec<&Task> = after.tasks_of_service(service.id).collect();
    let slots: BTreeSet<u32> = tasks.iter().map(|task| task.slot).collect();
    let slots = u32::try_from(slots.len()).expect("few");
    let lanes = service.update_policy().parallelism.of(slots);
    if moved.is_empty() || lanes == 0 || service.canaries() > 0 {
        return;
    }
    let flying = |task: &&&Task| {
        task.fills_slot()
            && task.revision == service.revision
            && task.reason == Reason::Update
            && task.restarts == 0
            && task.status.state < Observed::Running
    };
    let flying = tasks.iter().filter(flying).count();
    assert!(
        flying <= lanes as usize + revived.len(),
        "{flying} slots move in {lanes} lanes: {tasks:#?}"
    );
}

/// What runs is not stopped before the new task serves, unless the rollout says why. On a node that is
/// silent, and whose tasks are not given up because most nodes are, it serves nobody.
fn check_start_first(moves: &Moves<'_>, after: &State, service: &Service) {
    if service.update_policy().order != Order::StartFirst {
        return;
    }
    let told = service.rollout.as_ref().is_none_or(|rollout| rollout.state.is_over())
        || service.events.iter().any(|event| event.text.contains("replaced stop-first"));
    let heard = |task: &&Task| task.node.is_some_and(|node| !after.is_down(node));
    for task in moves.stopped_up().filter(|_| !told).filter(heard) {
        let served = after.tasks_of_slot(service.id, task.slot).any(Task::serves);
        assert!(served, "stopped before the new one serves: {task:#?} {service:#?}");
    }
}

/// Canaries cost no old task.
fn check_canaries(moves: &Moves<'_>, before: &State, old: &Service, service: &Service) {
    if old.canaries() == 0 || service.canaries() == 0 {
        return;
    }
    for task in moves.stopped_up() {
        let node = task.node.and_then(|node| before.node(node)).expect("it runs there");
        let leaves =
            node.spec.availability == Availability::Drain || !service.may_stay(task.revision, node);
        assert!(leaves, "stopped for a canary: {task:#?}");
    }
}

/// Nothing begins to move while a rollout is paused.
fn check_pause(moves: &Moves<'_>, old: &Service, service: &Service) {
    let paused = |service: &Service| {
        let state = service.rollout.as_ref().map(|rollout| rollout.state);
        matches!(state, Some(RolloutState::Paused | RolloutState::PausedByUser))
    };
    if !paused(old) || !paused(service) {
        return;
    }
    let begun = moves
        .created
        .iter()
        .find(|(revision, new)| *revision == service.revision && new.reason == Reason::Update);
    assert!(begun.is_none(), "moves while paused: {begun:?} {service:#?}");
}
