//! Sessions of workers: what they are told, in which order, and when they end.

use std::time::Duration;

use cluster_pb::control::v1 as control;
use cluster_wire::Code;
use cluster_wire::error::code_of;

use crate::harness::{Cluster, Known, eventually};

#[tokio::test]
async fn a_task_is_assigned_reported_and_published() {
    let cluster = Cluster::new().await;
    let worker = cluster.worker("worker-1").await;
    let mut session = worker.ready(&cluster.managers[0]).await;
    let welcome = session.heard.welcome.clone().expect("welcome comes first");
    assert_eq!((welcome.node_name.as_str(), welcome.lease_ms), ("worker-1", 1500));
    assert_eq!(session.heard.managers, [cluster.managers[0].address.clone()]);

    let id = cluster.service("web", 1, 8080).await;
    session.until("an assignment", |known| known.assignments.len() == 1).await;
    let assignment = session.heard.assignments.values().next().unwrap().clone();
    assert_eq!((assignment.desired_state.as_str(), assignment.slot), ("running", 1));
    assert_eq!(assignment.target_ports, [8080]);
    let container = assignment.spec.unwrap().container.unwrap();
    assert_eq!(container.image, "web:1");
    assert!(session.heard.backends[&id].is_empty(), "it does not run yet");

    let sequence = session.heard.sequence;
    session.becomes(&assignment.task_id, "starting").await;
    session.becomes(&assignment.task_id, "running").await;
    session.until("the backend", |known| known.backends[&id].len() == 1).await;
    assert_eq!(session.heard.sequence, sequence, "a report changes nothing that is assigned");
    let task = cluster.tasks(0, "web").await.remove(0);
    assert_eq!((task.observed_state.as_str(), task.node_id), ("running", worker.id.clone()));

    // The same again from a new session: a full set, and no doubt about repeated reports.
    let mut second = worker.ready(&cluster.managers[0]).await;
    let status = session.end().await;
    assert_eq!(code_of(&status), Some(Code::Stopping));
    assert_eq!(second.heard.desired(&assignment.task_id), Some("running"));
    assert_eq!(second.heard.backends[&id].len(), 1);
    second.becomes(&assignment.task_id, "starting").await;
    second.becomes(&assignment.task_id, "running").await;
    second.becomes(&assignment.task_id, "failed").await;
    second.until("a successor", |known| known.assignments.len() == 2).await;
    second.until("the endpoints", |known| known.backends[&id].is_empty()).await;

    let remove = control::RemoveServiceRequest { service: id.clone(), version: None };
    cluster.control(0).remove_service(remove).await.unwrap();
    second.until("the endpoints to go", |known| !known.backends.contains_key(&id)).await;
    let removal = |known: &Known| known.assignments.values().all(|t| t.desired_state == "remove");
    second.until("removal", removal).await;
    let left: Vec<String> = second.heard.assignments.keys().cloned().collect();
    for task in left {
        second.becomes(&task, "shutdown").await;
    }
    second.until("nothing to be left", |known| known.assignments.is_empty()).await;
}

#[tokio::test]
async fn an_earlier_start_of_a_worker_is_fenced() {
    let cluster = Cluster::new().await;
    let mut worker = cluster.worker("worker-1").await;
    worker.boot = 2;
    let _session = worker.ready(&cluster.managers[0]).await;
    eventually("boot 2", async || {
        let node = cluster.node(0, "worker-1").await;
        (node.description.unwrap().boot == 2).then_some(())
    })
    .await;
    worker.boot = 1;
    let status = worker.open(&cluster.managers[0]).await.end().await;
    assert_eq!(code_of(&status), Some(Code::Stopping));
    assert_eq!(cluster.node(0, "worker-1").await.description.unwrap().boot, 2);
}

#[tokio::test]
async fn a_task_is_withdrawn_when_every_worker_has_said_so() {
    let cluster = Cluster::new().await;
    let manager = &cluster.managers[0];
    let (one, two) = (cluster.worker("worker-1").await, cluster.worker("worker-2").await);
    let (mut first, mut second) = (one.ready(manager).await, two.ready(manager).await);
    for name in ["worker-1", "worker-2"] {
        eventually("ready nodes", async || {
            (cluster.node(0, name).await.state == "ready").then_some(())
        })
        .await;
    }
    let id = cluster.service("web", 2, 8080).await;
    let mut tasks = first.run(1).await;
    tasks.extend(second.run(1).await);
    first.until("both backends", |known| known.backends[&id].len() == 2).await;

    cluster.scale(&id, 1).await;
    let leaving = |known: &Known| {
        known.assignments.values().find(|task| task.desired_state != "running").map(|t| t.withdrawn)
    };
    let gone = |known: &Known| known.backends[&id].len() == 1;
    first.until("the endpoints to shrink", gone).await;
    second.until("the endpoints to shrink", gone).await;
    // The assignment may come after the endpoints, to whichever worker has the task.
    let version = eventually("the withdrawal stamp", async || {
        for session in [&mut first, &mut second] {
            session.never(Duration::from_millis(20), "", |_| false).await;
        }
        leaving(&first.heard).or(leaving(&second.heard))
    })
    .await;
    assert!(version > 0);
    let first_waits = leaving(&first.heard).is_some();

    first.acknowledge(version).await;
    let early = "one worker still sends there";
    first.never(Duration::from_millis(400), early, |known| known.withdrawn >= version).await;
    assert!(second.heard.withdrawn < version);
    second.acknowledge(version).await;
    // Nobody else has to know.
    let waiting = if first_waits { &mut first } else { &mut second };
    waiting.until("the withdrawal", |known| known.withdrawn >= version).await;

    // Who was away meanwhile is told when it comes back.
    let mut third = two.open(manager).await;
    third.until("the withdrawal", |known| known.withdrawn >= version).await;
}
