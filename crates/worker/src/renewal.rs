//! A fresh certificate in time, without a restart: connections that are open go on, the next ones
//! use the new identity.
//!
//! A renewal is due at an age, when the managers want other CAs, or when they want certificates that
//! end sooner. A certificate that expired, because the machine was off or asleep, cannot be shown to
//! anybody; its key still proves who asks, so a manager takes the node back (`Recover`), with its id
//! and its containers.

mod calls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_daemon::Backoff;
use cluster_identity::{CaDigest, Identity, Leaf, TlsIdentity, now_unix, renew_at};
use tokio::sync::watch;

use crate::session::Managers;
use crate::trust::Wanted;

/// The clock is looked at so often, because it may be set.
const LOOK_PERIOD: Duration = Duration::from_secs(60);
/// What all nodes are told at once they do not do at once.
const SPREAD: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// A certificate may live so much longer than the cluster wants before it is replaced, seconds.
const VALIDITY_SLACK_S: u64 = 60;

/// What a look at certificate and clock comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing for so many seconds.
    Wait(u64),
    Renew,
    /// It expired: it cannot be shown any more.
    Recover,
}

fn look(leaf: &Leaf, now: u64, jitter: f64, is_wanted: bool) -> Next {
    let due = renew_at(leaf.not_before, leaf.not_after, jitter);
    if now > leaf.not_after {
        Next::Recover
    } else if now >= due || !is_wanted {
        Next::Renew
    } else {
        Next::Wait(due - now)
    }
}

/// Whether a certificate is as the managers want it, its age apart.
fn is_wanted(identity: &Identity, leaf: &Leaf, now: u64, wanted: Option<&Wanted>) -> bool {
    wanted.is_none_or(|wanted| {
        let lives = leaf.not_after.saturating_sub(now);
        identity.ca_pem == wanted.cas
            && identity.is_issued_by(&wanted.cas)
            && lives <= wanted.cert_validity_s.saturating_add(VALIDITY_SLACK_S)
    })
}

/// Renews for ever.
pub async fn run(
    tls: TlsIdentity,
    dir: PathBuf,
    managers: Arc<Managers>,
    mut heard: watch::Receiver<Option<Wanted>>,
) {
    let jitter = rand::random();
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    let mut failures = 0u32;
    // The CAs that a change of the CA was told of last.
    let mut confirmed: Option<Vec<CaDigest>> = None;
    loop {
        let wanted = heard.borrow_and_update().clone();
        let (identity, leaf, now) = (tls.identity(), tls.leaf(), now_unix());
        let fits = is_wanted(&identity, &leaf, now, wanted.as_ref());
        let next = look(&leaf, now, jitter, fits);
        let trusted = identity.ca_digests();
        let owes = fits && wanted.is_some_and(|wanted| wanted.confirm);
        let done = match next {
            Next::Wait(_) if owes && confirmed.as_ref() != Some(&trusted) => {
                let told = calls::confirm(&tls, &managers).await;
                told.map(|()| confirmed = Some(trusted))
            }
            Next::Wait(seconds) => {
                let left = LOOK_PERIOD.min(Duration::from_secs(seconds));
                tokio::select! {
                    () = tokio::time::sleep(left) => {}
                    changed = heard.changed() => match changed {
                        Ok(()) => tokio::time::sleep(SPREAD.mul_f64(rand::random())).await,
                        // The session is over for good; certificates age nevertheless.
                        Err(_) => tokio::time::sleep(left).await,
                    },
                }
                continue;
            }
            Next::Renew => calls::renew(&tls, &dir, &managers).await,
            Next::Recover => calls::recover(&tls, &dir, &managers).await,
        };
        match done {
            Ok(()) => {
                backoff.reset();
                failures = 0;
            }
            Err(error) => {
                failures += 1;
                let error = format!("{error:#}");
                let (not_after, expired) = (leaf.not_after, next == Next::Recover);
                if failures.is_power_of_two() {
                    tracing::warn!(
                        error,
                        not_after,
                        expired,
                        failures,
                        "the certificate could not be renewed; trying again"
                    );
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
