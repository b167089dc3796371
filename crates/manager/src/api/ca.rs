//! Joining and renewal: the only way to a certificate.

use cluster_identity::{
    Ca, DEFAULT_VALIDITY, JoinSecret, JoinToken, Role, SecretPem, Subject, now_unix,
};
use cluster_model::{Cluster, Command, NodeId, validate};
use cluster_pb::ca::v1::ca_server::Ca as CaRpc;
use cluster_pb::ca::v1::{JoinRequest, JoinResponse, RenewRequest, RenewResponse};
use cluster_wire::{Code, Failure};
use tonic::{Request, Response, Status};

use super::peer_of;
use crate::clock::wall_ms;
use crate::context::{Context, chain, mint};

/// How far a joiner's clock may be off: certificates are backdated an hour, so more would make a
/// fresh one look not yet valid.
const CLOCK_SKEW_MAX_MS: u64 = 30 * 60 * 1000;

pub struct CaService {
    pub context: Context,
}

#[tonic::async_trait]
impl CaRpc for CaService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let address =
            request.extensions().get::<cluster_identity::PeerInfo>().map(|info| info.addr);
        let request = request.into_inner();
        let name = request.name.clone();
        let response = self.admit(request).await.inspect_err(|failure| {
            tracing::warn!(?address, name, reason = %failure, "refused a joining machine");
        })?;
        tracing::info!(
            ?address,
            name,
            node_id = response.node_id,
            "gave a machine its certificate"
        );
        Ok(Response::new(response))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let peer = peer_of(&request)?;
        let view = self.context.read(false).await?;
        let cluster = cluster_of(&view.state)?;
        let id = peer.node_id.parse::<NodeId>().ok();
        let member = match peer.role {
            Role::Worker => id.is_some_and(|id| view.state.node(id).is_some()),
            Role::Manager => id.is_some_and(|id| cluster.managers.contains_key(&id)),
            Role::Admin => true,
        };
        if !member {
            let message = format!("node `{}` is not in the cluster", peer.node_id);
            return Err(Failure::new(Code::Removed, message).into());
        }
        let subject =
            Subject { role: peer.role, node_id: peer.node_id, cluster_id: cluster.id.to_string() };
        let chain = sign(cluster, &request.into_inner().csr_der, &subject)?;
        tracing::info!(node_id = subject.node_id, "renewed a certificate");
        Ok(Response::new(RenewResponse { chain, ca: cluster.ca_certificate.clone() }))
    }
}

impl CaService {
    async fn admit(&self, request: JoinRequest) -> Result<JoinResponse, Failure> {
        validate::name("name", &request.name)?;
        let role: Role =
            request.role.parse().ok().filter(|role| *role != Role::Admin).ok_or_else(|| {
                Failure::new(Code::InvalidField, "field `role`: use worker or manager")
            })?;
        let view = self.context.read(false).await?;
        let cluster = cluster_of(&view.state)?;
        check_token(cluster, role, &request.token)?;
        check_clock(request.now_ms)?;
        let node_id = NodeId(mint());
        let subject =
            Subject { role, node_id: node_id.to_string(), cluster_id: cluster.id.to_string() };
        let chain = sign(cluster, &request.csr_der, &subject)?;
        if role == Role::Worker {
            let at_ms = self.context.clock.now_ms();
            self.context
                .propose(Command::RegisterNode { id: node_id, name: request.name, at_ms })
                .await?;
        } else if cluster.managers.values().any(|manager| manager.name == request.name) {
            let message = format!("manager name `{}` is already taken", request.name);
            return Err(Failure::new(Code::NameTaken, message));
        }
        Ok(JoinResponse {
            node_id: node_id.to_string(),
            cluster_id: cluster.id.to_string(),
            chain,
            ca: cluster.ca_certificate.clone(),
            managers: cluster.managers.values().map(|manager| manager.address.clone()).collect(),
        })
    }
}

fn cluster_of(state: &cluster_model::State) -> Result<&Cluster, Failure> {
    state
        .cluster()
        .ok_or_else(|| Failure::new(Code::Bootstrapped, "the cluster is not bootstrapped yet"))
}

/// Accepts the whole token or its secret part. What is wrong with a wrong one is said only as far
/// as it helps an honest caller: the right secret for the other role is recognised.
fn check_token(cluster: &Cluster, role: Role, token: &str) -> Result<(), Failure> {
    let wrong = |message: &str| Failure::new(Code::WrongToken, message);
    let secret = match token.parse::<JoinToken>() {
        Ok(token) => token.secret,
        Err(_) => JoinSecret::parse(token)
            .map_err(|_| wrong("the token is not a join token of this kind of cluster"))?,
    };
    let matches = |stored: &cluster_model::cluster::Secret| {
        JoinSecret::parse(stored.expose()).is_ok_and(|stored| stored.matches(&secret))
    };
    let (wanted, other) = match role {
        Role::Manager => (&cluster.manager_token, &cluster.worker_token),
        _ => (&cluster.worker_token, &cluster.manager_token),
    };
    if matches(wanted) {
        return Ok(());
    }
    if matches(other) {
        let message = format!("the token is valid, but not for joining as a {role}");
        return Err(wrong(&message));
    }
    Err(wrong(
        "the token is not this cluster's present token: it was rotated, or is another cluster's",
    ))
}

fn check_clock(theirs_ms: u64) -> Result<(), Failure> {
    let ours_ms = wall_ms();
    if theirs_ms == 0 || theirs_ms.abs_diff(ours_ms) <= CLOCK_SKEW_MAX_MS {
        return Ok(());
    }
    let minutes = theirs_ms.abs_diff(ours_ms) / 60_000;
    let direction = if theirs_ms > ours_ms { "ahead of" } else { "behind" };
    let message =
        format!("the joining machine's clock is {minutes} minutes {direction} the manager's");
    Err(Failure::new(Code::ClockOff, message))
}

fn sign(cluster: &Cluster, csr: &[u8], subject: &Subject) -> Result<String, Failure> {
    let key = SecretPem::new(cluster.ca_key.expose());
    let ca = Ca::from_pem(&cluster.ca_certificate, &key)
        .map_err(|error| Failure::new(Code::Internal, chain(&error)))?;
    ca.sign(csr, subject, now_unix(), DEFAULT_VALIDITY).map_err(|error| {
        Failure::new(Code::InvalidField, format!("field `csr`: {}", chain(&error)))
    })
}
