//! Joining, renewal and coming back: the only ways to a certificate.

use cluster_daemon::chain;
use cluster_identity::{CaDigest, JoinSecret, JoinToken, Leaf, Role, Subject, now_unix};
use cluster_model::{CaPhase, Cluster, Command, NodeId, Secure, validate};
use cluster_pb::ca::v1::ca_server::Ca as CaRpc;
use cluster_pb::ca::v1::{
    ConfirmTrustRequest, ConfirmTrustResponse, JoinRequest, JoinResponse, RecoverRequest,
    RenewRequest, RenewResponse,
};
use cluster_wire::{Code, Failure};
use tonic::{Request, Response, Status};

use super::{node_of, peer_of};
use crate::certificates::sign;
use crate::clock::wall_ms;
use crate::context::{Context, mint};

/// How far a joiner's clock may be off: certificates are backdated an hour, so more would make a
/// fresh one look not yet valid.
const CLOCK_SKEW_MAX_MS: u64 = 30 * 60 * 1000;
/// How long after its certificate expired a worker comes back by itself, seconds.
const RECOVER_WITHIN_S: u64 = 30 * 24 * 3600;
/// What an expired certificate's key signs, before the request: never to be taken for another use.
pub const RECOVER_PURPOSE: &[u8] = b"cluster recover";

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
        let chain = sign(&view.state, &request.into_inner().csr_der, &subject)?;
        tracing::info!(node_id = subject.node_id, "renewed a certificate");
        Ok(Response::new(RenewResponse { chain, ca: view.state.trusted_cas() }))
    }

    async fn recover(
        &self,
        request: Request<RecoverRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let answer = self.take_back(request.into_inner()).await.inspect_err(|failure| {
            tracing::warn!(reason = %failure, "refused a node whose certificate expired");
        })?;
        Ok(Response::new(answer))
    }

    async fn confirm_trust(
        &self,
        request: Request<ConfirmTrustRequest>,
    ) -> Result<Response<ConfirmTrustResponse>, Status> {
        let peer = peer_of(&request)?;
        let node = node_of(&request)?;
        let view = self.context.read(false).await?;
        let cluster = cluster_of(&view.state)?;
        let done = Ok(Response::new(ConfirmTrustResponse {}));
        let Some(rotation) = view.state.rotation() else { return done };
        if !peer.is_issued_by(&cluster.ca_certificate) {
            let message = "the certificate shown is not one of the new CA: renew it first";
            return Err(Failure::new(Code::CaNotNow, message).into());
        }
        let digest = |pem: &str| {
            CaDigest::of_pem(pem)
                .map(|digest| digest.to_string())
                .map_err(|error| Failure::new(Code::Internal, chain(&error)))
        };
        let trusted = request.into_inner().ca_digests;
        let new = digest(&cluster.ca_certificate)?;
        let old = digest(&rotation.old_certificate)?;
        let phase = match trusted.contains(&old) {
            _ if !trusted.contains(&new) => return done,
            true => CaPhase::Reissue,
            false => rotation.phase,
        };
        let started_at_ms = rotation.started_at_ms;
        let confirm = Secure::ConfirmCa { node, started_at_ms, phase };
        self.context.propose(Command::Secure(confirm)).await?;
        done
    }
}

impl CaService {
    /// A fresh certificate for one that expired, whose key signed the request.
    async fn take_back(&self, request: RecoverRequest) -> Result<RenewResponse, Failure> {
        let view = self.context.read(false).await?;
        let state = &view.state;
        let cluster = cluster_of(state)?;
        let message = [RECOVER_PURPOSE, &request.csr_der].concat();
        let trusted = state.trusted_cas();
        let leaf = Leaf::verify(&request.certificate, &trusted, &message, &request.signature)
            .map_err(|error| Failure::new(Code::NoCertificate, chain(&error)))?;
        let subject = leaf.subject;
        let id = subject.node_id.parse::<NodeId>().ok();
        let member = subject.role == Role::Worker
            && subject.cluster_id == cluster.id.to_string()
            && id.is_some_and(|id| state.node(id).is_some() && !state.is_revoked(id));
        if !member {
            let message = format!("worker `{}` is not in the cluster", subject.node_id);
            return Err(Failure::new(Code::Removed, message));
        }
        let late_s = now_unix().saturating_sub(leaf.not_after);
        if late_s > RECOVER_WITHIN_S {
            let message = format!(
                "the certificate of node `{}` expired {} days ago, more than {}",
                subject.node_id,
                late_s / 86_400,
                RECOVER_WITHIN_S / 86_400
            );
            return Err(Failure::new(Code::TooLate, message));
        }
        let chain = sign(state, &request.csr_der, &subject)?;
        tracing::info!(
            node_id = subject.node_id,
            late_s,
            "took back a node whose certificate expired"
        );
        Ok(RenewResponse { chain, ca: trusted })
    }

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
        let chain = sign(&view.state, &request.csr_der, &subject)?;
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
            ca: view.state.trusted_cas(),
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
