//! Certificates and locks.

use std::sync::Arc;

use super::Step;
use crate::command::{Refusal, Reply};
use crate::id::NodeId;
use crate::node::NodeState;
use crate::security::{
    CERT_VALIDITY_MAX_S, CERT_VALIDITY_MIN_S, CaPhase, CaRotation, NewCa, REVOKED_MAX, Secure,
    Security,
};
use crate::state::State;
use crate::validate::Invalid;

impl Step<'_> {
    pub(super) fn secure(&mut self, secure: &Secure) -> Result<Reply, Refusal> {
        if self.state.cluster().is_none() {
            return Err(Refusal::NotBootstrapped);
        }
        match secure {
            Secure::SetCertValidity { seconds } => self.set_cert_validity(*seconds),
            Secure::SetUnlockKey { key } => {
                self.edit_security(|security| security.unlock_key = key.clone())
            }
            Secure::RotateDataKeys => {
                let index = self.index;
                self.edit_security(|security| security.data_keys = index)
            }
            Secure::RotateCa(new) => self.rotate_ca(new),
            Secure::ForceCa => self.edit_rotation(|rotation| rotation.force = true),
            Secure::ConfirmCa { node, started_at_ms, phase } => {
                self.confirm_ca(*node, *started_at_ms, *phase)
            }
            Secure::AdvanceCa { started_at_ms, phase, at_ms } => {
                self.advance_ca(*started_at_ms, *phase, *at_ms)
            }
        }
    }

    /// The certificate of a node that was removed counts no more.
    pub(super) fn revoke(&mut self, node: NodeId) {
        let index = self.index;
        let security = self.security();
        security.revoked.insert(node, index);
        security.trust_version = index;
        while security.revoked.len() > REVOKED_MAX {
            let oldest = security.revoked.iter().min_by_key(|(id, at)| (**at, **id));
            let Some(oldest) = oldest.map(|(id, _)| *id) else { break };
            security.revoked.remove(&oldest);
        }
    }

    /// An id that is a member again, as a manager that joins group after group may be.
    pub(super) fn readmit(&mut self, node: NodeId) {
        if self.state.security().is_some_and(|security| security.revoked.contains_key(&node)) {
            let index = self.index;
            let security = self.security();
            security.revoked.remove(&node);
            security.trust_version = index;
        }
    }

    fn set_cert_validity(&mut self, seconds: u64) -> Result<Reply, Refusal> {
        if !(CERT_VALIDITY_MIN_S..=CERT_VALIDITY_MAX_S).contains(&seconds) {
            return Err(Refusal::Invalid(Invalid {
                field: "cert_validity".into(),
                problem: "is between 10s and 3650d, such as 24h or 90d".into(),
            }));
        }
        let index = self.index;
        self.edit_security(|security| {
            security.cert_validity_s = seconds;
            security.trust_version = index;
        })
    }

    fn rotate_ca(&mut self, new: &NewCa) -> Result<Reply, Refusal> {
        if self.state.rotation().is_some() {
            return Err(Refusal::CaNotNow("a change of the CA is under way".into()));
        }
        let replaced = self.state.cluster().map(|cluster| cluster.ca_certificate.clone());
        let replaced = replaced.unwrap_or_default();
        if replaced != new.replaces {
            return Err(Refusal::CaNotNow("the CA was changed meanwhile; look and repeat".into()));
        }
        self.edit_cluster(|cluster| {
            cluster.ca_certificate.clone_from(&new.certificate);
            cluster.ca_key = new.key.clone();
        })?;
        let rotation = CaRotation {
            started_at_ms: new.at_ms,
            phase: CaPhase::Reissue,
            old_certificate: replaced,
            cross_certificate: new.cross_certificate.clone(),
            worker_token: new.worker_token.clone(),
            manager_token: new.manager_token.clone(),
            force: false,
            confirmed: Default::default(),
        };
        let index = self.index;
        self.edit_security(|security| {
            security.rotation = Some(rotation);
            security.trust_version = index;
        })
    }

    fn confirm_ca(
        &mut self,
        node: NodeId,
        started_at_ms: u64,
        phase: CaPhase,
    ) -> Result<Reply, Refusal> {
        let fits = self.state.rotation().is_some_and(|rotation| {
            rotation.started_at_ms == started_at_ms
                && phase <= rotation.phase
                && rotation.confirmed.get(&node).is_none_or(|known| *known < phase)
        });
        if !fits || !self.state.is_member(node) {
            return Ok(Reply::Done);
        }
        self.edit_rotation(|rotation| {
            rotation.confirmed.insert(node, phase);
        })
    }

    fn advance_ca(
        &mut self,
        started_at_ms: u64,
        phase: CaPhase,
        at_ms: u64,
    ) -> Result<Reply, Refusal> {
        let stale = || Refusal::CaNotNow("the change of the CA is elsewhere by now".into());
        let rotation = self.state.rotation().ok_or_else(stale)?;
        if rotation.started_at_ms != started_at_ms || rotation.phase != phase {
            return Err(stale());
        }
        if let Some(node) = self.state.ca_waits_for().next() {
            return Err(Refusal::CaNotNow(format!("node {node} has not confirmed yet")));
        }
        let index = self.index;
        match phase {
            CaPhase::Reissue => {
                let (worker, manager) =
                    (rotation.worker_token.clone(), rotation.manager_token.clone());
                self.edit_cluster(|cluster| {
                    cluster.worker_token = worker;
                    cluster.manager_token = manager;
                })?;
                self.edit_rotation(|rotation| rotation.phase = CaPhase::Retire)?;
            }
            CaPhase::Retire => {
                self.edit_security(|security| {
                    security.rotation = None;
                    security.ca_rotated_at_ms = at_ms;
                })?;
            }
        }
        self.edit_security(|security| security.trust_version = index)
    }

    fn security(&mut self) -> &mut Security {
        Arc::make_mut(self.state.tables.security.get_or_insert_default())
    }

    fn edit_security(&mut self, edit: impl FnOnce(&mut Security)) -> Result<Reply, Refusal> {
        edit(self.security());
        Ok(Reply::Done)
    }

    fn edit_rotation(&mut self, edit: impl FnOnce(&mut CaRotation)) -> Result<Reply, Refusal> {
        let none = || Refusal::CaNotNow("no change of the CA is under way".into());
        edit(self.security().rotation.as_mut().ok_or_else(none)?);
        Ok(Reply::Done)
    }
}

