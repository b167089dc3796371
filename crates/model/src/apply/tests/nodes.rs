//! The cluster object and nodes.

use super::fixture::{Fixture, WEB, new_task, spec};
use crate::cluster::{Cluster, Secret};
use crate::command::{Change, Command, Refusal, Reply};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::node::{Availability, NodeSpec, NodeState};
use crate::state::State;
use crate::task::{Desired, Observed};

pub(super) fn cluster() -> Command {
    Command::Bootstrap(Box::new(Cluster {
        name: "demo".into(),
        created_at_ms: 1,
        ca_key: Secret::new("key".into()),
        worker_token: Secret::new("worker".into()),
        manager_token: Secret::new("manager".into()),
        ..crate::testing::cluster(1)
    }))
}

#[test]
fn a_cluster_is_bootstrapped_once_and_edited_after() {
    let mut fixture = Fixture::default();
    let token = Command::SetWorkerToken(Secret::new("new".into()));
    assert_eq!(fixture.apply(token.clone()), Err(Refusal::NotBootstrapped));
    assert_eq!(fixture.apply(cluster()), Ok(Reply::Done));
    assert_eq!(fixture.apply(cluster()), Err(Refusal::AlreadyBootstrapped));
    assert_eq!(fixture.apply(token), Ok(Reply::Done));
    let cluster = fixture.state.cluster().expect("bootstrapped");
    assert_eq!((cluster.worker_token.expose(), cluster.version), ("new", fixture.index));
    assert!(!format!("{cluster:?}").contains("manager\""), "secrets are not printed");
}

#[test]
fn node_ids_and_names_are_taken_once() {
    let mut fixture = Fixture::web();
    let register =
        |id, name: &str| Command::RegisterNode { id: NodeId(id), name: name.into(), at_ms: 1 };
    let taken = Refusal::NameTaken { kind: "node".into(), name: "node-1".into() };
    assert_eq!(fixture.apply(register(3, "node-1")), Err(taken));
    let taken = Refusal::IdTaken(NodeId(1).to_string());
    assert_eq!(fixture.apply(register(1, "node-3")), Err(taken));
    assert!(matches!(fixture.apply(register(3, "node 3")), Err(Refusal::Invalid(_))));
}

#[test]
fn a_late_hello_of_an_earlier_start_changes_nothing() {
    let mut fixture = Fixture::web();
    fixture.hello(NodeId(1), 5).expect("ready");
    assert!(fixture.node_down(1));
    let before = fixture.state.clone();
    fixture.hello(NodeId(1), 4).expect("answered");
    assert_eq!(fixture.state, before);
    fixture.hello(NodeId(1), 5).expect("ready");
    assert_eq!(fixture.state.node(NodeId(1)).expect("known").state, NodeState::Ready);
}

#[test]
fn a_node_that_spoke_since_is_not_declared_down() {
    let mut fixture = Fixture::web();
    let version = fixture.state.node(NodeId(1)).expect("known").version;
    fixture.hello(NodeId(1), 2).expect("ready");
    let stale = Change::NodeDown { node: NodeId(1), version, message: "silent".into() };
    assert!(!fixture.change(stale));
    assert!(fixture.node_down(1));
    assert!(!fixture.node_down(1), "it is down already");
}

#[test]
fn the_tasks_of_a_node_that_is_down_are_lost_and_hold_nothing() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    fixture.running(11, 2, 2);
    assert!(fixture.node_down(1));
    assert_eq!(fixture.task(10).status.state, Observed::Lost);
    assert!(fixture.task(10).status.started_at_ms > 0);
    assert_eq!(fixture.task(11).status.state, Observed::Running);
    assert_eq!(fixture.state.usage(NodeId(1)).tasks, 0);
    assert_eq!(fixture.state.endpoints_version(), fixture.index);
    // The node comes back and says how it really ended.
    assert!(fixture.report(1, 10, Observed::Failed));
    assert!(!fixture.report(1, 10, Observed::Complete));
}

