//! A manager that says what it is told to, over real mutual TLS on a loopback port.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use cluster_identity::{Ca, Protocol, Role, TlsIdentity, TlsServer, serve_tls};
use cluster_pb::control::v1 as pb;
use cluster_pb::control::v1::control_server::{Control, ControlServer};
use cluster_wire::{Code, Failure};
use futures::{Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::member;

/// What the fake answers, and what it was asked.
#[derive(Default)]
pub struct Script {
    /// Answer to everything, when set.
    pub fail: Option<Failure>,
    /// So many questions are put off first.
    pub busy: usize,
    /// Never answer.
    pub silent: bool,
    pub service: pb::GetServiceResponse,
    pub tasks: pb::ListTasksResponse,
    pub nodes: Vec<cluster_pb::types::v1::Node>,
    pub watch: Vec<pb::WatchServiceResponse>,
    /// Ends watches after the last answer, instead of keeping them open.
    pub watch_ends: bool,
    pub logs: Vec<pb::LogsResponse>,
    pub created: Vec<pb::CreateServiceRequest>,
    pub updated: Vec<pb::UpdateServiceRequest>,
    pub removed: Vec<pb::RemoveServiceRequest>,
    pub rolled_back: Vec<pb::RollBackServiceRequest>,
    pub steered: Vec<pb::SteerRolloutRequest>,
    pub nodes_updated: Vec<pb::UpdateNodeRequest>,
    pub clusters_updated: Vec<pb::UpdateClusterRequest>,
    pub forecasts: Vec<pb::ForecastRequest>,
    pub security: pb::GetSecurityResponse,
    pub security_updated: Vec<pb::UpdateSecurityRequest>,
    pub cluster: pb::GetClusterResponse,
    pub revisions: Vec<cluster_pb::types::v1::Revision>,
    pub explanation: pb::ExplainResponse,
    pub forecast: pb::ForecastResponse,
    /// What `get_node` shows one after another, the last again and again; empty: the first of
    /// `nodes`.
    pub node_story: Vec<cluster_pb::types::v1::Node>,
    pub asked: usize,
    pub managers: pb::ListManagersResponse,
    pub managers_changed: Vec<pb::ChangeManagerRequest>,
    pub snapshot: Vec<pb::SaveSnapshotResponse>,
}

/// Serves until dropped.
pub struct FakeManager {
    pub address: SocketAddr,
    pub script: Arc<Mutex<Script>>,
    _runtime: Runtime,
}

impl FakeManager {
    pub fn start(ca: &Ca, script: Script) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let script = Arc::new(Mutex::new(script));
        let identity = TlsIdentity::new(member(ca, Role::Manager, "manager1")).unwrap();
        let service = ControlServer::new(Fake(Arc::clone(&script)));
        let address = runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let incoming = serve_tls(listener, TlsServer::new(&identity, Protocol::Grpc));
            tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
            address
        });
        Self { address, script, _runtime: runtime }
    }
}

struct Fake(Arc<Mutex<Script>>);

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Fake {
    /// Counts the question; the answer unless the script says otherwise.
    async fn answer<T>(&self, make: impl FnOnce(&mut Script) -> T) -> Result<Response<T>, Status> {
        let silent = {
            let mut script = self.0.lock().unwrap();
            script.asked += 1;
            if script.busy > 0 {
                script.busy -= 1;
                return Err(Failure::new(Code::Busy, "overloaded").into());
            }
            if let Some(failure) = script.fail.clone() {
                return Err(failure.into());
            }
            if !script.silent {
                return Ok(Response::new(make(&mut script)));
            }
            script.silent
        };
        debug_assert!(silent);
        std::future::pending().await
    }
}

#[tonic::async_trait]
impl Control for Fake {
    type WatchServiceStream = Streamed<pb::WatchServiceResponse>;
    type LogsStream = Streamed<pb::LogsResponse>;
    type SaveSnapshotStream = Streamed<pb::SaveSnapshotResponse>;

    async fn create_service(
        &self,
        request: Request<pb::CreateServiceRequest>,
    ) -> Result<Response<pb::CreateServiceResponse>, Status> {
        self.answer(|script| {
            script.created.push(request.into_inner());
            pb::CreateServiceResponse { id: "s1".into(), version: 5, ports: Vec::new() }
        })
        .await
    }

