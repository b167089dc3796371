//! This manager's own certificate and keys, kept as the state wants them.
//!
//! *Flow*: on every change of the state, and when a renewal is due: which CAs count, which nodes were
//! removed, how long certificates live, how the folder is locked. What differs is made so; every
//! manager holds the CA's key in its state and signs for itself.
//! *Guarantees*: what is written down is whole after a crash, and the next start takes it up again.
//! *On failure*: the loop is started again, with back-off.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cluster_daemon::chain;
use cluster_identity::{
    Ca, Context as ContextFile, Identity, KeyAndCsr, Leaf, SecretPem, Subject, TlsIdentity,
    UnlockKey, now_unix, renew_at,
};
use cluster_model::{CaPhase, Command, Secure, State};
use cluster_wire::{Code, Failure};
use tokio::time::Instant;

use crate::context::Context;
use crate::founding::ADMIN_CONTEXT;
use crate::keys::KeyStore;
use crate::raft::View;

/// The date is looked at so often: a machine that was suspended notices.
const LOOK_PERIOD: Duration = Duration::from_secs(60);
/// The administrator's context file is looked at so often, or when a renewal of ours is nearer.
const ADMIN_PERIOD: Duration = Duration::from_secs(60);
/// Data keys that no file needs are looked for so often.
const SWEEP_PERIOD: Duration = Duration::from_secs(300);
/// How long a manager with an expired certificate waits for its own log to be applied.
const RESCUE_PATIENCE: Duration = Duration::from_secs(20);
/// A certificate may live so much longer than the cluster wants before it is replaced, seconds.
const VALIDITY_SLACK_S: u64 = 60;

/// Signs a request as the state wants it: by the CA that counts, and while it is being replaced with
/// the chain to the old one.
pub fn sign(state: &State, csr: &[u8], subject: &Subject) -> Result<String, Failure> {
    let internal = |error: &dyn std::error::Error| Failure::new(Code::Internal, chain(error));
    let cluster = state
        .cluster()
        .ok_or_else(|| Failure::new(Code::Bootstrapped, "the cluster is not bootstrapped yet"))?;
    let key = SecretPem::new(cluster.ca_key.expose());
    let ca = Ca::from_pem(&cluster.ca_certificate, &key).map_err(|error| internal(&error))?;
    let validity = Duration::from_secs(state.cert_validity_s());
    let mut signed = ca.sign(csr, subject, now_unix(), validity).map_err(|error| {
        Failure::new(Code::InvalidField, format!("field `csr`: {}", chain(&error)))
    })?;
    if let Some(rotation) = state.rotation().filter(|known| known.phase == CaPhase::Reissue) {
        signed.push_str(&rotation.cross_certificate);
        signed.push_str(&rotation.old_certificate);
    }
    Ok(signed)
}

fn issue(state: &State, subject: &Subject) -> anyhow::Result<Identity> {
    let key = KeyAndCsr::generate()?;
    let signed = sign(state, key.csr_pem.as_bytes(), subject)?;
    Ok(Identity::new(signed, key.key_pem, state.trusted_cas())?)
}

/// Whether an identity is as the state wants it, dates apart.
fn is_wanted(identity: &Identity, leaf: &Leaf, state: &State, now: u64) -> bool {
    let Some(cluster) = state.cluster() else { return true };
    let lives = leaf.not_after.saturating_sub(now);
    identity.ca_pem == state.trusted_cas()
        && identity.is_issued_by(&cluster.ca_certificate)
        && lives <= state.cert_validity_s().saturating_add(VALIDITY_SLACK_S)
}

/// A manager whose certificate expired while it was off signs itself the next one, if its own state
/// says that it is a member: it holds the CA's key in any case.
pub async fn rescue(context: &Context, keys: &KeyStore) -> anyhow::Result<()> {
    let leaf = context.identity.leaf();
    if now_unix() <= leaf.not_after {
        return Ok(());
    }
    let mut feed = context.raft.feed();
    feed.mark_changed();
    let known = async {
        while feed.changed().await.is_ok() {
            let state = context.raft.view().state;
            if state.is_member(context.node_id) && !state.is_revoked(context.node_id) {
                return Some(state);
            }
        }
        None
    };
    let state = tokio::time::timeout(RESCUE_PATIENCE, known).await.ok().flatten();
    let Some(state) = state else {
        bail!(
            "this manager's certificate expired at unix time {}, and its own log does not say that \
             it is a member of the cluster: join again with an empty data folder (--join, --token)",
            leaf.not_after
        );
    };
    let identity = issue(&state, &context.identity.identity().subject())?;
    keys.store_identity(&identity)?;
    context.identity.replace(identity)?;
    tracing::warn!(expired = leaf.not_after, "the certificate had expired; signed a new one");
    Ok(())
}