#[test]
fn a_ready_node_is_removed_by_force_alone() {
    let mut fixture = Fixture::web();
    fixture.running(10, 1, 1);
    let remove = |force| Command::RemoveNode { id: NodeId(1), force, at_ms: 7 };
    let refusal = Refusal::NodeReady { name: "node-1".into() };
    assert_eq!(fixture.apply(remove(false)), Err(refusal));
    assert_eq!(fixture.apply(remove(true)), Ok(Reply::Done));
    assert_eq!(fixture.task(10).status.state, Observed::Lost);
    assert_eq!(fixture.state.node_named("node-1"), None);
    assert!(matches!(fixture.apply(remove(true)), Err(Refusal::NotFound { .. })));
    assert!(!fixture.report(2, 10, Observed::Failed), "another node has no say");
    assert_eq!(fixture.state.service(WEB).map(|service| service.removed), Some(false));
}

#[test]
fn an_update_of_a_node_needs_the_version_that_was_read() {
    let mut fixture = Fixture::web();
    let read = fixture.state.node(NodeId(1)).expect("known").version;
    let spec = NodeSpec { availability: Availability::Drain, ..NodeSpec::default() };
    let update =
        |version| Command::UpdateNode { id: NodeId(1), version, spec: spec.clone(), at_ms: 7 };
    fixture.apply(update(read)).expect("updated");
    let current = fixture.index;
    let moved = Refusal::VersionMoved { kind: "node".into(), read, current };
    assert_eq!(fixture.apply(update(read)), Err(moved));
    assert!(!fixture.state.node(NodeId(1)).expect("known").accepts_tasks());
}

/// Every worker is told of every change of endpoints, so only backends and ports make one.
#[test]
fn what_has_no_backends_changes_no_endpoints() {
    let mut fixture = Fixture::web();
    let before = fixture.state.endpoints_version();
    fixture.join(NodeId(3));
    assert!(fixture.node_down(3));
    fixture.hello(NodeId(3), 2).expect("ready again");
    fixture.create(ServiceId(2), spec("plain", &[])).expect("created");
    let remove = Command::RemoveService { id: ServiceId(2), version: None, at_ms: 1 };
    fixture.apply(remove).expect("removed");
    assert_eq!(fixture.state.endpoints_version(), before);

    // A backend's node goes and comes.
    fixture.running(1, 1, 1);
    let serving = fixture.state.endpoints_version();
    assert!(serving > before);
    let version = fixture.state.node(NodeId(1)).expect("known").version;
    let silent = Change::NodeDown { node: NodeId(1), version, message: "silent".into() };
    assert!(fixture.change(silent));
    let down = fixture.state.endpoints_version();
    assert!(down > serving);
    fixture.hello(NodeId(1), 2).expect("ready again");
    assert!(fixture.state.endpoints_version() > down);
}

#[test]
fn a_node_knows_the_services_of_its_tasks() {
    let mut fixture = Fixture::web();
    fixture.running(11, 1, 1);
    let (base, tasks) = (TaskId(12), vec![new_task(1, Desired::Running)]);
    let other = ServiceId(2);
    fixture.create(other, spec("other", &[])).expect("created");
    assert!(fixture.change(Change::CreateTasks { service: other, revision: 1, base, tasks }));
    assert!(fixture.assign(12, 1));
    let of = |state: &State, node| state.services_of_node(NodeId(node)).into_iter().collect();
    let none: Vec<ServiceId> = Vec::new();
    assert_eq!((of(&fixture.state, 1), of(&fixture.state, 2)), (vec![WEB, other], none.clone()));
    let published = |service| service == WEB;
    let tasks: Vec<TaskId> =
        fixture.state.tasks_of_node_in(NodeId(1), published).map(|task| task.id).collect();
    assert_eq!(tasks, [TaskId(11)]);
    // What is over and not to be remembered is gone from here, too.
    for task in [11, 12] {
        assert!(fixture.desire(task, Desired::Remove));
    }
    assert!(fixture.report(1, 11, Observed::Shutdown) && fixture.report(1, 12, Observed::Rejected));
    assert_eq!(of(&fixture.state, 1), none);
}
