//! A user of the control API: one connection a manager, the next one when it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cluster_identity::{
    ChannelOptions, Context as ContextFile, TlsClient, TlsIdentity, connect_lazy,
};
use cluster_pb::control::v1 as pb;
use cluster_pb::control::v1::control_client::ControlClient;
use cluster_pb::types::v1 as types;
use cluster_wire::Code;
use cluster_wire::error::code_of;
use tonic::Status;
use tonic::transport::Channel;

/// Answers are pages; one of tasks is the largest.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

type Control = ControlClient<Channel>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Api {
    tls: TlsClient,
    managers: Arc<Vec<Control>>,
    /// The manager in use.
    current: Arc<AtomicUsize>,
}

impl Api {
    pub fn new(context: ContextFile) -> Result<Self> {
        let identity = TlsIdentity::new(context.identity()?)?;
        let tls = TlsClient::manager(&identity);
        let mut api = Self { tls, managers: Arc::default(), current: Arc::default() };
        api.use_managers(context.managers)?;
        Ok(api)
    }

    pub fn use_managers(&mut self, addresses: Vec<String>) -> Result<()> {
        let options = ChannelOptions { request_timeout: Some(CALL_TIMEOUT), ..Default::default() };
        let dial = |address: &String| {
            let channel = connect_lazy(address, &self.tls, &options)?;
            Ok::<_, anyhow::Error>(
                ControlClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
            )
        };
        self.managers = Arc::new(addresses.iter().map(dial).collect::<Result<_>>()?);
        Ok(())
    }

    /// A client of one manager, for calls of one's own.
    pub fn of(&self, place: usize) -> Control {
        self.managers[place % self.managers.len()].clone()
    }

    /// Begins with another manager.
    pub fn beginning_with(&self, place: usize) -> Self {
        Self { current: Arc::new(AtomicUsize::new(place)), ..self.clone() }
    }

    /// Calls until a manager answers. Only for requests that may safely be sent twice, or whose
    /// repetition is refused by name.
    async fn call<T>(
        &self,
        send: impl AsyncFn(Control) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let place = self.current.load(Ordering::Relaxed);
            match send(self.of(place)).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => {
                    let retryable = code_of(&status)
                        .is_none_or(|code| code.is_retryable() || code == Code::UnknownOutcome);
                    if !retryable {
                        bail!("{}", status.message());
                    }
                    self.current.store(place + 1, Ordering::Relaxed);
                    last = Some(status);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        bail!("no manager answers: {}", last.map(|status| status.to_string()).unwrap_or_default())
    }

    pub async fn cluster(&self) -> Result<pb::GetClusterResponse> {
        let request = || pb::GetClusterRequest { stale: false, state_hash: false };
        self.call(async |mut control| control.get_cluster(request()).await).await
    }

    pub async fn token(&self, role: &str) -> Result<String> {
        let request = || pb::GetTokenRequest { role: role.to_owned(), rotate: false };
        Ok(self.call(async |mut control| control.get_token(request()).await).await?.token)
    }

    /// Creates a service; one that is there already was created by an attempt without an answer.
    pub async fn create(&self, spec: &types::ServiceSpec) -> Result<()> {
        let request = || pb::CreateServiceRequest { spec: Some(spec.clone()) };
        let created = self.call(async |mut control| control.create_service(request()).await).await;
        match created {
            Ok(_) => Ok(()),
            Err(error) if error.to_string().contains("already taken") => Ok(()),
            Err(error) => Err(error).with_context(|| format!("creating {}", spec.name)),
        }
    }

    pub async fn service(&self, name: &str) -> Result<types::Service> {
        let request = || pb::GetServiceRequest { service: name.to_owned(), stale: false };
        let answer = self.call(async |mut control| control.get_service(request()).await).await?;
        answer.service.with_context(|| format!("no answer about {name}"))
    }

    /// Edits a service's spec.
    pub async fn update(&self, name: &str, edit: impl Fn(&mut types::ServiceSpec)) -> Result<()> {
        let service = self.service(name).await?;
        let mut spec = service.spec.with_context(|| format!("{name} has no spec"))?;
        edit(&mut spec);
        let request = || pb::UpdateServiceRequest {
            id: service.id.clone(),
            version: service.version,
            spec: Some(spec.clone()),
            remove_tasks: Vec::new(),
        };
        self.call(async |mut control| control.update_service(request()).await).await?;
        Ok(())
    }

    pub async fn drain(&self, node: &str) -> Result<()> {
        let request = || pb::GetNodeRequest { node: node.to_owned(), stale: false };
        let answer = self.call(async |mut control| control.get_node(request()).await).await?;
        let node = answer.node.context("no answer about a node")?;
        let request = || pb::UpdateNodeRequest {
            id: node.id.clone(),
            version: node.version,
            availability: "drain".to_owned(),
            labels: node.labels.clone(),
            drain_deadline_ms: None,
            drain_force: None,
        };
        self.call(async |mut control| control.update_node(request()).await).await?;
        Ok(())
    }

    /// All services, page by page, as `service ls` does; their number.
    pub async fn list_services(&self) -> Result<usize> {
        let mut after = String::new();
        let mut count = 0;
        loop {
            let request =
                || pb::ListServicesRequest { stale: false, after: after.clone(), limit: 0 };
            let page =
                self.call(async |mut control| control.list_services(request()).await).await?;
            count += page.services.len();
            if page.next.is_empty() {
                return Ok(count);
            }
            after = page.next;
        }
    }

    /// All nodes, as `node ls` does; their number.
    pub async fn list_nodes(&self) -> Result<usize> {
        let mut after = String::new();
        let mut count = 0;
        loop {
            let request = || pb::ListNodesRequest { stale: false, after: after.clone(), limit: 0 };
            let page = self.call(async |mut control| control.list_nodes(request()).await).await?;
            count += page.nodes.len();
            if page.next.is_empty() {
                return Ok(count);
            }
            after = page.next;
        }
    }
}

/// A service of plain tasks.
pub fn service(name: &str, replicas: u32) -> types::ServiceSpec {
    let container = types::ContainerSpec { image: "web:1".to_owned(), ..Default::default() };
    types::ServiceSpec {
        name: name.to_owned(),
        replicas,
        mode: types::service_spec::Mode::Replicated.into(),
        task: Some(types::TaskSpec { container: Some(container), ..Default::default() }),
        ..Default::default()
    }
}
