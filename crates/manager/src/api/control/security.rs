//! Certificates and locks, as users see and change them.

use cluster_daemon::chain;
use cluster_identity::{Ca, CaDigest, JoinSecret, Leaf, SecretPem, UnlockKey, now_unix};
use cluster_model::cluster::Secret;
use cluster_model::security::NewCa;
use cluster_model::{Command, NodeId, Secure, State};
use cluster_pb::control::v1 as pb;
use cluster_wire::{Code, Failure, object};

use super::{ControlService, cluster_of};

/// Nodes named that have not confirmed.
const MISSING_MAX: usize = 100;

fn internal(error: &dyn std::error::Error) -> Failure {
    Failure::new(Code::Internal, chain(error))
}

impl ControlService {
    pub(super) async fn security(
        &self,
        request: pb::GetSecurityRequest,
    ) -> Result<pb::GetSecurityResponse, Failure> {
        let view = self.context.read(request.stale).await?;
        let state = &view.state;
        let ca = &cluster_of(state)?.ca_certificate;
        let security = state.security();
        let revoked = security.map_or(0, |security| security.revoked.len());
        Ok(pb::GetSecurityResponse {
            ca_digest: CaDigest::of_pem(ca).map_err(|error| internal(&error))?.to_string(),
            ca_not_after: Leaf::not_after_of(ca).map_err(|error| internal(&error))?,
            cert_validity_s: state.cert_validity_s(),
            autolock: security.is_some_and(|security| security.unlock_key.is_some()),
            rotation: rotation(state),
            ca_rotated_at_ms: security.map_or(0, |security| security.ca_rotated_at_ms),
            revoked: u32::try_from(revoked).unwrap_or(u32::MAX),
            index: view.applied_index,
        })
    }

    pub(super) async fn change_security(
        &self,
        request: pb::UpdateSecurityRequest,
    ) -> Result<pb::UpdateSecurityResponse, Failure> {
        let mut response = pb::UpdateSecurityResponse::default();
        if let Some(seconds) = request.cert_validity_s {
            self.secure(Secure::SetCertValidity { seconds }).await?;
            tracing::info!(seconds, "validity of certificates changed");
        }
        match request.autolock {
            Some(true) => {
                let view = self.context.read(false).await?;
                let locked = view.state.security().and_then(|known| known.unlock_key.clone());
                response.unlock_key = match locked {
                    Some(key) => key.expose().to_owned(),
                    None => self.new_unlock_key().await?,
                };
            }
            Some(false) => {
                self.secure(Secure::SetUnlockKey { key: None }).await?;
                tracing::info!("autolock is off");
            }
            None => {}
        }
        if request.rotate_data_keys {
            self.secure(Secure::RotateDataKeys).await?;
            tracing::info!("new data keys are made");
        }
        Ok(response)
    }

    pub(super) async fn unlock_key(
        &self,
        request: pb::GetUnlockKeyRequest,
    ) -> Result<pb::GetUnlockKeyResponse, Failure> {
        let view = self.context.read(false).await?;
        let locked = view.state.security().and_then(|known| known.unlock_key.clone());
        let Some(key) = locked else {
            return Err(Failure::new(Code::NotLocked, "the managers are not locked"));
        };
        let unlock_key = match request.rotate {
            true => self.new_unlock_key().await?,
            false => key.expose().to_owned(),
        };
        Ok(pb::GetUnlockKeyResponse { unlock_key })
    }

    async fn new_unlock_key(&self) -> Result<String, Failure> {
        let key = UnlockKey::generate().map_err(|error| internal(&error))?.expose();
        self.secure(Secure::SetUnlockKey { key: Some(Secret::new(key.clone())) }).await?;
        tracing::info!("the managers' folders get a new lock");
        Ok(key)
    }

    pub(super) async fn replace_ca(
        &self,
        request: pb::RotateCaRequest,
    ) -> Result<pb::RotateCaResponse, Failure> {
        let view = self.context.read(false).await?;
        if request.force && view.state.rotation().is_some() {
            self.secure(Secure::ForceCa).await?;
            tracing::warn!("the change of the CA waits for absent nodes no longer");
            return Ok(pb::RotateCaResponse {});
        }
        let cluster = cluster_of(&view.state)?;
        let key = SecretPem::new(cluster.ca_key.expose());
        let old = Ca::from_pem(&cluster.ca_certificate, &key).map_err(|error| internal(&error))?;
        let now = now_unix();
        let new = Ca::create(old.cluster_id(), now).map_err(|error| internal(&error))?;
        let token = || JoinSecret::generate().map(|secret| Secret::new(secret.expose()));
        let new = NewCa {
            replaces: cluster.ca_certificate.clone(),
            certificate: new.cert_pem().to_owned(),
            key: Secret::new(new.key_pem().expose().to_owned()),
            cross_certificate: old.cross_sign(&new, now).map_err(|error| internal(&error))?,
            worker_token: token().map_err(|error| internal(&error))?,
            manager_token: token().map_err(|error| internal(&error))?,
            at_ms: self.context.clock.now_ms(),
        };
        self.secure(Secure::RotateCa(Box::new(new))).await?;
        if request.force {
            self.secure(Secure::ForceCa).await?;
        }
        tracing::warn!(force = request.force, "the CA is being replaced");
        Ok(pb::RotateCaResponse {})
    }

    async fn secure(&self, secure: Secure) -> Result<(), Failure> {
        self.context.propose(Command::Secure(secure)).await.map(drop)
    }
}

fn rotation(state: &State) -> Option<pb::CaRotation> {
    let rotation = state.rotation()?;
    let missing: Vec<NodeId> = state.ca_missing().collect();
    let waits: Vec<NodeId> = state.ca_waits_for().collect();
    let managers = state.cluster().map_or(0, |cluster| cluster.managers.len());
    let nodes = managers + state.node_count();
    let shown = |id: &NodeId| {
        let worker = state.node(*id);
        let manager = state.cluster().and_then(|cluster| cluster.managers.get(id));
        let name = worker.map(|node| &node.name).or(manager.map(|manager| &manager.name));
        pb::CaMissing {
            id: id.to_string(),
            name: name.cloned().unwrap_or_default(),
            role: if worker.is_some() { "worker" } else { "manager" }.to_owned(),
            state: worker.map_or("", |node| object::node_state_to_str(node.state)).to_owned(),
            waited_for: waits.contains(id),
        }
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    // Those that hold it up first.
    let (held, other): (Vec<NodeId>, Vec<NodeId>) =
        missing.iter().partition(|id| waits.binary_search(id).is_ok() || waits.contains(id));
    Some(pb::CaRotation {
        phase: rotation.phase.as_str().to_owned(),
        started_at_ms: rotation.started_at_ms,
        force: rotation.force,
        done: count(nodes.saturating_sub(missing.len())),
        nodes: count(nodes),
        missing: held.iter().chain(&other).take(MISSING_MAX).map(shown).collect(),
    })
}
