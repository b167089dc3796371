//! The new manager's folder: made beside, then swapped in.
//!
//! Everything new is written to `recovering`, which then becomes `recovered` by one rename: from
//! there on the swap is decided, and each of its steps may be repeated. What was there is renamed,
//! never removed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use cluster_archive::state_hash;
use cluster_daemon::fsx;
use cluster_identity::{Ca, DEFAULT_VALIDITY, Role, SecretPem, Subject, now_unix};
use cluster_model::Manager;
use serde::{Deserialize, Serialize};

use super::raft_dir;
use super::source::Source;
use crate::clock::wall_ms;
use crate::founding::ADMIN_CONTEXT;
use crate::keys::KeyStore;
use crate::raft::offline;

const MAKING: &str = "recovering";
const MADE: &str = "recovered";
const PENDING: &str = "recovery.json";

/// What the first start has to write.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pending {
    /// Version of the cluster object in the state that was taken over.
    pub version: u64,
    pub manager: Manager,
}

pub fn pending_path(data_dir: &Path) -> PathBuf {
    data_dir.join(PENDING)
}

/// A recovery whose first entry is not written yet.
pub fn pending(data_dir: &Path) -> anyhow::Result<Option<Pending>> {
    let path = pending_path(data_dir);
    match fs::read(&path) {
        Ok(bytes) => {
            let damaged = || format!("{} is damaged; recover again", path.display());
            Ok(Some(serde_json::from_slice(&bytes).with_context(damaged)?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes the new manager's log, certificate and context, reads its state again and compares.
pub fn found(data_dir: &Path, source: &Source) -> anyhow::Result<()> {
    let making = data_dir.join(MAKING);
    // `run` has removed what an earlier recovery left.
    fs::create_dir(&making).with_context(|| format!("cannot make {}", making.display()))?;
    let Source { state, cluster_id, node_id, manager, begins, .. } = source;
    let cluster = state.cluster().context("there is no cluster in the state")?;
    let raft = raft_dir(&making);
    // One from a snapshot is locked, where that is wished, once the manager runs and knows the state.
    let keys = KeyStore::open(&making, None)?;
    keys.keep()?;
    if source.lock.is_some() {
        keys.set_lock(source.lock.clone(), 0, 0)?;
    }
    let ring = Some(keys.ring());
    let voter = (*node_id, manager.address.as_str());
    offline::found(&raft, *cluster_id, voter, state, *begins, ring.clone())
        .with_context(|| format!("cannot write {}", raft.display()))?;
    let written = offline::read(&raft, *cluster_id, *node_id, ring)?;
    if state_hash(&written.state)? != source.hash {
        bail!("what was written to {} does not read as the same state", raft.display());
    }
    let key = SecretPem::new(cluster.ca_key.expose());
    let ca = Ca::from_pem(&cluster.ca_certificate, &key).context("cannot read the cluster's CA")?;
    let issue = |role, node_id: String| {
        let subject = Subject { role, node_id, cluster_id: cluster_id.to_string() };
        ca.issue(&subject, now_unix(), DEFAULT_VALIDITY)
    };
    keys.store_identity(&issue(Role::Manager, node_id.to_string())?)?;
    let admin = issue(Role::Admin, cluster_model::NodeId(crate::context::mint()).to_string())?;
    let context = making.join(ADMIN_CONTEXT);
    cluster_identity::Context::new(&cluster.name, vec![manager.address.clone()], &admin)
        .and_then(|made| made.save(&context))
        .with_context(|| format!("cannot write {}", context.display()))?;
    let pending = Pending { version: cluster.version, manager: manager.clone() };
    fsx::write_atomic(&making.join(PENDING), &serde_json::to_vec(&pending)?, 0o600)?;
    fsx::sync_dir(&making)?;
    let made = data_dir.join(MADE);
    fs::rename(&making, &made).with_context(|| format!("cannot name {}", made.display()))?;
    Ok(fsx::sync_dir(data_dir)?)
}

/// Puts what was made in its place; whether there was something to do.
pub fn finish_swap(data_dir: &Path) -> anyhow::Result<bool> {
    // Of a recovery that never got so far as to count: a state that may lie there in the clear.
    let making = data_dir.join(MAKING);
    if making.exists() {
        fs::remove_dir_all(&making)
            .with_context(|| format!("cannot remove {}", making.display()))?;
    }
    let made = data_dir.join(MADE);
    if !made.is_dir() {
        return Ok(false);
    }
    let stamp = wall_ms();
    // Of an older life of this folder.
    for name in ["removed.json", "founding.json"] {
        set_aside(data_dir, name, stamp)?;
    }
    for name in ["raft", "keys.json", "identity.json", ADMIN_CONTEXT, PENDING] {
        let (from, to) = (made.join(name), data_dir.join(name));
        if !from.exists() {
            continue;
        }
        set_aside(data_dir, name, stamp)?;
        fs::rename(&from, &to)
            .with_context(|| format!("cannot move {} to its place", from.display()))?;
    }
    fsx::sync_dir(data_dir)?;
    fs::remove_dir_all(&made).with_context(|| format!("cannot remove {}", made.display()))?;
    fsx::sync_dir(data_dir)?;
    Ok(true)
}

/// Renames what is there, so that nothing is lost.
fn set_aside(data_dir: &Path, name: &str, stamp: u64) -> anyhow::Result<()> {
    let path = data_dir.join(name);
    if !path.exists() {
        return Ok(());
    }
    let aside = data_dir.join(format!("{name}.before-recovery-{stamp}"));
    fs::rename(&path, &aside).with_context(|| format!("cannot rename {}", path.display()))
}
