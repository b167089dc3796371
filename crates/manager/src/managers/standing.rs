//! Whether this manager is still one.
//!
//! One that was removed while it was away, or left behind by a recovery, would otherwise stand for
//! election for ever, or, with others like it, serve a past that the cluster has left. It asks the
//! other managers at its start, often while it is out of touch, and now and then anyway. It ends
//! only on the word of a group with a leader whose term is not behind its own: after a recovery
//! that is the recovered group, whose terms are far ahead. A manager that refuses its certificate
//! because it was removed is believed, too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cluster_daemon::fsx;
use cluster_pb::peer::v1::StandingRequest;
use cluster_pb::peer::v1::peer_client::PeerClient;
use cluster_wire::Code;
use cluster_wire::error::code_of;
use serde::{Deserialize, Serialize};

use crate::clock::wall_ms;
use crate::context::Context;

const MARK: &str = "removed.json";
/// Between questions while the leader is heard.
const CALM: Duration = Duration::from_secs(10);
/// And while it is not, or this manager seems to be out of the group.
const ANXIOUS: Duration = Duration::from_secs(2);
/// After so long without the leader.
const OUT_OF_TOUCH: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(3);

/// Left in the data folder of a manager that was removed.
#[derive(Serialize, Deserialize)]
struct Mark {
    at_ms: u64,
    reason: String,
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(MARK)
}

/// Refuses the folder of a manager that was removed.
pub fn check(data_dir: &Path) -> anyhow::Result<()> {
    let path = path(data_dir);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let reason = serde_json::from_slice::<Mark>(&bytes).map(|mark| mark.reason);
    bail!(
        "{}; {} says so. To join again, use an empty data folder (--join, --token)",
        reason.unwrap_or_else(|_| "this manager was removed from the cluster".to_owned()),
        path.display()
    )
}

/// Notes in the folder that its manager was removed: it does not start again.
pub fn mark(data_dir: &Path, reason: &str) {
    let mark = Mark { at_ms: wall_ms(), reason: reason.to_owned() };
    let bytes = serde_json::to_vec(&mark).unwrap_or_default();
    if let Err(error) = fsx::write_atomic(&path(data_dir), &bytes, 0o600) {
        tracing::warn!(%error, "cannot note that this manager was removed");
    }
}

/// Waits until this manager is told that it is no longer one; why, for people.
pub async fn lost(context: Context, data_dir: &Path) -> String {
    let mut votes = None;
    // At once: a manager that was left behind must not serve for long.
    let mut waited = CALM;
    loop {
        tell_vote(&context, &mut votes);
        let pause = if is_anxious(&context) { ANXIOUS } else { CALM };
        if waited < pause {
            // In short steps, so that losing touch is noticed although all was calm.
            tokio::time::sleep(ANXIOUS).await;
            waited += ANXIOUS;
            continue;
        }
        waited = Duration::ZERO;
        if let Some(address) = denied_by(&context).await {
            let reason = format!(
                "this manager is no longer in the cluster: the manager at {address} says that it \
                 was removed, or that the cluster was recovered without it"
            );
            mark(data_dir, &reason);
            return reason;
        }
    }
}

fn is_anxious(context: &Context) -> bool {
    let members = context.raft.members();
    let outside = !members.iter().any(|member| member.id == context.node_id);
    outside || context.dispatch.contact.watch().borrow().elapsed() > OUT_OF_TOUCH
}

/// Says when this manager gains or loses its vote.
fn tell_vote(context: &Context, known: &mut Option<bool>) {
    let members = context.raft.members();
    let Some(own) = members.iter().find(|member| member.id == context.node_id) else { return };
    match (known.replace(own.voter), own.voter) {
        (Some(true), false) => tracing::warn!(
            "this manager was demoted: it is a spare now, holds the log, serves and does not vote"
        ),
        (Some(false), true) => tracing::info!("this manager was promoted: it votes now"),
        (None, false) => tracing::info!("this manager is a spare: it does not vote"),
        _ => {}
    }
}

/// A manager that says that this one is none, speaking for a group that is not behind.
async fn denied_by(context: &Context) -> Option<String> {
    let state = context.raft.view().state;
    let known = state.cluster().into_iter().flat_map(|cluster| &cluster.managers);
    let mut addresses: Vec<String> = known
        .filter(|(id, _)| **id != context.node_id)
        .map(|(_, manager)| manager.address.clone())
        .collect();
    let members = context.raft.members().into_iter();
    addresses.extend(members.filter(|m| m.id != context.node_id).map(|member| member.address));
    addresses.sort();
    addresses.dedup();
    let term = context.raft.leadership().borrow().term;
    let asking = addresses.iter().map(|address| ask(context, address, term));
    let answers = futures::future::join_all(asking).await;
    addresses.into_iter().zip(answers).find(|(_, denied)| *denied).map(|(address, _)| address)
}

async fn ask(context: &Context, address: &str, term: u64) -> bool {
    let Ok(channel) = context.manager_channel(address) else { return false };
    let mut client = PeerClient::new(channel);
    match tokio::time::timeout(PATIENCE, client.standing(StandingRequest {})).await {
        Ok(Ok(answer)) => {
            let answer = answer.into_inner();
            !answer.member && answer.term >= term
        }
        // The certificate of a removed manager is refused whatever it asks.
        Ok(Err(status)) => code_of(&status) == Some(Code::Removed),
        Err(_) => false,
    }
}
