//! Becoming a member: the token names the CA and proves the right, a manager signs our key.
//!
//! Only the first start on a data folder joins; later ones use the identity that is kept there.

use std::path::Path;
use std::time::{Duration, Instant};

use cluster_daemon::Backoff;
use cluster_identity::{
    ChannelOptions, ConnectError, Identity, IdentityError, JoinToken, KeyAndCsr, Role, TlsClient,
    TokenError, connect, net::Net,
};
use cluster_pb::ca::v1::ca_client::CaClient;
use cluster_pb::ca::v1::{JoinRequest, JoinResponse};
use cluster_wire::Code;
use cluster_wire::error::{code_of, hint_of};
use tonic::Status;

const CALL_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("field `--token`: not usable")]
    Token(#[source] TokenError),
    #[error(
        "field `--token`: this token is for managers; a worker needs the one that `clusterctl \
         cluster token --role worker` prints"
    )]
    WrongRole,
    #[error(
        "field `--token`: the data folder {dir} belongs to a node of cluster {cluster_id}, and the \
         token to another cluster; use an empty data folder, or leave out --token"
    )]
    OtherCluster { dir: String, cluster_id: String },
    #[error(
        "field `--data-dir`: {dir} belongs to the {role} {node_id}; a worker needs a folder of its \
         own"
    )]
    OtherRole { dir: String, role: Role, node_id: String },
    #[error(
        "field `--join`: {} holds no identity yet, so the first start needs --join and --token",
        dir
    )]
    NotAMember { dir: String },
    #[error("making a key for this node")]
    Key(#[source] cluster_identity::CaError),
    #[error("the certificate request is not PEM")]
    Request(#[source] pem::PemError),
    #[error("preparing TLS for the join")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("field `--join`: joining through {address} failed")]
    Connect {
        address: String,
        #[source]
        source: ConnectError,
    },
    #[error("{address} refused the join: {}{}", status.message(), hint(status))]
    Refused { address: String, status: Box<Status> },
    #[error(
        "field `--join`: no manager could be reached at {addresses} within {patience:?}; the last \
         error was: {last}"
    )]
    Unreachable { addresses: String, patience: Duration, last: String },
    #[error("what the manager at {address} answered is not a usable identity")]
    Answer {
        address: String,
        #[source]
        source: IdentityError,
    },
    #[error("the manager at {address} belongs to cluster {seen}, but signed for cluster {signed}")]
    Inconsistent { address: String, seen: String, signed: String },
    #[error(transparent)]
    Identity(IdentityError),
}

impl Error {
    /// Nobody answered; everything else is a refusal.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

fn hint(status: &Status) -> String {
    if code_of(status) == Some(Code::NameTaken) {
        return " (give this machine another with --name NAME, or remove the node that had it: \
                `clusterctl node rm NAME`)"
            .to_owned();
    }
    hint_of(status).map_or(String::new(), |hint| format!(" ({hint})"))
}

/// Reads a token and checks that it is for workers.
pub fn token(text: &str) -> Result<JoinToken, Error> {
    let token: JoinToken = text.parse().map_err(Error::Token)?;
    if token.role != Role::Worker {
        return Err(Error::WrongRole);
    }
    Ok(token)
}

/// The identity kept in `dir`, expired or not, `None` before the first join. A token, when given
/// beside it, must be of the same cluster, also of a CA that was replaced since: else somebody took
/// the wrong folder.
pub fn kept(dir: &Path, given: Option<&JoinToken>) -> Result<Option<Identity>, Error> {
    let shown = || dir.display().to_string();
    let identity = match Identity::load_any_age(dir) {
        Ok(identity) => identity,
        Err(IdentityError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(Error::Identity(error)),
    };
    if identity.role != Role::Worker {
        let Identity { role, node_id, .. } = identity;
        return Err(Error::OtherRole { dir: shown(), role, node_id });
    }
    if let Some(token) = given
        && !identity.knew_ca(dir, &token.ca_digest)
    {
        return Err(Error::OtherCluster { dir: shown(), cluster_id: identity.cluster_id });
    }
    Ok(Some(identity))
}

/// Joins through any of the addresses; gives the new identity and where managers are.
///
/// *On failure*: addresses that do not answer are tried again until `patience` is over; a refusal
/// ends the attempt at once, because trying again would not change it.
pub async fn join(
    addresses: &[String],
    token: &JoinToken,
    name: &str,
    patience: Duration,
    net: &Net,
) -> Result<(Identity, Vec<String>), Error> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(3));
    let deadline = Instant::now() + patience;
    loop {
        let mut last = String::new();
        for address in addresses {
            match try_join(address, token, name, net).await {
                Err(Error::Connect { source, .. }) if may_pass(&source) => {
                    last = cluster_daemon::chain(&source);
                }
                Err(Error::Refused { status, .. }) if may_come_back(&status) => {
                    last = format!("{address}: {}", status.message());
                }
                other => return other,
            }
            tracing::warn!(address, error = last, "cannot join yet; trying again");
        }
        let pause = backoff.next_delay();
        if Instant::now() + pause >= deadline {
            return Err(Error::Unreachable { addresses: addresses.join(", "), patience, last });
        }
        tokio::time::sleep(pause).await;
    }
}

