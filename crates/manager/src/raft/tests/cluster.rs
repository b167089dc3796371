use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cluster_model::{NodeId, Refusal};
use futures::future::join_all;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::fixture::{CLUSTER, Group, bootstrap, connector, within, write};
use crate::raft::{ProposeError, RaftConfig, RaftNode, StartError, StorageError};

fn as_is(_: &mut RaftConfig) {}

#[tokio::test(flavor = "multi_thread")]
async fn any_manager_takes_writes_and_reads_see_them() {
    let group = Group::start(3, as_is).await;
    let mut number = 100;
    for manager in &group.managers {
        number += 1;
        let done = manager.node().propose(write(number)).await.unwrap();
        // The writer's own manager shows the write at once.
        assert!(manager.node().view().state.node(NodeId(number)).is_some());
        for reader in &group.managers {
            let view = reader.node().read_index().await.unwrap();
            assert!(view.applied_index >= done.index);
            assert!(view.state.node(NodeId(number)).is_some());
        }
    }
    let again = group.managers[2].node().propose(write(number)).await;
    assert!(matches!(again, Err(ProposeError::Refused(Refusal::IdTaken(_)))), "{again:?}");
    let index = group.managers[0].node().view().applied_index;
    group.agree_at(index).await;
    assert_eq!(group.managers[1].node().members().iter().filter(|member| member.voter).count(), 3);
    let repeated = group.managers[0].node().bootstrap(bootstrap()).await;
    assert!(repeated.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_proposals_are_all_applied() {
    let group = Group::start(3, as_is).await;
    let writes = (0..600u64).map(|i| {
        let node = group.managers[(i % 3) as usize].node().clone();
        async move { node.propose(write(1000 + i)).await }
    });
    for done in join_all(writes).await {
        done.unwrap();
    }
    let view = group.managers[1].node().read_index().await.unwrap();
    assert_eq!(view.state.node_count(), 600);
    group.agree_at(view.applied_index).await;
}

/// Writes on and on through a manager; returns what was acknowledged.
fn writer(
    node: RaftNode,
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<Vec<u64>> {
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if node.propose(write(number)).await.is_ok() {
                acknowledged.push(number);
            }
        }
        acknowledged
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_under_way_when_a_leader_dies_are_answered_and_done_once() {
    let mut group = Group::start(3, as_is).await;
    for round in 0..3 {
        let leader = group.leader().await;
        let follower = (leader + 1) % 3;
        let node = group.managers[follower].node().clone();
        let numbers: Vec<u64> = (0..200).map(|number| 1000 + round * 1000 + number).collect();
        let writes: Vec<_> = numbers
            .iter()
            .map(|number| {
                let (node, command) = (node.clone(), write(*number));
                tokio::spawn(async move { node.propose(command).await })
            })
            .collect();
        // Some are answered, some are on their way.
        let first = NodeId(numbers[0]);
        let seen = || node.view().state.node(first).is_some().then_some(());
        within(Duration::from_secs(10), seen).await.unwrap();
        group.managers[leader].kill().await;
        for (number, done) in numbers.iter().zip(join_all(writes).await) {
            let done = done.unwrap();
            assert!(done.is_ok(), "write {number}: {done:?}");
            assert!(node.view().state.node(NodeId(*number)).is_some(), "{number} is missing");
        }
        group.managers[leader].start().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_cannot_be_reached_is_not_asked_without_a_pause() {
    let mut group = Group::start(3, as_is).await;
    let leader = group.leader().await;
    let dead = (leader + 1) % 3;
    group.managers[dead].kill().await;
    // Closes every connection at once, so that no attempt takes any time.
    let closing = TcpListener::bind(group.managers[dead].address).await.unwrap();
    let attempts = Arc::new(AtomicU64::new(0));
    let counted = attempts.clone();
    let refusing = tokio::spawn(async move {
        while closing.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    // Something to be sent to it.
    group.managers[leader].node().propose(write(1000)).await.unwrap();
    let more = || (attempts.load(Ordering::Relaxed) > 3).then_some(());
    within(Duration::from_secs(10), more).await.expect("it is not asked at all");
    let before = attempts.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = attempts.load(Ordering::Relaxed);
    // Appends twenty times, and heartbeats and votes of both others ten times each.
    assert!(after - before < 100, "{} attempts in a second", after - before);
    refusing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_no_acknowledged_write_is_lost() {
    let mut group = Group::start(3, as_is).await;
    let next = Arc::new(AtomicU64::new(1000));
    let mut kept = Vec::new();
    for _ in 0..3 {
        let stop = Arc::new(AtomicBool::new(false));
        let leader = group.leader().await;
        let writers: Vec<_> = group
            .running()
            .filter(|manager| manager.id != group.managers[leader].id)
            .flat_map(|manager| {
                (0..4).map(|_| writer(manager.node().clone(), next.clone(), stop.clone()))
            })
            .collect();
        let before = next.load(Ordering::Relaxed);
        within(Duration::from_secs(10), || {
            (next.load(Ordering::Relaxed) > before + 50).then_some(())
        })
        .await
        .unwrap();
        group.managers[leader].kill().await;
        let killed = Instant::now();
        let other = group.running().next().unwrap().node().clone();
        while other.propose(write(next.fetch_add(1, Ordering::Relaxed))).await.is_err() {}
        let outage = killed.elapsed();
        eprintln!("a write was acknowledged {outage:?} after the leader was killed");
        assert!(outage < Duration::from_secs(3), "{outage:?}");
        stop.store(true, Ordering::Relaxed);
        for done in join_all(writers).await {
            kept.extend(done.unwrap());
        }
        group.managers[leader].start().await;
    }
    // Power goes everywhere.
    for manager in &mut group.managers {
        manager.kill().await;
    }
    for manager in &mut group.managers {
        manager.start().await;
    }
    let leader = group.leader().await;
    let view = group.managers[(leader + 1) % 3].node().read_index().await.unwrap();
    let lost: Vec<_> =
        kept.iter().filter(|number| view.state.node(NodeId(**number)).is_none()).collect();
    assert!(
        !kept.is_empty() && lost.is_empty(),
        "{} of {} acknowledged writes are lost",
        lost.len(),
        kept.len()
    );
    group.agree_at(view.applied_index).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_catches_up_from_a_snapshot() {
    let mut group = Group::start(3, |config| {
        config.snapshot_every = 60;
        config.keep_entries = 20;
        config.log.segment_bytes = 8192;
        config.log.cache_bytes = 4096;
    })
    .await;
    let leader = group.leader().await;
    let away = (leader + 1) % 3;
    group.managers[away].kill().await;
    for number in 1000..1400 {
        group.managers[leader].node().propose(write(number)).await.unwrap();
    }
    let purged = within(Duration::from_secs(10), || {
        let status = group.managers[leader].node().status();
        status.purged.filter(|purged| *purged > 100 && status.snapshot.is_some())
    });
    purged.await.expect("the log was not purged");
    group.managers[away].start().await;
    let index = group.managers[leader].node().propose(write(2000)).await.unwrap().index;
    assert!(group.managers[away].node().wait_applied(index, Duration::from_secs(10)).await);
    assert!(group.managers[away].node().status().snapshot.is_some());
    group.agree_at(index).await;

    // And it starts from what it was sent.
    group.managers[away].kill().await;
    group.managers[away].start().await;
    group.agree_at(index).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn few_large_commands_make_a_snapshot_too() {
    let group = Group::start(1, |config| config.snapshot_bytes = 500).await;
    let leader = group.leader().await;
    let node = group.managers[leader].node();
    assert!(node.status().snapshot.is_none());
    for number in 1000..1100 {
        node.propose(write(number)).await.unwrap();
    }
    let saved = within(Duration::from_secs(10), || node.status().snapshot);
    saved.await.expect("no snapshot was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_saved_once_it_is_over() {
    // Each command is some ten bytes.
    let group = Group::start(1, |config| config.snapshot_bytes = 16_000).await;
    let leader = group.leader().await;
    let node = group.managers[leader].node();
    for number in 1000..1200 {
        node.propose(write(number)).await.unwrap();
    }
    let all = || node.status().snapshot.filter(|index| *index >= 200);
    within(Duration::from_secs(20), all).await.expect("no snapshot of all was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_calls_fail_in_time_and_say_why() {
    let mut group = Group::start(3, as_is).await;
    let leader = group.leader().await;
    for other in [(leader + 1) % 3, (leader + 2) % 3] {
        group.managers[other].kill().await;
    }
    let alone = group.managers[leader].node();
    for number in 0..2 {
        let start = Instant::now();
        let error = alone.propose(write(5000 + number)).await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert!(error.to_string().contains("majority"), "{error}");
    }
    let start = Instant::now();
    let error = alone.read_index().await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(error.to_string().contains("majority"), "{error}");
    // What is stale may still be read, and it does not claim to lead.
    assert!(alone.view().state.cluster().is_some());
    let leadership = alone.leadership();
    let resigned = within(Duration::from_secs(5), || {
        (!leadership.borrow().this_node_leads_and_caught_up).then_some(())
    });
    resigned.await.expect("it still claims to lead");

    group.managers[(leader + 1) % 3].start().await;
    let leader = group.leader().await;
    group.managers[leader].node().propose(write(6000)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_come_and_go() {
    let group = Group::start(3, as_is).await;
    let leader = group.leader().await;
    let follower = group.managers[(leader + 1) % 3].node();
    // The leader itself, asked for through a follower.
    follower.remove_manager(group.managers[leader].id).await.unwrap();
    let rest = within(Duration::from_secs(10), || {
        let heads = follower.leadership().borrow().leader.clone();
        heads.filter(|(id, _)| *id != group.managers[leader].id)
    });
    rest.await.expect("no new leader");
    follower.propose(write(9000)).await.unwrap();
    assert_eq!(follower.members().len(), 2);
    // Repeating it does nothing.
    follower.remove_manager(group.managers[leader].id).await.unwrap();

    let learning = follower.add_manager(NodeId(99), "127.0.0.1:1", false);
    let early = tokio::time::timeout(Duration::from_millis(300), learning).await;
    assert!(early.is_err(), "a manager that never answered was added: {early:?}");
    follower.propose(write(9001)).await.expect("a learner that does not answer costs no majority");
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_can_be_handed_over() {
    let group = Group::start(3, as_is).await;
    let leader = group.leader().await;
    let heir = (leader + 1) % 3;
    group.managers[leader].node().transfer_leadership(group.managers[heir].id).await.unwrap();
    let took = within(Duration::from_secs(5), || {
        group.managers[heir]
            .node()
            .leadership()
            .borrow()
            .this_node_leads_and_caught_up
            .then_some(())
    });
    took.await.expect("the heir did not take over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_serves_one_manager_of_one_cluster() {
    let mut group = Group::start(1, as_is).await;
    let config = group.managers[0].config.clone();
    assert!(RaftNode::has_state(&*config.disk, &config.dir).unwrap());
    assert!(!RaftNode::has_state(&*config.disk, &group.dir.path().join("nothing")).unwrap());
    let second = RaftNode::start(config.clone(), connector()).await.map(|_| ());
    assert!(matches!(second, Err(StartError::Storage(StorageError::InUse { .. }))), "{second:?}");
    group.managers[0].kill().await;
    let mut foreign = config;
    foreign.cluster_id.0 = CLUSTER.0 + 1;
    let other = RaftNode::start(foreign, connector()).await.map(|_| ());
    assert!(
        matches!(other, Err(StartError::Storage(StorageError::OtherCluster { .. }))),
        "{other:?}"
    );
    group.managers[0].start().await;
    group.managers[0].node().propose(write(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_end_frees_the_folder_and_keeps_everything() {
    let mut group = Group::start(1, as_is).await;
    group.managers[0].node().propose(write(1)).await.unwrap();
    group.managers[0].node().shutdown().await;
    group.managers[0].kill().await;
    group.managers[0].start().await;
    let view = group.managers[0].node().read_index().await.unwrap();
    assert!(view.state.node(NodeId(1)).is_some());
}

/// Figures, not a check: run with `--ignored --nocapture`, in release.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn measure() {
    let mut group = Group::start(3, as_is).await;
    let mut number = 1 << 20;
    for clients in [1usize, 16, 64, 256] {
        let leader = group.leader().await;
        let start = Instant::now();
        let each = 4000 / clients;
        let base = number;
        number += 4000;
        let clients_done = (0..clients).map(|client| {
            let node = group.managers[leader].node().clone();
            tokio::spawn(async move {
                for i in 0..each {
                    node.propose(write(base + (client * each + i) as u64)).await.unwrap();
                }
            })
        });
        join_all(clients_done).await;
        let rate = (each * clients) as f64 / start.elapsed().as_secs_f64();
        eprintln!("{clients} clients: {rate:.0} writes/s");
    }
    let mut outages = Vec::new();
    for _ in 0..15 {
        let leader = group.leader().await;
        group.managers[leader].kill().await;
        let killed = Instant::now();
        let other = group.running().next().unwrap().node().clone();
        loop {
            number += 1;
            if other.propose(write(number)).await.is_ok() {
                break;
            }
        }
        outages.push(killed.elapsed());
        group.managers[leader].start().await;
        let index = other.view().applied_index;
        group.agree_at(index).await;
    }
    outages.sort();
    eprintln!("failover: min {:?} median {:?} max {:?}", outages[0], outages[7], outages[14]);
}
