//! Workers that fall silent, and leaders that die.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Cluster, Known, LEASE, eventually};

#[tokio::test]
async fn a_silent_worker_is_replaced_and_told_when_it_is_back() {
    let cluster = Cluster::new().await;
    let manager = &cluster.managers[0];
    let silent = cluster.worker("worker-1").await;
    let mut first = silent.ready(manager).await;
    let id = cluster.service("web", 1, 8080).await;
    let lost = first.run(1).await.remove(0);
    let mut second = cluster.worker("worker-2").await.ready(manager).await;

    first.fall_silent();
    let begun = Instant::now();
    second.until("the replacement", |known| known.assignments.len() == 1).await;
    assert!(begun.elapsed() >= LEASE / 2, "it is believed alive for its lease");
    assert!(begun.elapsed() < LEASE * 2, "took {:?}", begun.elapsed());
    assert_eq!(cluster.node(0, "worker-1").await.state, "down");
    let tasks = cluster.tasks(0, &id).await;
    let old = tasks.iter().find(|task| task.id == lost).unwrap();
    assert_eq!(old.observed_state, "lost");

    // Its session is still open: one word makes it ready again and its stale task stops.
    first.acknowledge(0).await;
    first.until("the stale task's end", |known| known.desired(&lost) == Some("shutdown")).await;
    eventually("the node to be ready", async || {
        (cluster.node(0, "worker-1").await.state == "ready").then_some(())
    })
    .await;
}

#[tokio::test]
async fn sessions_outlive_their_leader_and_losses_are_noticed_across_it() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader(0).await.unwrap();
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    let stays = cluster.worker("worker-1").await;
    let (silent, unknown) = (cluster.worker("worker-2").await, cluster.worker("worker-3").await);
    let mut first = stays.ready(&cluster.managers[others[0]]).await;
    let mut second = silent.ready(&cluster.managers[others[1]]).await;
    // Only the leader ever heard this one.
    let mut third = unknown.ready(&cluster.managers[leader]).await;
    for name in ["worker-1", "worker-2", "worker-3"] {
        eventually("ready nodes", async || {
            (cluster.node(others[0], name).await.state == "ready").then_some(())
        })
        .await;
    }
    first.until("all managers", |known| known.managers.len() == 3).await;
    cluster.service("web", 3, 8080).await;
    let kept = first.run(1).await;
    second.run(1).await;
    third.run(1).await;

    second.fall_silent();
    third.fall_silent();
    cluster.managers[leader].kill();
    let begun = Instant::now();
    first.until("the replacements", |known| known.assignments.len() == 3).await;
    let took = begun.elapsed();
    assert!(took >= LEASE / 2, "took only {took:?}");
    assert!(took < LEASE + Duration::from_secs(1), "took {took:?}");
    assert_eq!(first.heard.desired(&kept[0]), Some("running"));
    for (name, state) in [("worker-1", "ready"), ("worker-2", "down"), ("worker-3", "down")] {
        assert_eq!(cluster.node(others[0], name).await.state, state, "{name}");
    }

    // The dead manager can be taken out, and workers hear of it.
    let name = format!("manager-{}", leader + 1);
    let remove = cluster_pb::control::v1::RemoveNodeRequest { node: name, force: false };
    cluster.control(others[0]).remove_node(remove).await.unwrap();
    first.until("news of the managers", |known| known.managers.len() == 2).await;
}

#[tokio::test]
async fn a_manager_without_a_leader_lets_its_workers_go() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader(0).await.unwrap();
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    let worker = cluster.worker("worker-1").await;
    let mut session = worker.ready(&cluster.managers[others[0]]).await;
    // One of three left: no majority, no leader.
    cluster.managers[leader].kill();
    cluster.managers[others[1]].kill();
    let begun = Instant::now();
    session.end().await;
    assert!(begun.elapsed() < LEASE, "took {:?}", begun.elapsed());
    // It may come back, and is kept for a while: there is no better manager.
    let mut again = worker.open(&cluster.managers[others[0]]).await;
    again.until("a welcome", |known| known.full).await;
}

#[tokio::test]
async fn a_manager_that_stood_still_blames_nobody() {
    let cluster = Cluster::new().await;
    let manager = &cluster.managers[0];
    let worker = cluster.worker("worker-1").await;
    let mut session = worker.ready(manager).await;
    cluster.service("web", 1, 8080).await;
    let task = session.run(1).await.remove(0);

    // What the worker says meanwhile takes its time to come through.
    session.fall_silent();
    manager.signal(Signal::SIGSTOP);
    // Longer than a lease, and shorter than a session outlives silence.
    tokio::time::sleep(LEASE * 3 / 2).await;
    manager.signal(Signal::SIGCONT);
    let wrong = "a worker that never was silent is taken for dead";
    let stopped = |known: &Known| known.desired(&task) != Some("running");
    session.never(LEASE / 4, wrong, stopped).await;
    session.speak_again();
    session.never(LEASE, wrong, stopped).await;
    assert_eq!(cluster.tasks(0, "web").await.len(), 1);
}

#[tokio::test]
async fn a_report_on_its_way_survives_the_leader() {
    // However long the election takes, the session is not given up before it is over.
    let mut cluster = Cluster::with_lease(3, LEASE * 10).await;
    let leader = cluster.leader(0).await.unwrap();
    let other = (leader + 1) % 3;
    let worker = cluster.worker("worker-1").await;
    let mut session = worker.ready(&cluster.managers[other]).await;
    cluster.service("web", 1, 8080).await;
    session.until("an assignment", |known| known.assignments.len() == 1).await;
    let task = session.heard.assignments.keys().next().unwrap().clone();
    cluster.managers[leader].kill();
    session.becomes(&task, "running").await;
    assert_eq!(cluster.tasks(other, "web").await[0].observed_state, "running");
}
