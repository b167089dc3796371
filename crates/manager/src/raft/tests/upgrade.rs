//! Managers of two releases in one group: some understand a set of commands that others do not
//! know.

use std::time::Duration;

use bytes::Bytes;
use cluster_model::{Command, NodeId};
use tokio::time::Instant;

use super::fixture::{Group, bootstrap, connector, write};
use crate::raft::propose::Failure;
use crate::raft::{RaftConfig, RaftNode, codec};

const PATIENCE: Duration = Duration::from_secs(20);

/// A command as a release with a second set of commands writes it.
fn newer(command: &Command) -> Bytes {
    let mut bytes = codec::encode_command(command).unwrap().to_vec();
    bytes[0] = 2;
    bytes.into()
}

fn understands(set: u8) -> impl Fn(&mut RaftConfig) {
    move |config| config.commands = set
}

/// Starts a manager again as a program that understands this set.
async fn restart(group: &mut Group, at: usize, set: u8) {
    let manager = &mut group.managers[at];
    if manager.is_running() {
        manager.kill().await;
    }
    manager.config.commands = set;
    manager.start().await;
}

/// Proposes a newer command at whoever leads, until that is done or refused for good: who leads may
/// change, and a new leader has not heard everybody yet.
async fn propose_newer(group: &Group, number: u64) -> Result<u64, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leader = group.managers[group.leader().await].node();
        let failure = match leader.propose_here(newer(&write(number)), PATIENCE).await {
            Ok((index, _)) => return Ok(index),
            Err(Failure::NotUnderstood(reason)) if reason.contains("older program") => {
                return Err(reason);
            }
            Err(failure) => failure,
        };
        assert!(Instant::now() < deadline, "{failure:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// As `propose_newer`, until nobody is taken for an older program any more: the leader believes
/// what it heard last until the upgraded manager speaks.
async fn propose_newer_at_last(group: &Group, number: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match propose_newer(group, number).await {
            Ok(index) => return index,
            Err(reason) => assert!(Instant::now() < deadline, "{reason}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_command_waits_until_every_manager_understands_it() {
    let mut group = Group::start(3, understands(1)).await;
    for at in [0, 1] {
        restart(&mut group, at, 2).await;
    }
    let before = group.managers[0].node().propose(write(100)).await.unwrap();
    let reason = propose_newer(&group, 200).await.unwrap_err();
    let address = group.managers[2].address.to_string();
    assert!(reason.contains(&address) && reason.contains("set 2"), "{reason}");
    // What all understand goes on, and the group agrees.
    let after = group.managers[2].node().propose(write(101)).await.unwrap();
    assert!(after.index > before.index);
    group.agree_at(after.index).await;
    assert!(group.managers[0].node().view().state.node(NodeId(200)).is_none());

    // The last one is upgraded: it says so by itself, with its first answer.
    restart(&mut group, 2, 2).await;
    let index = propose_newer_at_last(&group, 200).await;
    group.agree_at(index).await;
    assert!(group.managers[2].node().view().state.node(NodeId(200)).is_some());
}

fn says_so(reason: &str) {
    for text in ["log index", "command set 2", "start the newer program"] {
        assert!(reason.contains(text), "does not say `{text}`: {reason}");
    }
}

/// As after a downgrade.
#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_meets_a_newer_command_stops_and_says_why() {
    let mut group = Group::start(3, understands(2)).await;
    let away = (group.leader().await + 1) % 3;
    group.managers[away].kill().await;
    // The leader heard it while it joined, and takes its word.
    let index = propose_newer(&group, 200).await.unwrap();
    restart(&mut group, away, 1).await;
    let node = group.managers[away].node().clone();
    says_so(&tokio::time::timeout(PATIENCE, node.failed()).await.unwrap());
    assert!(node.view().applied_index < index, "it went past what it does not know");
    assert!(node.view().state.node(NodeId(200)).is_none());
    drop(node);
    // The others go on without it, and it comes back once it is upgraded again.
    let other = group.leader().await;
    let later = group.managers[other].node().propose(write(201)).await.unwrap();
    restart(&mut group, away, 2).await;
    group.agree_at(later.index).await;
    assert!(group.managers[away].node().view().state.node(NodeId(200)).is_some());

    // Now the command is in its own log: as an older program it does not even start.
    group.managers[away].kill().await;
    let mut config = group.managers[away].config.clone();
    config.commands = 1;
    let error = RaftNode::start(config, connector()).await.err().expect("it must not start");
    says_so(&error.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_program_cannot_join_a_group_that_is_past_it() {
    let last_is_older = |config: &mut RaftConfig| {
        config.commands = if config.node_id == NodeId(3) { 1 } else { 2 };
    };
    let group = Group::strangers(3, last_is_older).await;
    let first = group.managers[0].node();
    first.bootstrap(bootstrap()).await.unwrap();
    let (second, third) = (&group.managers[1], &group.managers[2]);
    first.add_manager(second.id, &second.address.to_string(), false).await.unwrap();
    let error = first.add_manager(third.id, &third.address.to_string(), false).await.unwrap_err();
    assert!(error.to_string().contains("older program"), "{error}");
    assert_eq!(first.members().len(), 2, "it stays a member");
}

/// The oldest set is never held back, not even while somebody was never heard.
#[tokio::test(flavor = "multi_thread")]
async fn commands_that_all_know_need_nobodys_word() {
    let mut group = Group::start(3, |_| ()).await;
    let away = (group.leader().await + 1) % 3;
    group.managers[away].kill().await;
    let leader = group.leader().await;
    group.managers[leader].node().propose(write(100)).await.unwrap();
}