async fn try_join(
    address: &str,
    token: &JoinToken,
    name: &str,
    net: &Net,
) -> Result<(Identity, Vec<String>), Error> {
    let tls = TlsClient::pinned(token.ca_digest).map_err(|error| Error::Tls(error.into()))?;
    let tls = tls.through(net);
    let options = ChannelOptions { request_timeout: Some(CALL_TIMEOUT), ..Default::default() };
    let failed = |source| Error::Connect { address: address.into(), source };
    let channel = connect(address, &tls, &options).await.map_err(failed)?;
    // A fresh key for each attempt: an identity that never connects does no harm.
    let key = KeyAndCsr::generate().map_err(Error::Key)?;
    let csr_der = pem::parse(&key.csr_pem).map_err(Error::Request)?.into_contents();
    let request = JoinRequest {
        token: token.to_string(),
        csr_der,
        name: name.to_owned(),
        role: Role::Worker.to_string(),
        now_ms: cluster_identity::now_unix() * 1000,
    };
    let refused = |status| Error::Refused { address: address.into(), status: Box::new(status) };
    let answer = CaClient::new(channel).join(request).await.map_err(refused)?.into_inner();
    let JoinResponse { chain, ca, managers, .. } = answer;
    let identity = Identity::new(chain, key.key_pem, ca)
        .map_err(|source| Error::Answer { address: address.into(), source })?;
    let seen = tls.seen_ca().map(|seen| seen.cluster_id).unwrap_or_default();
    if seen != identity.cluster_id {
        let signed = identity.cluster_id;
        return Err(Error::Inconsistent { address: address.into(), seen, signed });
    }
    Ok((identity, managers))
}

/// The manager may be starting or the network be on its way.
fn may_pass(error: &ConnectError) -> bool {
    matches!(
        error,
        ConnectError::Unreachable { .. }
            | ConnectError::Timeout { .. }
            | ConnectError::Closed { .. }
            | ConnectError::Handshake { .. }
            | ConnectError::Http2 { .. }
    )
}

fn may_come_back(status: &Status) -> bool {
    match code_of(status) {
        Some(code) => code.is_retryable(),
        None => matches!(
            status.code(),
            tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_other_roles_and_nonsense_are_refused() {
        let digest = "a".repeat(52);
        let secret = "a".repeat(26);
        let worker = format!("CLUSTER-1-worker-{digest}-{secret}");
        let manager = format!("CLUSTER-1-manager-{digest}-{secret}");
        assert!(token(&worker).is_ok());
        let error = token(&manager).unwrap_err().to_string();
        assert!(error.contains("--role worker"), "{error}");
        assert!(matches!(token("nonsense"), Err(Error::Token(_))));
    }

    #[test]
    fn an_empty_folder_has_no_identity() {
        let dir = tempfile::tempdir().unwrap();
        assert!(kept(dir.path(), None).unwrap().is_none());
    }
}
