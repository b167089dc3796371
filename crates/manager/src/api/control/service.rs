//! Writing services.

use std::sync::Arc;

use cluster_model::{Command, Reply, ServiceId, validate};
use cluster_pb::control::v1 as pb;
use cluster_wire::{Code, Failure, object, spec};

use super::ControlService;
use crate::context::mint;

impl ControlService {
    pub(super) async fn create(
        &self,
        request: pb::CreateServiceRequest,
    ) -> Result<pb::CreateServiceResponse, Failure> {
        let spec = decode(request.spec)?;
        let (id, at_ms) = (ServiceId(mint()), self.context.clock.now_ms());
        let name = spec.name.clone();
        let (index, _) = self
            .context
            .propose(Command::CreateService { id, spec: Arc::new(spec), at_ms })
            .await?;
        tracing::info!(service_id = %id, name, index, "service created");
        let view = self.context.raft.view();
        let ports = view.state.service(id).map(object::ports).unwrap_or_default();
        Ok(pb::CreateServiceResponse { id: id.to_string(), version: index, ports })
    }

    pub(super) async fn update(
        &self,
        request: pb::UpdateServiceRequest,
    ) -> Result<pb::UpdateServiceResponse, Failure> {
        let id: ServiceId = request
            .id
            .parse()
            .map_err(|error| Failure::new(Code::InvalidField, format!("field `id`: {error}")))?;
        let spec = decode(request.spec)?;
        let at_ms = self.context.clock.now_ms();
        let command =
            Command::UpdateService { id, version: request.version, spec: Arc::new(spec), at_ms };
        let (index, reply) = self.context.propose(command).await?;
        tracing::info!(service_id = %id, index, "service updated");
        let version = match reply {
            Reply::Service { version, .. } => version,
            _ => index,
        };
        Ok(pb::UpdateServiceResponse { version })
    }
}

/// Decodes and validates before anything is proposed, so that what is plainly wrong costs the
/// group nothing; `apply` checks again.
fn decode(
    spec: Option<cluster_pb::types::v1::ServiceSpec>,
) -> Result<cluster_model::ServiceSpec, Failure> {
    let missing = || Failure::new(Code::InvalidField, "field `spec`: is missing");
    let spec = spec::service_spec_from_pb(spec.ok_or_else(missing)?)?;
    validate::service(&spec)?;
    Ok(spec)
}
