//! Steps of plans: what is stale is refused.

use super::fixture::{Fixture, WEB, new_task, spec};
use crate::command::{Change, Command, NewTask, Reply};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::node::{Availability, NodeSpec};
use crate::spec::{Mode, Resources, ServiceSpec};
use crate::task::{Desired, Observed, Reason};

#[test]
fn a_slot_takes_one_task_and_a_plan_counts_the_rest() {
    let mut fixture = Fixture::web();
    let tasks = vec![
        new_task(1, Desired::Running),
        new_task(1, Desired::Ready),
        new_task(2, Desired::Shutdown),
        new_task(2, Desired::Running),
    ];
    let create = Change::CreateTasks { service: WEB, revision: 1, base: TaskId(10), tasks };
    let plan = Command::Plan { at_ms: 5, changes: vec![create] };
    assert_eq!(fixture.apply(plan.clone()), Ok(Reply::Counted { taken: 2, refused: 2 }));
    assert_eq!((fixture.task(10).slot, fixture.task(13).slot), (1, 2));
    assert_eq!(fixture.apply(plan), Ok(Reply::Counted { taken: 0, refused: 4 }));
}

#[test]
fn tasks_need_a_service_and_a_revision_that_are_there() {
    let mut fixture = Fixture::web();
    let create = |service, revision| Change::CreateTasks {
        service,
        revision,
        base: TaskId(10),
        tasks: vec![new_task(1, Desired::Running)],
    };
    assert!(!fixture.change(create(ServiceId(9), 1)));
    assert!(!fixture.change(create(WEB, 2)));
    fixture.running(10, 1, 1);
    fixture.apply(Command::RemoveService { id: WEB, at_ms: 6, version: None }).expect("removed");
    let late = Change::CreateTasks {
        service: WEB,
        revision: 1,
        base: TaskId(20),
        tasks: vec![new_task(2, Desired::Running)],
    };
    assert!(!fixture.change(late));
}

/// A plan that was made for a service of another mode under the same id.
#[test]
fn slots_belong_to_nodes_in_global_modes_and_only_there() {
    let owned = |slot| NewTask { target: Some(NodeId(1)), ..new_task(slot, Desired::Running) };
    let mut fixture = Fixture::web();
    assert!(!fixture.add(10, owned(1)), "a replica may run anywhere");
    assert!(fixture.add(11, new_task(1, Desired::Running)));
    let every = ServiceId(2);
    fixture.create(every, ServiceSpec { mode: Mode::Global, ..spec("every", &[]) }).expect("made");
    let mut offer = |base, task| {
        let (base, tasks) = (TaskId(base), vec![task]);
        fixture.change(Change::CreateTasks { service: every, revision: 1, base, tasks })
    };
    assert!(!offer(20, new_task(1, Desired::Running)), "no node was named");
    assert!(offer(21, owned(1)));
}

#[test]
fn a_task_is_told_to_run_only_when_its_slot_is_quiet() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    assert!(fixture.desire(10, Desired::Shutdown));
    assert!(!fixture.add(11, new_task(1, Desired::Running)), "the old one may still run");
    assert!(fixture.add(11, new_task(1, Desired::Ready)));
    assert!(fixture.assign(11, 2));
    assert!(!fixture.desire(11, Desired::Running));
    assert!(fixture.report(1, 10, Observed::Shutdown));
    assert!(fixture.desire(11, Desired::Running));
    assert!(!fixture.desire(11, Desired::Running), "only forward");
    assert!(!fixture.desire(11, Desired::Ready));
}

#[test]
fn a_lost_task_does_not_keep_its_successor_waiting() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    assert!(fixture.desire(10, Desired::Shutdown));
    assert!(fixture.add(11, new_task(1, Desired::Ready)));
    assert!(fixture.node_down(1));
    assert!(fixture.desire(11, Desired::Running));
}

#[test]
fn assignments_are_checked_again() {
    let mut fixture = Fixture::web();
    for (task, slot) in [(10, 1), (11, 2), (12, 3), (13, 4)] {
        assert!(fixture.add(task, new_task(slot, Desired::Running)));
    }
    assert!(!fixture.assign(10, 9), "no such node");
    assert!(fixture.assign(10, 1));
    assert!(!fixture.assign(10, 2), "a task never moves");
    assert!(fixture.assign(11, 1));
    assert!(!fixture.assign(12, 1), "two cores hold two tasks");
    assert!(fixture.report(1, 11, Observed::Failed));
    assert!(fixture.assign(12, 1), "what ended holds nothing");
    let reserved = fixture.state.usage(NodeId(1)).reserved;
    assert_eq!(reserved, Resources { cpu_nanos: 2_000_000_000, memory_bytes: 128 << 20 });

    let version = fixture.state.node(NodeId(2)).expect("known").version;
    let spec = NodeSpec { availability: Availability::Pause, ..NodeSpec::default() };
    let pause = Command::UpdateNode { id: NodeId(2), version, spec, at_ms: 6 };
    fixture.apply(pause).expect("updated");
    assert!(!fixture.assign(13, 2), "it takes no new tasks");
    assert!(fixture.desire(13, Desired::Shutdown));
    assert!(!fixture.assign(13, 1), "nobody wants it any more");
}

#[test]
fn constraints_are_checked_again() {
    let mut fixture = Fixture::web();
    fixture
        .update(WEB, |spec| {
            spec.task.placement.constraints =
                vec!["node.hostname==node-2".parse().expect("parses")];
        })
        .expect("updated");
    let create = Change::CreateTasks {
        service: WEB,
        revision: 2,
        base: TaskId(10),
        tasks: vec![new_task(1, Desired::Running)],
    };
    assert!(fixture.change(create));
    assert!(!fixture.assign(10, 1));
    assert!(fixture.assign(10, 2));
}

#[test]
fn an_unplaced_task_ends_when_it_is_not_wanted_and_goes_when_removed() {
    let mut fixture = Fixture::web();
    assert!(fixture.add(10, new_task(1, Desired::Running)));
    assert!(fixture.add(11, new_task(2, Desired::Running)));
    assert!(fixture.desire(10, Desired::Shutdown));
    assert_eq!(fixture.task(10).status.state, Observed::Shutdown);
    assert_eq!(fixture.task(10).reason, Reason::ScaleDown);
    assert!(fixture.desire(11, Desired::Remove));
    assert!(fixture.state.task(TaskId(11)).is_none());
    assert_eq!(fixture.state.unassigned_tasks().count(), 0);
}

#[test]
fn only_what_is_over_is_deleted() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    let delete = Change::Delete { task: TaskId(10) };
    assert!(!fixture.change(delete.clone()));
    assert!(fixture.report(1, 10, Observed::Failed));
    assert!(fixture.desire(10, Desired::Shutdown));
    assert!(fixture.change(delete.clone()));
    assert!(!fixture.change(delete));
    assert_eq!(fixture.state.tasks_of_slot(WEB, 1).count(), 0);
    assert_eq!(fixture.state.tasks_of_node(NodeId(1)).count(), 0);
}

#[test]
fn explanations_stay_until_a_node_is_found() {
    let mut fixture = Fixture::web();
    assert!(fixture.add(10, new_task(1, Desired::Running)));
    let explain = Change::Explain { task: TaskId(10), message: "no room".into() };
    assert!(fixture.change(explain.clone()));
    assert_eq!(fixture.task(10).status.details.message.as_deref(), Some("no room"));
    assert!(fixture.assign(10, 1));
    assert_eq!(fixture.task(10).status.details.message, None);
    assert!(!fixture.change(explain));
}