/// Keeps certificate and keys as the state wants them, for as long as the manager runs.
pub async fn run(
    context: Context,
    keys: Arc<KeyStore>,
    data_dir: impl AsRef<Path>,
) -> anyhow::Result<()> {
    let mut feed = context.raft.feed();
    feed.mark_changed();
    let mut looked_at = None;
    let mut sweep_at = Instant::now() + SWEEP_PERIOD;
    let mut admin_at = Instant::now();
    let jitter = rand::random::<f64>();
    loop {
        let Leaf { not_before, not_after, .. } = context.identity.leaf();
        let due = renew_at(not_before, not_after, jitter);
        // Slept in pieces, so that a suspended machine notices that time has passed.
        let left = Duration::from_secs(due.saturating_sub(now_unix()).max(1)).min(LOOK_PERIOD);
        tokio::select! {
            changed = feed.changed() => changed?,
            () = tokio::time::sleep(left) => {}
        }
        let view = context.raft.view();
        let state = view.state.clone();
        // Not a member yet, or no longer: nothing here is its business.
        if !state.is_member(context.node_id) {
            continue;
        }
        let trust = state.security().map_or(0, |security| security.trust_version);
        let is_due = now_unix() >= due;
        if looked_at != Some(trust) || is_due {
            follow(&context, &keys, &state, is_due)?;
        }
        // It has dates of its own.
        if looked_at != Some(trust) || Instant::now() >= admin_at {
            admin_at = Instant::now() + ADMIN_PERIOD.min(left);
            refresh_admin(&data_dir.as_ref().join(ADMIN_CONTEXT), &state);
        }
        looked_at = Some(trust);
        lock(&context, &keys, &view).await?;
        confirm(&context, &state).await?;
        if Instant::now() >= sweep_at {
            sweep_at = Instant::now() + SWEEP_PERIOD;
            sweep(&context, &keys)?;
        }
    }
}

/// Who was removed is refused from now on.
pub fn deny_removed(tls: &TlsIdentity, state: &State) {
    let revoked = state.security().into_iter().flat_map(|security| security.revoked.keys());
    tls.deny(revoked.map(ToString::to_string).collect::<HashSet<_>>());
}

fn follow(context: &Context, keys: &KeyStore, state: &State, is_due: bool) -> anyhow::Result<()> {
    let tls: &TlsIdentity = &context.identity;
    deny_removed(tls, state);
    let now = now_unix();
    if is_wanted(&tls.identity(), &tls.leaf(), state, now) && !is_due {
        return Ok(());
    }
    let identity = issue(state, &tls.identity().subject())?;
    let not_after = identity.not_after()?;
    // On disk first: a crash between must not leave a certificate that nobody keeps.
    keys.store_identity(&identity)?;
    tls.replace(identity)?;
    tracing::info!(not_after, "certificate renewed");
    Ok(())
}

/// The context file that founding left here stays good for as long as it is left here: it is the
/// administrator's way back when every other context expired.
fn refresh_admin(path: &Path, state: &State) {
    let refreshed = (|| -> anyhow::Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let mut context = ContextFile::load(path)?;
        let identity = context.identity()?;
        let leaf = identity.leaf()?;
        let now = now_unix();
        let is_due = now >= renew_at(leaf.not_before, leaf.not_after, 0.0);
        if is_wanted(&identity, &leaf, state, now) && !is_due {
            return Ok(());
        }
        let fresh = issue(state, &identity.subject())?;
        if let Some(cluster) = state.cluster() {
            context.managers =
                cluster.managers.values().map(|manager| manager.address.clone()).collect();
        }
        context.ca_pem.clone_from(&fresh.ca_pem);
        context.chain_pem.clone_from(&fresh.chain_pem);
        context.key_pem = fresh.key_pem;
        context.save(path)?;
        tracing::info!(path = %path.display(), "context file renewed");
        Ok(())
    })();
    if let Err(error) = refreshed {
        tracing::warn!(path = %path.display(), error = format!("{error:#}"), "cannot renew the context file");
    }
}

/// Locks the folder, opens the lock or changes it, and makes new data keys, as the state wants.
async fn lock(context: &Context, keys: &KeyStore, view: &View) -> anyhow::Result<()> {
    let (security, index) = (view.state.security(), view.applied_index);
    let wanted = security.and_then(|security| security.unlock_key.as_ref());
    let wanted = wanted.map(|key| UnlockKey::parse(key.expose())).transpose();
    let wanted = wanted.context("the unlock key in the state cannot be read")?;
    let data_keys = security.map_or(0, |security| security.data_keys);
    // After a loss of power the first view may be older than what the folder followed already.
    if index < keys.index() {
        return Ok(());
    }
    let has_lock = keys.has_lock(wanted.as_ref());
    if has_lock && keys.epoch() >= data_keys && keys.is_complete() {
        return Ok(());
    }
    let locked = wanted.is_some();
    if has_lock && keys.is_complete() {
        keys.rotate(data_keys)?;
        tracing::info!("new data key");
    } else {
        // A crash between the two is taken up here.
        if !has_lock {
            keys.set_lock(wanted, data_keys, index)?;
        }
        keys.store_identity(&context.identity.identity())?;
        tracing::info!(locked, "data folder locked as the cluster wants it");
    }
    // What was written under older keys goes with the parts of the log that this makes superfluous.
    context.raft.write_snapshot().await;
    Ok(())
}

/// Tells the cluster that this manager has done what a change of the CA asks.
async fn confirm(context: &Context, state: &State) -> anyhow::Result<()> {
    let Some(rotation) = state.rotation() else { return Ok(()) };
    if rotation.confirmed.get(&context.node_id) >= Some(&rotation.phase) {
        return Ok(());
    }
    let (tls, now) = (&context.identity, now_unix());
    if !is_wanted(&tls.identity(), &tls.leaf(), state, now) {
        return Ok(());
    }
    let (node, started_at_ms, phase) = (context.node_id, rotation.started_at_ms, rotation.phase);
    let confirm = Secure::ConfirmCa { node, started_at_ms, phase };
    context.propose(Command::Secure(confirm)).await?;
    Ok(())
}

fn sweep(context: &Context, keys: &KeyStore) -> anyhow::Result<()> {
    if keys.ring().all().len() > 1 {
        let forgotten = keys.forget_unneeded(&context.raft.key_ids()?)?;
        if forgotten > 0 {
            tracing::info!(count = forgotten, "forgot data keys that no file needs any more");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
