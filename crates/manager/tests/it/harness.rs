//! Managers as processes on loopback, and clients for them.

mod worker;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster_identity::{
    ChannelOptions, Context, Identity, JoinToken, KeyAndCsr, TlsClient, TlsIdentity, connect,
    connect_lazy,
};
use cluster_pb::ca::v1::ca_client::CaClient;
use cluster_pb::ca::v1::{JoinRequest, JoinResponse};
use cluster_pb::control::v1 as control;
use cluster_pb::control::v1::control_client::ControlClient;
use cluster_pb::types::v1 as types;
use cluster_wire::Code;
use cluster_wire::error::code_of;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Response, Status};

pub use worker::{Known, Session, Worker};

/// Longest wait for anything that must come.
pub const PATIENCE: Duration = Duration::from_secs(15);
pub const LEASE: Duration = Duration::from_millis(1500);

pub struct Manager {
    pub address: String,
    pub data: PathBuf,
    child: Child,
}

impl Manager {
    fn start(dir: &Path, name: &str, args: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let data = dir.join(name);
        let child = spawn(&data, &address, args);
        Self { address, data, child }
    }

    /// Starts it again on its folder and address, after it was killed or stopped.
    pub fn start_again(&mut self, args: &[&str]) {
        self.child = spawn(&self.data, &self.address, args);
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap();
    }

    /// What it wrote to its log since it was started last.
    pub fn told(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    /// Stops the process in its tracks, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

fn spawn(data: &Path, address: &str, args: &[&str]) -> Child {
    let name = data.file_name().unwrap().to_str().unwrap();
    let log = std::fs::File::create(data.with_extension("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_cluster-manager"))
        .args(["--data-dir", data.to_str().unwrap(), "--listen", address, "--name", name])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Cluster {
    pub managers: Vec<Manager>,
    pub admin: TlsIdentity,
    dir: TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for manager in &self.managers {
                let log = manager.data.with_extension("log");
                eprintln!(
                    "--- {}\n{}",
                    log.display(),
                    std::fs::read_to_string(&log).unwrap_or_default()
                );
            }
        }
    }
}

impl Cluster {
    /// One manager that leads.
    pub async fn new() -> Self {
        Self::of(1).await
    }

    pub async fn of(managers: usize) -> Self {
        Self::with_lease(managers, LEASE).await
    }

    pub async fn with_lease(managers: usize, lease: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lease = format!("{}ms", lease.as_millis());
        let args = ["--bootstrap", "--heartbeat-period", "200ms", "--lease", &lease];
        let first = Manager::start(dir.path(), "manager-1", &args);
        let path = first.data.join("admin.json");
        let context = eventually("the context file", async || Context::load(&path).ok()).await;
        let admin = TlsIdentity::new(context.identity().unwrap()).unwrap();
        let mut cluster = Self { managers: vec![first], admin, dir };
        eventually("a leader", async || cluster.info(0).await).await;
        let token = cluster.token("manager").await;
        for number in 2..=managers {
            let join = cluster.managers[0].address.clone();
            let args = ["--join", &join, "--token", &token];
            let manager = Manager::start(cluster.dir.path(), &format!("manager-{number}"), &args);
            cluster.managers.push(manager);
        }
        let voters = async || {
            let info = cluster.info(0).await?;
            let voters = info.managers.iter().filter(|manager| manager.voter).count();
            // The state comes to know a manager a moment after the group does.
            let mut control = cluster.control(0);
            let nodes = control.list_nodes(control::ListNodesRequest::default()).await;
            let nodes = nodes.ok()?.into_inner().nodes;
            let known = nodes.iter().filter(|node| node.role == "manager").count();
            (voters == managers && known == managers).then_some(())
        };
        eventually("all managers to be members", voters).await;
        cluster
    }

    pub fn control(&self, manager: usize) -> ControlClient<Channel> {
        ControlClient::new(channel(&self.managers[manager].address, &self.admin))
    }

    pub async fn info(&self, manager: usize) -> Option<control::GetClusterResponse> {
        let request = control::GetClusterRequest::default();
        self.control(manager).get_cluster(request).await.ok().map(Response::into_inner)
    }

