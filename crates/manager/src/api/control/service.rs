//! Writing services.

use std::sync::Arc;

use cluster_model::{Command, Reply, Service, ServiceId, State, Steer, TaskId, validate};
use cluster_pb::control::v1 as pb;
use cluster_pb::types::v1 as types;
use cluster_planner::cron;
use cluster_wire::{Code, Failure, object, spec};

use super::ControlService;
use crate::api::lookup;
use crate::context::mint;

impl ControlService {
    pub(super) async fn create(
        &self,
        request: pb::CreateServiceRequest,
    ) -> Result<pb::CreateServiceResponse, Failure> {
        let (id, command) = self.create_command(request)?;
        let (index, _) = self.context.propose(command).await?;
        let view = self.context.raft.view();
        let service = view.state.service(id);
        let name = service.map(|service| service.spec.name.as_str()).unwrap_or_default();
        tracing::info!(service_id = %id, name, index, "service created");
        let ports = service.map(object::ports).unwrap_or_default();
        Ok(pb::CreateServiceResponse { id: id.to_string(), version: index, ports })
    }

    /// A service as users see it, with the next moment of its schedule.
    pub(super) fn shown(&self, state: &State, service: &Service) -> types::Service {
        self.shown_with(state, service, object::counts(state, service))
    }

    pub(super) fn shown_with(
        &self,
        state: &State,
        service: &Service,
        counts: object::Counts,
    ) -> types::Service {
        let mut shown = object::service_with(state, service, counts);
        if let Some(schedule) = &service.spec.job.schedule {
            let after_ms = self.context.clock.now_ms().max(service.last_launch_ms);
            shown.next_launch_ms = cron::next_after(schedule, after_ms).unwrap_or(0);
        }
        shown
    }

    /// What a request to create asks for.
    pub(super) fn create_command(
        &self,
        request: pb::CreateServiceRequest,
    ) -> Result<(ServiceId, Command), Failure> {
        let spec = Arc::new(decode(request.spec)?);
        let (id, at_ms) = (ServiceId(mint()), self.context.clock.now_ms());
        Ok((id, Command::CreateService { id, spec, at_ms }))
    }

    pub(super) async fn update(
        &self,
        request: pb::UpdateServiceRequest,
    ) -> Result<pb::UpdateServiceResponse, Failure> {
        let (id, command) = self.update_command(request)?;
        let (index, reply) = self.context.propose(command).await?;
        tracing::info!(service_id = %id, index, "service updated");
        let version = match reply {
            Reply::Service { version, .. } => version,
            _ => index,
        };
        Ok(pb::UpdateServiceResponse { version })
    }

    /// What a request to update asks for.
    pub(super) fn update_command(
        &self,
        request: pb::UpdateServiceRequest,
    ) -> Result<(ServiceId, Command), Failure> {
        let id: ServiceId = request
            .id
            .parse()
            .map_err(|error| Failure::new(Code::InvalidField, format!("field `id`: {error}")))?;
        let spec = Arc::new(decode(request.spec)?);
        let give_up = request.remove_tasks.iter().enumerate().map(|(place, text)| {
            let refuse = |error| {
                Failure::new(Code::InvalidField, format!("field `remove_tasks[{place}]`: {error}"))
            };
            text.parse::<TaskId>().map_err(refuse)
        });
        let give_up = give_up.collect::<Result<Vec<_>, _>>()?;
        let (version, at_ms) = (request.version, self.context.clock.now_ms());
        Ok((id, Command::UpdateService { id, version, spec, at_ms, give_up }))
    }

    pub(super) async fn roll_back(
        &self,
        request: pb::RollBackServiceRequest,
    ) -> Result<pb::RollBackServiceResponse, Failure> {
        let id: ServiceId = request
            .id
            .parse()
            .map_err(|error| Failure::new(Code::InvalidField, format!("field `id`: {error}")))?;
        let at_ms = self.context.clock.now_ms();
        let to = (request.to != 0).then_some(request.to);
        let command = Command::RollBackService { id, version: request.version, to, at_ms };
        let (index, _) = self.context.propose(command).await?;
        let view = self.context.raft.view();
        let revision = view.state.service(id).map_or(0, |service| service.revision);
        tracing::info!(service_id = %id, index, revision, "service rolled back");
        Ok(pb::RollBackServiceResponse { version: index, revision })
    }

    pub(super) async fn steer(
        &self,
        request: pb::SteerRolloutRequest,
    ) -> Result<pb::SteerRolloutResponse, Failure> {
        let steer = match request.steer.as_str() {
            "pause" => Steer::Pause,
            "resume" => Steer::Resume,
            "promote" => Steer::Promote,
            _ => {
                let message = "field `steer`: is unknown; use pause, resume or promote";
                return Err(Failure::new(Code::InvalidField, message));
            }
        };
        let view = self.context.read(false).await?;
        let service = lookup::service(&view.state, &request.service)?;
        let (id, version) = (service.id, service.version);
        let at_ms = self.context.clock.now_ms();
        self.context.propose(Command::SteerRollout { id, steer, at_ms }).await?;
        tracing::info!(service_id = %id, steer = request.steer, "rollout steered");
        Ok(pb::SteerRolloutResponse { id: id.to_string(), version })
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
    if let Some(schedule) = &spec.job.schedule {
        // Only the planner knows calendars, and only here is somebody told.
        cron::validate(&schedule.cron, &schedule.time_zone).map_err(|problem| {
            Failure::new(Code::InvalidField, format!("field `job.schedule`: {problem}"))
        })?;
    }
    Ok(spec)
}