    async fn update_service(
        &self,
        request: Request<pb::UpdateServiceRequest>,
    ) -> Result<Response<pb::UpdateServiceResponse>, Status> {
        self.answer(|script| {
            script.updated.push(request.into_inner());
            pb::UpdateServiceResponse { version: 6 }
        })
        .await
    }

    async fn remove_service(
        &self,
        request: Request<pb::RemoveServiceRequest>,
    ) -> Result<Response<pb::RemoveServiceResponse>, Status> {
        let request = request.into_inner();
        let name = request.service.clone();
        if name == "nope" {
            return Err(Failure::not_found("service", &name).into());
        }
        self.answer(|script| {
            script.removed.push(request);
            pb::RemoveServiceResponse { id: format!("id-of-{name}") }
        })
        .await
    }

    async fn get_service(
        &self,
        _: Request<pb::GetServiceRequest>,
    ) -> Result<Response<pb::GetServiceResponse>, Status> {
        self.answer(|script| script.service.clone()).await
    }

    async fn list_services(
        &self,
        request: Request<pb::ListServicesRequest>,
    ) -> Result<Response<pb::ListServicesResponse>, Status> {
        // Two pages.
        let first = request.into_inner().after.is_empty();
        self.answer(|script| pb::ListServicesResponse {
            services: script.service.service.clone().into_iter().collect(),
            index: 1,
            next: if first { "web".into() } else { String::new() },
        })
        .await
    }

    async fn list_tasks(
        &self,
        _: Request<pb::ListTasksRequest>,
    ) -> Result<Response<pb::ListTasksResponse>, Status> {
        self.answer(|script| script.tasks.clone()).await
    }

    async fn watch_service(
        &self,
        _: Request<pb::WatchServiceRequest>,
    ) -> Result<Response<Self::WatchServiceStream>, Status> {
        self.answer(|script| {
            let told = futures::stream::iter(script.watch.clone().into_iter().map(Ok));
            let stream: Self::WatchServiceStream = if script.watch_ends {
                script.fail = Some(Failure::not_found("service", "s1"));
                Box::pin(told)
            } else {
                Box::pin(told.chain(futures::stream::pending()))
            };
            stream
        })
        .await
    }

    async fn list_nodes(
        &self,
        _: Request<pb::ListNodesRequest>,
    ) -> Result<Response<pb::ListNodesResponse>, Status> {
        self.answer(|script| pb::ListNodesResponse {
            nodes: script.nodes.clone(),
            index: 1,
            next: String::new(),
        })
        .await
    }

    async fn get_node(
        &self,
        _: Request<pb::GetNodeRequest>,
    ) -> Result<Response<pb::GetNodeResponse>, Status> {
        self.answer(|script| {
            let node = match script.node_story.len() {
                0 => script.nodes.first().cloned(),
                1 => script.node_story.first().cloned(),
                _ => Some(script.node_story.remove(0)),
            };
            pb::GetNodeResponse { node, index: 1 }
        })
        .await
    }

    async fn update_node(
        &self,
        request: Request<pb::UpdateNodeRequest>,
    ) -> Result<Response<pb::UpdateNodeResponse>, Status> {
        self.answer(|script| {
            script.nodes_updated.push(request.into_inner());
            pb::UpdateNodeResponse { version: 2 }
        })
        .await
    }

    async fn remove_node(
        &self,
        request: Request<pb::RemoveNodeRequest>,
    ) -> Result<Response<pb::RemoveNodeResponse>, Status> {
        self.answer(|_| pb::RemoveNodeResponse { id: request.into_inner().node }).await
    }

    async fn get_cluster(
        &self,
        _: Request<pb::GetClusterRequest>,
    ) -> Result<Response<pb::GetClusterResponse>, Status> {
        self.answer(|script| pb::GetClusterResponse {
            id: "c1".into(),
            managers: vec![pb::ManagerStatus {
                address: "10.0.0.1:7100".into(),
                ..Default::default()
            }],
            ..script.cluster.clone()
        })
        .await
    }

    async fn get_token(
        &self,
        request: Request<pb::GetTokenRequest>,
    ) -> Result<Response<pb::GetTokenResponse>, Status> {
        let role = request.into_inner().role;
        self.answer(|_| pb::GetTokenResponse { token: format!("CLUSTER-1-{role}-x-y") }).await
    }