/// Reading.
impl State {
    /// None: nothing was ever set, all is as by default.
    pub fn security(&self) -> Option<&Security> {
        self.tables.security.as_deref()
    }

    pub fn rotation(&self) -> Option<&CaRotation> {
        self.security()?.rotation.as_ref()
    }

    /// How long a certificate lives, seconds.
    pub fn cert_validity_s(&self) -> u64 {
        self.security().map_or(crate::security::CERT_VALIDITY_S, |known| known.cert_validity_s)
    }

    /// PEM of all CAs that count, the one that signs first.
    pub fn trusted_cas(&self) -> String {
        let Some(cluster) = self.cluster() else { return String::new() };
        match self.rotation() {
            Some(rotation) if rotation.phase == CaPhase::Reissue => {
                format!("{}{}", cluster.ca_certificate, rotation.old_certificate)
            }
            _ => cluster.ca_certificate.clone(),
        }
    }

    pub fn is_revoked(&self, node: NodeId) -> bool {
        self.security().is_some_and(|security| security.revoked.contains_key(&node))
    }

    /// Whether a worker or a manager has this id.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.node(node).is_some()
            || self.cluster().is_some_and(|cluster| cluster.managers.contains_key(&node))
    }

    /// Members that have not done what the present phase of a change of the CA asks.
    pub fn ca_missing(&self) -> impl Iterator<Item = NodeId> {
        let rotation = self.rotation();
        let managers = self.cluster().into_iter().flat_map(|cluster| cluster.managers.keys());
        let members = managers.copied().chain(self.nodes().map(|node| node.id));
        members.filter(move |id| {
            rotation.is_some_and(|known| known.confirmed.get(id) < Some(&known.phase))
        })
    }

    /// Those of them that the phase waits for. While certificates are made anew, that is everybody,
    /// or when forced everybody who is there. Dropping the old CA is not waited for with nodes that are
    /// down, nor with managers, who do it by themselves as soon as they know.
    pub fn ca_waits_for(&self) -> impl Iterator<Item = NodeId> {
        let (phase, force) = self
            .rotation()
            .map_or((CaPhase::Retire, false), |rotation| (rotation.phase, rotation.force));
        self.ca_missing().filter(move |id| {
            let ready = self.node(*id).is_some_and(|node| node.state == NodeState::Ready);
            ready || (phase == CaPhase::Reissue && !force)
        })
    }
}

#[cfg(test)]
mod tests;
