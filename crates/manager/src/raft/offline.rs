//! The raft folder of a manager that does not run: what is in it, and founding a new one from a
//! state. For recovery; a running manager never comes here.
//!
//! *Guarantees:* a folder is locked while it is read, so a running manager is never disturbed; what
//! is damaged is an error that names the file. A new folder is durable when `found` returns.

use std::path::Path;
use std::sync::{Arc, mpsc};

use cluster_model::command::COMMANDS;
use cluster_model::{ClusterId, NodeId, State};

use super::cipher::Keyring;
use super::codec;
use super::config::Threads;
use super::disk::{Disk, OsDisk};
use super::error::StorageError;
use super::log::{self, Ballot, Done, EntryKind, Log, LogSettings, Owner, Position};
use super::members::Member;
use super::node::lock_folder;
use super::snapshot::SnapshotStore;
use super::types::{self, Membership, Node, SnapshotMeta, StoredMembership};

/// Bytes of entries read at once.
const PAGE: usize = 4 << 20;

/// What a folder holds.
pub struct Contents {
    /// The state after every entry of the log.
    pub state: State,
    /// Log index of the last entry, and its term.
    pub index: u64,
    pub term: u64,
    /// Last index known to be committed: later entries may have been acknowledged, or not.
    pub committed: u64,
    /// Last index that the snapshot covers; 0: there is none.
    pub snapshot: u64,
    /// The newest term that this manager has seen.
    pub newest_term: u64,
    /// The managers by the last entry that says so.
    pub members: Vec<Member>,
}

/// Reads a folder. Changes nothing but what any start does: an unfinished write is cut off.
pub fn read(
    dir: &Path,
    cluster: ClusterId,
    node: NodeId,
    keys: Option<Keyring>,
) -> Result<Contents, StorageError> {
    let _lock = lock_folder(dir)?;
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let folder = dir.join("snapshots");
    let snapshots = SnapshotStore::open_with(disk.clone(), &folder, cluster.0, keys.clone())?;
    let owner = Owner { cluster_id: cluster.0, node_id: node.0 };
    let (log, thread) =
        Log::open_with(disk, &log::folder(dir), owner, LogSettings::default(), Threads::Own, keys)?;
    let contents = replay(&snapshots, &log);
    log.close();
    drop(log);
    thread.join();
    contents
}

fn replay(snapshots: &SnapshotStore, log: &Log) -> Result<Contents, StorageError> {
    let mut state = State::default();
    let mut at = Position { term: 0, index: 0 };
    let mut membership = Membership::default();
    let mut snapshot = 0;
    if let Some((_, file)) = snapshots.current() {
        let (meta, read) = snapshots.read(&file)?;
        state = read;
        membership = meta.last_membership.membership().clone();
        at = meta.last_log_id.map_or(at, types::position);
        snapshot = at.index;
    }
    let (purged, last) = log.bounds();
    if purged.is_some_and(|purged| purged.index > at.index) {
        let reason = "the log begins after what the snapshot covers: entries are missing".into();
        return Err(StorageError::Stopped { reason });
    }
    let end = last.map_or(0, |last| last.index + 1);
    // The first entry of a group's life has index 0.
    let mut next = if snapshot == 0 && purged.is_none() { 0 } else { at.index + 1 };
    while next < end {
        let entries = log.read(next..end, PAGE)?;
        let Some(last) = entries.last().map(|entry| entry.at.index) else {
            let reason = format!("entry {next} of the log is missing");
            return Err(StorageError::Stopped { reason });
        };
        for entry in entries {
            let index = entry.at.index;
            let unreadable = |what| move |source| StorageError::Payload { what, index, source };
            match entry.kind {
                EntryKind::Blank => {}
                EntryKind::Command => {
                    let command = codec::decode_command(&entry.payload, COMMANDS)
                        .map_err(unreadable("the command"))?;
                    cluster_model::apply(&mut state, index, &command);
                }
                EntryKind::Members => {
                    membership =
                        codec::decode(&entry.payload).map_err(unreadable("the members"))?;
                }
            }
            at = entry.at;
        }
        next = last + 1;
    }
    let voters: Vec<u64> = membership.voter_ids().collect();
    let member = |(id, node): (&u64, &Node)| Member {
        id: NodeId(*id),
        address: node.addr.clone(),
        voter: voters.contains(id),
        matched: None,
    };
    Ok(Contents {
        state,
        index: at.index,
        term: at.term,
        committed: log.committed().map_or(snapshot, |committed| committed.index.max(snapshot)),
        snapshot,
        newest_term: log.vote().map_or(at.term, |vote| vote.term.max(at.term)),
        members: membership.nodes().map(member).collect(),
    })
}