    async fn roll_back_service(
        &self,
        request: Request<pb::RollBackServiceRequest>,
    ) -> Result<Response<pb::RollBackServiceResponse>, Status> {
        self.answer(|script| {
            script.rolled_back.push(request.into_inner());
            pb::RollBackServiceResponse { version: 6, revision: 1 }
        })
        .await
    }

    async fn steer_rollout(
        &self,
        request: Request<pb::SteerRolloutRequest>,
    ) -> Result<Response<pb::SteerRolloutResponse>, Status> {
        self.answer(|script| {
            let request = request.into_inner();
            let id = request.service.clone();
            script.steered.push(request);
            pb::SteerRolloutResponse { id, version: 7 }
        })
        .await
    }

    async fn list_revisions(
        &self,
        _: Request<pb::ListRevisionsRequest>,
    ) -> Result<Response<pb::ListRevisionsResponse>, Status> {
        self.answer(|script| pb::ListRevisionsResponse {
            service_id: "s1".into(),
            revisions: script.revisions.clone(),
            index: 1,
        })
        .await
    }

    async fn update_cluster(
        &self,
        request: Request<pb::UpdateClusterRequest>,
    ) -> Result<Response<pb::UpdateClusterResponse>, Status> {
        self.answer(|script| {
            script.clusters_updated.push(request.into_inner());
            pb::UpdateClusterResponse {}
        })
        .await
    }

    async fn explain(
        &self,
        _: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        self.answer(|script| script.explanation.clone()).await
    }

    async fn forecast(
        &self,
        request: Request<pb::ForecastRequest>,
    ) -> Result<Response<pb::ForecastResponse>, Status> {
        self.answer(|script| {
            script.forecasts.push(request.into_inner());
            script.forecast.clone()
        })
        .await
    }

    async fn logs(
        &self,
        _: Request<pb::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        self.answer(|script| {
            let stream: Self::LogsStream =
                Box::pin(futures::stream::iter(script.logs.clone().into_iter().map(Ok)));
            stream
        })
        .await
    }

    async fn list_managers(
        &self,
        _: Request<pb::ListManagersRequest>,
    ) -> Result<Response<pb::ListManagersResponse>, Status> {
        self.answer(|script| script.managers.clone()).await
    }

    async fn change_manager(
        &self,
        request: Request<pb::ChangeManagerRequest>,
    ) -> Result<Response<pb::ChangeManagerResponse>, Status> {
        self.answer(|script| {
            let request = request.into_inner();
            let id = format!("id-{}", request.manager);
            let name = request.manager.clone();
            script.managers_changed.push(request);
            pb::ChangeManagerResponse { id, name, done: "done".into() }
        })
        .await
    }

    async fn get_security(
        &self,
        _: Request<pb::GetSecurityRequest>,
    ) -> Result<Response<pb::GetSecurityResponse>, Status> {
        self.answer(|script| script.security.clone()).await
    }

    async fn update_security(
        &self,
        request: Request<pb::UpdateSecurityRequest>,
    ) -> Result<Response<pb::UpdateSecurityResponse>, Status> {
        self.answer(|script| {
            script.security_updated.push(request.into_inner());
            pb::UpdateSecurityResponse { unlock_key: "CLUSTER-UNLOCK-1-x".into() }
        })
        .await
    }

    async fn save_snapshot(
        &self,
        _: Request<pb::SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        self.answer(|script| {
            let stream: Self::SaveSnapshotStream =
                Box::pin(futures::stream::iter(script.snapshot.clone().into_iter().map(Ok)));
            stream
        })
        .await
    }

    async fn get_unlock_key(
        &self,
        _: Request<pb::GetUnlockKeyRequest>,
    ) -> Result<Response<pb::GetUnlockKeyResponse>, Status> {
        self.answer(|_| pb::GetUnlockKeyResponse { unlock_key: "CLUSTER-UNLOCK-1-x".into() }).await
    }

    async fn rotate_ca(
        &self,
        _: Request<pb::RotateCaRequest>,
    ) -> Result<Response<pb::RotateCaResponse>, Status> {
        self.answer(|_| pb::RotateCaResponse {}).await
    }
}
