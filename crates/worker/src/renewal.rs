//! A fresh certificate in time, without a restart: connections that are open go on, the next ones
//! use the new identity.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_daemon::Backoff;
use cluster_identity::{
    ChannelOptions, Identity, KeyAndCsr, TlsClient, TlsIdentity, connect, now_unix, renew_at,
};
use cluster_pb::ca::v1::RenewRequest;
use cluster_pb::ca::v1::ca_client::CaClient;

use crate::session::Managers;

/// The clock is looked at so often, because it may be set.
const LOOK_PERIOD: Duration = Duration::from_secs(600);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Renews for ever.
pub async fn run(tls: TlsIdentity, dir: PathBuf, managers: Arc<Managers>) {
    loop {
        let leaf = tls.leaf();
        let due = renew_at(leaf.not_before, leaf.not_after, rand::random());
        loop {
            let left = due.saturating_sub(now_unix());
            if left == 0 {
                break;
            }
            tokio::time::sleep(LOOK_PERIOD.min(Duration::from_secs(left))).await;
        }
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        while let Err(error) = renew(&tls, &dir, &managers).await {
            tracing::warn!(
                error = format!("{error:#}"),
                not_after = leaf.not_after,
                "the certificate could not be renewed; trying again"
            );
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

async fn renew(
    tls: &TlsIdentity,
    dir: &std::path::Path,
    managers: &Managers,
) -> anyhow::Result<()> {
    let address = managers.pick();
    let options = ChannelOptions { request_timeout: Some(CALL_TIMEOUT), ..Default::default() };
    let channel = connect(&address, &TlsClient::manager(tls), &options).await?;
    let key = KeyAndCsr::generate()?;
    let csr_der = pem::parse(&key.csr_pem)?.into_contents();
    let answer = CaClient::new(channel).renew(RenewRequest { csr_der }).await?.into_inner();
    let identity = Identity::new(answer.chain, key.key_pem, answer.ca)?;
    let not_after = identity.not_after()?;
    // On disk first: a crash between must not leave us with a certificate nobody knows.
    identity.store(dir)?;
    tls.replace(identity)?;
    tracing::info!(not_after, "certificate renewed");
    Ok(())
}
