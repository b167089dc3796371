//! The calls behind a renewal, each on a connection of its own.

use std::path::Path;
use std::time::Duration;

use cluster_identity::{ChannelOptions, Identity, KeyAndCsr, TlsClient, TlsIdentity, connect};
use cluster_pb::ca::v1::ca_client::CaClient;
use cluster_pb::ca::v1::{ConfirmTrustRequest, RecoverRequest, RenewRequest, RenewResponse};
use cluster_wire::error::{code_of, hint_of};
use tonic::Status;
use tonic::transport::Channel;

use crate::session::Managers;

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// What managers expect before a request that an expired certificate's key signs.
const RECOVER_PURPOSE: &[u8] = b"cluster recover";

async fn ca(client: &TlsClient, managers: &Managers) -> anyhow::Result<CaClient<Channel>> {
    let options = ChannelOptions { request_timeout: Some(CALL_TIMEOUT), ..Default::default() };
    Ok(CaClient::new(connect(&managers.pick(), client, &options).await?))
}

/// A certificate for a certificate that still counts.
pub(super) async fn renew(
    tls: &TlsIdentity,
    dir: &Path,
    managers: &Managers,
) -> anyhow::Result<()> {
    let key = KeyAndCsr::generate()?;
    let csr_der = pem::parse(&key.csr_pem)?.into_contents();
    let mut ca = ca(&TlsClient::manager(tls), managers).await?;
    let answer = ca.renew(RenewRequest { csr_der }).await.map_err(refused)?.into_inner();
    take(tls, dir, key, answer)
}

/// A certificate for one that expired.
pub(super) async fn recover(
    tls: &TlsIdentity,
    dir: &Path,
    managers: &Managers,
) -> anyhow::Result<()> {
    let key = KeyAndCsr::generate()?;
    let csr_der = pem::parse(&key.csr_pem)?.into_contents();
    let identity = tls.identity();
    let request = RecoverRequest {
        certificate: identity.chain_pem.clone(),
        signature: identity.sign(&[RECOVER_PURPOSE, &csr_der].concat())?,
        csr_der,
    };
    let mut ca = ca(&TlsClient::anonymous(tls)?, managers).await?;
    let answer = ca.recover(request).await.map_err(refused)?.into_inner();
    take(tls, dir, key, answer)
}

/// Tells a manager which CAs are trusted here, with the certificate that counts now.
pub(super) async fn confirm(tls: &TlsIdentity, managers: &Managers) -> anyhow::Result<()> {
    let digests = tls.identity().ca_digests();
    let ca_digests = digests.iter().map(ToString::to_string).collect();
    let mut ca = ca(&TlsClient::manager(tls), managers).await?;
    ca.confirm_trust(ConfirmTrustRequest { ca_digests }).await.map_err(refused)?;
    Ok(())
}

fn take(
    tls: &TlsIdentity,
    dir: &Path,
    key: KeyAndCsr,
    answer: RenewResponse,
) -> anyhow::Result<()> {
    let identity = Identity::new(answer.chain, key.key_pem, answer.ca)?;
    let not_after = identity.not_after()?;
    // On disk first: a crash between must not leave us with a certificate nobody knows.
    identity.store(dir)?;
    tls.replace(identity)?;
    tracing::info!(not_after, "certificate renewed");
    Ok(())
}

fn refused(status: Status) -> anyhow::Error {
    let hint = hint_of(&status).map_or(String::new(), |hint| format!(" ({hint})"));
    match code_of(&status) {
        Some(code) => anyhow::anyhow!("{}: {}{hint}", code.as_str(), status.message()),
        None => anyhow::Error::new(status),
    }
}
