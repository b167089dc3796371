use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::fixture::{Group, within, write};

/// Writes under way and those that follow are all answered while the leader hands over.
#[tokio::test(flavor = "multi_thread")]
async fn no_write_fails_while_the_leader_hands_over() {
    let group = Group::start(3, |_| {}).await;
    let next = Arc::new(AtomicU64::new(1000));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = group
        .managers
        .iter()
        .flat_map(|manager| {
            (0..4).map(|_| {
                let (node, next, stop) = (manager.node().clone(), next.clone(), stop.clone());
                tokio::spawn(async move {
                    let mut failed = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if let Err(error) = node.propose(write(number)).await {
                            failed.push(format!("{number}: {error}"));
                        }
                    }
                    failed
                })
            })
        })
        .collect();
    for _ in 0..3 {
        let before = next.load(Ordering::Relaxed);
        let some = || (next.load(Ordering::Relaxed) > before + 100).then_some(());
        within(Duration::from_secs(10), some).await.expect("writes go on");
        let leader = group.leader().await;
        let heir = group.managers[leader].node().hand_over().await.expect("somebody takes over");
        assert_ne!(heir, group.managers[leader].id);
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        assert_eq!(writer.await.unwrap(), Vec::<String>::new());
    }
    let follower = (group.leader().await + 1) % 3;
    assert_eq!(group.managers[follower].node().hand_over().await, None, "it does not lead");
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_are_given_taken_and_swapped() {
    let group = Group::strangers(4, |_| {}).await;
    let first = group.managers[0].node();
    first.bootstrap(super::fixture::bootstrap()).await.unwrap();
    let address = |at: usize| group.managers[at].address.to_string();
    let id = |at: usize| group.managers[at].id;
    first.add_manager(id(1), &address(1), false).await.unwrap();
    first.add_manager(id(2), &address(2), true).await.unwrap();
    first.add_manager(id(3), &address(3), true).await.unwrap();
    let voters = || {
        let members = first.members();
        members
            .into_iter()
            .filter(|member| member.voter)
            .map(|member| member.id.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(voters(), [1, 2]);
    let seats = first.seats().expect("it leads");
    assert_eq!(seats.len(), 4);
    let heard = || {
        let seats = first.seats()?;
        seats.iter().all(|seat| seat.silent.is_some() && seat.lag == 0).then_some(())
    };
    within(Duration::from_secs(5), heard).await.expect("all are heard, spares too");
    assert_eq!(group.managers[1].node().seats(), None, "only the leader knows");
    first.promote_here(id(2)).await.unwrap();
    assert_eq!(voters(), [1, 2, 3]);
    first.swap_here(id(3), id(2)).await.unwrap();
    assert_eq!(voters(), [1, 2, 4]);
    first.demote_here(id(3)).await.unwrap();
    assert_eq!(voters(), [1, 2]);
    assert_eq!(first.members().len(), 4, "who lost the vote goes on learning");
    let index = first.propose(write(77)).await.unwrap().index;
    group.agree_at(index).await;
}
