//! What users call.

mod explain;
mod forecast;
mod logs;
mod managers;
mod node;
mod security;
mod service;
mod snapshot;
mod task;
mod turns;
mod watch;

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use cluster_model::{Command, State, Task, TaskId};
use cluster_pb::control::v1 as pb;
use cluster_pb::control::v1::control_server::Control;
use cluster_wire::{Code, Failure, object};
use futures::Stream;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use self::task::Shown;
use self::turns::Turns;
use super::lookup;
use crate::context::Context;
use crate::managers::{change, survey};

/// Objects on a page unless fewer are asked for.
const PAGE_MAX: usize = 1000;
/// Bytes of a page, give or take one object: well under what clients read by default.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

pub struct ControlService {
    context: Context,
    /// Each plans on a copy of the whole state.
    forecasts: Turns,
    /// Each looks at all nodes for each of up to 200 slots.
    explanations: Turns,
    /// States that may be read out at once: each is encoded whole.
    saves: Arc<Semaphore>,
    /// The last hash of the state, and its index.
    hashed: Mutex<Option<(u64, String)>>,
}

impl ControlService {
    pub fn new(context: Context) -> Self {
        Self {
            context,
            forecasts: Turns::of("dry runs"),
            explanations: Turns::of("explanations"),
            saves: Arc::new(Semaphore::new(1)),
            hashed: Mutex::default(),
        }
    }
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Control for ControlService {
    type WatchServiceStream = Streamed<pb::WatchServiceResponse>;
    type LogsStream = Streamed<pb::LogsResponse>;
    type SaveSnapshotStream = Streamed<pb::SaveSnapshotResponse>;

    async fn create_service(
        &self,
        request: Request<pb::CreateServiceRequest>,
    ) -> Result<Response<pb::CreateServiceResponse>, Status> {
        Ok(Response::new(self.create(request.into_inner()).await?))
    }

    async fn update_service(
        &self,
        request: Request<pb::UpdateServiceRequest>,
    ) -> Result<Response<pb::UpdateServiceResponse>, Status> {
        Ok(Response::new(self.update(request.into_inner()).await?))
    }

    async fn remove_service(
        &self,
        request: Request<pb::RemoveServiceRequest>,
    ) -> Result<Response<pb::RemoveServiceResponse>, Status> {
        let view = self.context.read(false).await?;
        let request = request.into_inner();
        let id = lookup::service(&view.state, &request.service)?.id;
        let at_ms = self.context.clock.now_ms();
        let version = request.version;
        self.context.propose(Command::RemoveService { id, at_ms, version }).await?;
        tracing::info!(service_id = %id, "service removed");
        Ok(Response::new(pb::RemoveServiceResponse { id: id.to_string() }))
    }

    async fn get_service(
        &self,
        request: Request<pb::GetServiceRequest>,
    ) -> Result<Response<pb::GetServiceResponse>, Status> {
        let request = request.into_inner();
        let view = self.context.read(request.stale).await?;
        let service = lookup::service(&view.state, &request.service)?;
        let service = Some(self.shown(&view.state, service));
        Ok(Response::new(pb::GetServiceResponse { service, index: view.applied_index }))
    }

    async fn list_services(
        &self,
        request: Request<pb::ListServicesRequest>,
    ) -> Result<Response<pb::ListServicesResponse>, Status> {
        let request = request.into_inner();
        let view = self.context.read(request.stale).await?;
        let limit = page_limit(request.limit);
        let asked = view.state.services_named_after(&request.after);
        let mut counts = self.context.dispatch.counts.reader(&view.state);
        let services =
            asked.map(|service| self.shown_with(&view.state, service, counts.of(service)));
        let (services, more) = page(services, limit);
        let counted = counts.keep();
        tracing::debug!(counted, shown = services.len(), "listed services");
        let last = services.last().filter(|_| more);
        let next = last.and_then(|last| last.spec.as_ref()).map(|spec| spec.name.clone());
        let next = next.unwrap_or_default();
        Ok(Response::new(pb::ListServicesResponse { services, index: view.applied_index, next }))
    }

    async fn list_tasks(
        &self,
        request: Request<pb::ListTasksRequest>,
    ) -> Result<Response<pb::ListTasksResponse>, Status> {
        let request = request.into_inner();
        let view = self.context.read(request.stale).await?;
        let state = &view.state;
        let node = match request.node.as_str() {
            "" => None,
            text => Some(lookup::node(state, text)?.id),
        };
        let not_an_id = |_| Failure::new(Code::InvalidField, "field `after`: is not a task id");
        let after = match request.after.as_str() {
            "" => TaskId(0),
            text => text.parse().map_err(not_an_id)?,
        };
        let tasks: Box<dyn Iterator<Item = &Task> + Send> = match (request.service.as_str(), node) {
            ("", None) => Box::new(state.tasks_after(after)),
            ("", Some(node)) => Box::new(state.tasks_of_node_from(node, after)),
            (text, _) => {
                let service = lookup::service(state, text)?.id;
                let mut tasks: Vec<&Task> = state.tasks_of_service(service).collect();
                tasks.sort_unstable_by_key(|task| task.id);
                Box::new(tasks.into_iter())
            }
        };
        let here = |task: &&Task| node.is_none_or(|node| task.node == Some(node));
        let asked = tasks.filter(here).filter(|task| task.id > after);
        let limit = page_limit(request.limit);
        let shown = Shown::of(state, self.context.clock.now_ms());
        let (tasks, more) = page(asked.map(|task| shown.task(task)), limit);
        let next = tasks.last().filter(|_| more).map(|last| last.id.clone()).unwrap_or_default();
        Ok(Response::new(pb::ListTasksResponse { tasks, index: view.applied_index, next }))
    }

    async fn watch_service(
        &self,
        request: Request<pb::WatchServiceRequest>,
    ) -> Result<Response<Self::WatchServiceStream>, Status> {
        let stream = watch::service(&self.context, &request.into_inner().service).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_nodes(
        &self,
        request: Request<pb::ListNodesRequest>,
    ) -> Result<Response<pb::ListNodesResponse>, Status> {
        Ok(Response::new(self.nodes(request.into_inner()).await?))
    }

    async fn get_node(
        &self,
        request: Request<pb::GetNodeRequest>,
    ) -> Result<Response<pb::GetNodeResponse>, Status> {
        let request = request.into_inner();
        let view = self.context.read(request.stale).await?;
        let node = self.find_node(&view, &request.node).await?;
        Ok(Response::new(pb::GetNodeResponse { node: Some(node), index: view.applied_index }))
    }

    async fn update_node(
        &self,
        request: Request<pb::UpdateNodeRequest>,
    ) -> Result<Response<pb::UpdateNodeResponse>, Status> {
        Ok(Response::new(self.change_node(request.into_inner()).await?))
    }

    async fn remove_node(
        &self,
        request: Request<pb::RemoveNodeRequest>,
    ) -> Result<Response<pb::RemoveNodeResponse>, Status> {
        Ok(Response::new(self.drop_node(request.into_inner()).await?))
    }

    async fn get_cluster(
        &self,
        request: Request<pb::GetClusterRequest>,
    ) -> Result<Response<pb::GetClusterResponse>, Status> {
        Ok(Response::new(self.cluster(request.into_inner()).await?))
    }

    async fn get_token(
        &self,
        request: Request<pb::GetTokenRequest>,
    ) -> Result<Response<pb::GetTokenResponse>, Status> {
        Ok(Response::new(self.token(request.into_inner()).await?))
    }

    async fn roll_back_service(
        &self,
        request: Request<pb::RollBackServiceRequest>,
    ) -> Result<Response<pb::RollBackServiceResponse>, Status> {
        Ok(Response::new(self.roll_back(request.into_inner()).await?))
    }

    async fn steer_rollout(
        &self,
        request: Request<pb::SteerRolloutRequest>,
    ) -> Result<Response<pb::SteerRolloutResponse>, Status> {
        Ok(Response::new(self.steer(request.into_inner()).await?))
    }

    async fn list_revisions(
        &self,
        request: Request<pb::ListRevisionsRequest>,
    ) -> Result<Response<pb::ListRevisionsResponse>, Status> {
        let request = request.into_inner();
        let view = self.context.read(request.stale).await?;
        let service = lookup::service(&view.state, &request.service)?;
        Ok(Response::new(pb::ListRevisionsResponse {
            service_id: service.id.to_string(),
            revisions: object::revisions(&view.state, service),
            index: view.applied_index,
        }))
    }

    async fn update_cluster(
        &self,
        request: Request<pb::UpdateClusterRequest>,
    ) -> Result<Response<pb::UpdateClusterResponse>, Status> {
        Ok(Response::new(self.change_cluster(request.into_inner()).await?))
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        Ok(Response::new(self.explanation(request.into_inner()).await?))
    }

    async fn forecast(
        &self,
        request: Request<pb::ForecastRequest>,
    ) -> Result<Response<pb::ForecastResponse>, Status> {
        Ok(Response::new(self.foresee(request.into_inner()).await?))
    }

    async fn logs(
        &self,
        request: Request<pb::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let stream = logs::open(&self.context, request.into_inner()).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_managers(
        &self,
        request: Request<pb::ListManagersRequest>,
    ) -> Result<Response<pb::ListManagersResponse>, Status> {
        let mut told = survey::survey(&self.context, request.into_inner().stale).await;
        told.managers = self.answering(told.managers);
        Ok(Response::new(told))
    }

    async fn change_manager(
        &self,
        request: Request<pb::ChangeManagerRequest>,
    ) -> Result<Response<pb::ChangeManagerResponse>, Status> {
        Ok(Response::new(change::change(&self.context, request.into_inner()).await?))
    }

    async fn save_snapshot(
        &self,
        request: Request<pb::SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        let stream = self.save(request.into_inner()).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_security(
        &self,
        request: Request<pb::GetSecurityRequest>,
    ) -> Result<Response<pb::GetSecurityResponse>, Status> {
        Ok(Response::new(self.security(request.into_inner()).await?))
    }

    async fn update_security(
        &self,
        request: Request<pb::UpdateSecurityRequest>,
    ) -> Result<Response<pb::UpdateSecurityResponse>, Status> {
        Ok(Response::new(self.change_security(request.into_inner()).await?))
    }

    async fn get_unlock_key(
        &self,
        request: Request<pb::GetUnlockKeyRequest>,
    ) -> Result<Response<pb::GetUnlockKeyResponse>, Status> {
        Ok(Response::new(self.unlock_key(request.into_inner()).await?))
    }

    async fn rotate_ca(
        &self,
        request: Request<pb::RotateCaRequest>,
    ) -> Result<Response<pb::RotateCaResponse>, Status> {
        Ok(Response::new(self.replace_ca(request.into_inner()).await?))
    }
}

fn page_limit(asked: u32) -> usize {
    match usize::try_from(asked) {
        Ok(asked @ 1..PAGE_MAX) => asked,
        _ => PAGE_MAX,
    }
}

/// The first objects, as many as a page may hold, and whether others follow.
fn page<T: prost::Message>(objects: impl Iterator<Item = T>, limit: usize) -> (Vec<T>, bool) {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for object in objects {
        if page.len() >= limit || bytes >= PAGE_BYTES {
            return (page, true);
        }
        bytes += object.encoded_len();
        page.push(object);
    }
    (page, false)
}

fn cluster_of(state: &State) -> Result<&cluster_model::Cluster, Failure> {
    state
        .cluster()
        .ok_or_else(|| Failure::new(Code::Bootstrapped, "the cluster is not bootstrapped yet"))
}