/// Where a new group's history begins.
#[derive(Debug, Clone, Copy)]
pub struct Beginning {
    /// Index and term of the entry that the state is as of.
    pub index: u64,
    pub term: u64,
}

/// Makes a folder whose only voter is `node`, with `state` as what is committed so far.
pub fn found(
    dir: &Path,
    cluster: ClusterId,
    (node, address): (NodeId, &str),
    state: &State,
    begins: Beginning,
    keys: Option<Keyring>,
) -> Result<(), StorageError> {
    let settings = LogSettings::default();
    let _lock = lock_folder(dir)?;
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let at = Position { term: begins.term, index: begins.index };
    let nodes = std::collections::BTreeMap::from([(node.0, Node::new(address))]);
    let membership = Membership::new(vec![[node.0].into()], nodes).map_err(|error| {
        StorageError::Stopped { reason: format!("a group of one cannot be formed: {error}") }
    })?;
    let last = types::log_id(at);
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
    };
    let folder = dir.join("snapshots");
    let snapshots = SnapshotStore::open_with(disk.clone(), &folder, cluster.0, keys.clone())?;
    snapshots.write(&meta, state)?;
    let owner = Owner { cluster_id: cluster.0, node_id: node.0 };
    let (log, thread) =
        Log::open_with(disk.clone(), &log::folder(dir), owner, settings, Threads::Own, keys)?;
    let vote = Ballot { term: begins.term, node: node.0, committed: false };
    let written =
        wait(|done| log.save_vote(vote, done)).and_then(|()| wait(|done| log.purge(at, done)));
    log.close();
    drop(log);
    thread.join();
    written?;
    disk.sync_dir(dir).map_err(StorageError::io("sync", dir))
}

/// Runs one operation of the log and waits for its fate.
fn wait(start: impl FnOnce(Done) -> Result<(), StorageError>) -> Result<(), StorageError> {
    let (told, tell) = mpsc::channel();
    start(Box::new(move |result| {
        // Whoever asked is right below.
        let _ = told.send(result);
    }))?;
    tell.recv().unwrap_or_else(|_| Err(StorageError::Stopped { reason: "its writer ended".into() }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::raft::tests::fixture::{CLUSTER, Group, connector, fingerprint, within, write};
    use crate::raft::{RaftConfig, RaftNode};

    /// What a manager had is read from its folder, and a new one with another id goes on from it.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_folder_is_read_and_another_manager_goes_on_from_it() {
        let mut group = Group::start(3, |config| {
            config.snapshot_every = 40;
            config.keep_entries = 10;
        })
        .await;
        for number in 1000..1100 {
            group.managers[0].node().propose(write(number)).await.unwrap();
        }
        let index = group.managers[0].node().propose(write(2000)).await.unwrap().index;
        group.agree_at(index).await;
        let survivor = &mut group.managers[1];
        let seen = survivor.node().view();
        let busy = read(&survivor.config.dir, CLUSTER, survivor.id, None);
        assert!(matches!(busy, Err(StorageError::InUse { .. })), "a running manager is left alone");
        survivor.kill().await;
        let (dir, id) = (survivor.config.dir.clone(), survivor.id);
        let contents = read(&dir, CLUSTER, id, None).unwrap();
        assert_eq!(contents.index, seen.applied_index);
        assert_eq!(fingerprint(&contents.state), fingerprint(&seen.state));
        assert!(contents.snapshot > 0 && contents.committed <= contents.index);
        assert_eq!(contents.members.iter().filter(|member| member.voter).count(), 3);
        let wrong = read(&dir, CLUSTER, NodeId(9), None);
        assert!(matches!(wrong, Err(StorageError::OtherNode { .. })));

        let fresh = group.dir.path().join("fresh");
        let begins = Beginning { index: contents.index + 1000, term: contents.newest_term + 100 };
        let address = survivor.address.to_string();
        found(&fresh, CLUSTER, (NodeId(50), &address), &contents.state, begins, None).unwrap();
        let again = read(&fresh, CLUSTER, NodeId(50), None).unwrap();
        assert_eq!((again.index, again.term), (begins.index, begins.term));
        assert_eq!(fingerprint(&again.state), fingerprint(&seen.state));
        let config = RaftConfig::new(fresh, CLUSTER, NodeId(50), address);
        let node = RaftNode::start(config, connector()).await.unwrap();
        let leads = || node.leadership().borrow().this_node_leads_and_caught_up.then_some(());
        within(Duration::from_secs(10), leads).await.expect("it leads alone");
        assert!(node.leadership().borrow().term > begins.term);
        let done = node.propose(write(3000)).await.unwrap();
        assert!(done.index > begins.index);
        assert!(node.view().state.node(NodeId(2000)).is_some());
        // It survives a restart, too.
        node.shutdown().await;
    }
}
