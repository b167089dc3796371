//! Joining a cluster as a further manager: a certificate for the token, then membership.

use std::time::Duration;

use anyhow::{Context as _, bail};
use cluster_identity::net::Net;
use cluster_identity::{
    ChannelOptions, Identity, JoinToken, KeyAndCsr, Role, TlsClient, TlsIdentity, connect,
};
use cluster_pb::ca::v1::JoinRequest;
use cluster_pb::ca::v1::ca_client::CaClient;
use cluster_pb::peer::v1::JoinGroupRequest;
use cluster_pb::peer::v1::peer_client::PeerClient;
use cluster_wire::Code;
use cluster_wire::error::{code_of, hint_of};

use crate::cli::Cli;
use crate::clock::wall_ms;

/// How long one attempt at membership may take: the leader brings the newcomer up to date first.
const ATTEMPT: Duration = Duration::from_secs(20);
/// Attempts to become a member before giving up.
const ATTEMPTS: u32 = 30;
const PAUSE: Duration = Duration::from_millis(500);

/// Asks the managers in turn for a certificate and stores it.
pub async fn certificate(cli: &Cli, name: &str, net: &Net) -> anyhow::Result<Identity> {
    let text = cli.token.as_deref().context(
        "--token (or CLUSTER_JOIN_TOKEN) is needed to join: get one with `clusterctl cluster token \
         --role manager`",
    )?;
    let token: JoinToken = text.parse().context("--token is not a join token")?;
    if token.role != Role::Manager {
        bail!(
            "--token is for joining as a {}; get one with `clusterctl cluster token --role manager`",
            token.role
        );
    }
    let mut failures = Vec::new();
    for address in &cli.join {
        match certificate_from(address, &token, name, net).await {
            Ok(identity) => {
                identity.store(&cli.data_dir).context("cannot store the certificate")?;
                return Ok(identity);
            }
            Err(error) => failures.push(format!("{address}: {error:#}")),
        }
    }
    bail!("no manager gave this machine a certificate:\n  {}", failures.join("\n  "))
}

async fn certificate_from(
    address: &str,
    token: &JoinToken,
    name: &str,
    net: &Net,
) -> anyhow::Result<Identity> {
    let client = TlsClient::pinned(token.ca_digest)?.through(net);
    let channel = connect(address, &client, &ChannelOptions::default()).await?;
    let key = KeyAndCsr::generate()?;
    let request = JoinRequest {
        token: token.to_string(),
        csr_der: key.csr_pem.clone().into_bytes(),
        name: name.to_owned(),
        role: Role::Manager.to_string(),
        now_ms: wall_ms(),
    };
    let response = CaClient::new(channel).join(request).await;
    let response = response.map_err(|status| refused(&status))?.into_inner();
    Ok(Identity::new(response.chain, key.key_pem, response.ca)?)
}

/// What a manager said, and what to do about it.
fn refused(status: &tonic::Status) -> anyhow::Error {
    let hint = match code_of(status) {
        Some(Code::NameTaken) => Some(
            "give this machine another with --name NAME, or remove the manager that had it: \
             `clusterctl manager rm NAME`"
                .to_owned(),
        ),
        _ => hint_of(status),
    };
    match hint {
        Some(hint) => anyhow::anyhow!("{} ({hint})", status.message()),
        None => anyhow::anyhow!("{}", status.message()),
    }
}

/// Asking again would change nothing.
#[derive(Debug, thiserror::Error)]
#[error(
    "this manager was removed from the cluster; to join again, use an empty data folder (--join, --token)"
)]
pub struct Removed;

/// Asks to become a member until one manager agrees. Safe to repeat.
pub async fn membership(
    addresses: impl Fn() -> Vec<String>,
    identity: &TlsIdentity,
    newcomer: &JoinGroupRequest,
) -> anyhow::Result<()> {
    let client = TlsClient::manager(identity);
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        for address in &addresses() {
            let asked = async {
                let channel = connect(address, &client, &ChannelOptions::default()).await?;
                let answer = PeerClient::new(channel).join_group(newcomer.clone()).await;
                answer.map(drop).map_err(|status| match code_of(&status) {
                    Some(Code::Removed) => anyhow::Error::new(Removed),
                    _ => anyhow::anyhow!("{}", status.message()),
                })
            };
            match tokio::time::timeout(ATTEMPT, asked).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if error.downcast_ref::<Removed>().is_some() => return Err(error),
                Ok(Err(error)) => last = format!("{address}: {error:#}"),
                Err(_) => last = format!("{address}: no answer within {} s", ATTEMPT.as_secs()),
            }
            tracing::info!(reason = last, "not yet a member");
        }
    }
    bail!("the managers did not make this one a member; last: {last}")
}