    /// Place in `managers` of the one that leads.
    pub async fn leader(&self, asked: usize) -> Option<usize> {
        let info = self.info(asked).await?;
        let leader = info.managers.into_iter().find(|manager| manager.leader)?;
        self.managers.iter().position(|manager| manager.address == leader.address)
    }

    pub async fn token(&self, role: &str) -> String {
        let request = control::GetTokenRequest { role: role.into(), rotate: false };
        self.control(0).get_token(request).await.unwrap().into_inner().token
    }

    pub async fn worker(&self, name: &str) -> Worker {
        let token = self.token("worker").await;
        Worker::new(join(&self.managers[0].address, &token, "worker", name).await.unwrap())
    }

    /// Creates a service of some image and answers its id.
    pub async fn service(&self, name: &str, replicas: u32, published: u32) -> String {
        let request = control::CreateServiceRequest { spec: Some(spec(name, replicas, published)) };
        self.control(0).create_service(request).await.unwrap().into_inner().id
    }

    pub async fn scale(&self, id: &str, replicas: u32) {
        let request = control::GetServiceRequest { service: id.into(), stale: false };
        let service = self.control(0).get_service(request).await.unwrap().into_inner().service;
        let service = service.unwrap();
        let spec = types::ServiceSpec { replicas, ..service.spec.unwrap() };
        let request = control::UpdateServiceRequest {
            id: id.into(),
            version: service.version,
            spec: Some(spec),
            remove_tasks: Vec::new(),
        };
        self.control(0).update_service(request).await.unwrap();
    }

    pub async fn tasks(&self, manager: usize, service: &str) -> Vec<types::Task> {
        let request = control::ListTasksRequest { service: service.into(), ..Default::default() };
        self.control(manager).list_tasks(request).await.unwrap().into_inner().tasks
    }

    pub async fn node(&self, manager: usize, node: &str) -> types::Node {
        let request = control::GetNodeRequest { node: node.into(), stale: false };
        self.control(manager).get_node(request).await.unwrap().into_inner().node.unwrap()
    }
}

pub fn spec(name: &str, replicas: u32, published: u32) -> types::ServiceSpec {
    let container = types::ContainerSpec { image: "web:1".into(), ..Default::default() };
    let port = types::PortSpec { published, target: 8080, host: false };
    types::ServiceSpec {
        name: name.into(),
        replicas,
        task: Some(types::TaskSpec { container: Some(container), ..Default::default() }),
        ports: if published == 0 { Vec::new() } else { vec![port] },
        ..Default::default()
    }
}

pub fn channel(address: &str, identity: &TlsIdentity) -> Channel {
    connect_lazy(address, &TlsClient::manager(identity), &ChannelOptions::default()).unwrap()
}

/// A machine's first call: a certificate for a token.
pub async fn join(
    address: &str,
    token: &str,
    role: &str,
    name: &str,
) -> Result<TlsIdentity, Status> {
    let key = KeyAndCsr::generate().unwrap();
    let request = JoinRequest {
        token: token.into(),
        csr_der: key.csr_pem.clone().into_bytes(),
        name: name.into(),
        role: role.into(),
        now_ms: 0,
    };
    let JoinResponse { chain, ca, .. } = ask_to_join(address, token, request).await?;
    Ok(TlsIdentity::new(Identity::new(chain, key.key_pem, ca).unwrap()).unwrap())
}

pub async fn ask_to_join(
    address: &str,
    token: &str,
    request: JoinRequest,
) -> Result<JoinResponse, Status> {
    let token: JoinToken = token.parse().unwrap();
    let client = TlsClient::pinned(token.ca_digest).unwrap();
    let channel = connect(address, &client, &ChannelOptions::default()).await.unwrap();
    Ok(CaClient::new(channel).join(request).await?.into_inner())
}

/// The stable code of a refusal.
pub fn refusal<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> (Code, String) {
    let status = result.expect_err("it should be refused");
    (code_of(&status).unwrap_or_else(|| panic!("no code: {status:?}")), status.message().to_owned())
}

/// Asks again until there is an answer.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
