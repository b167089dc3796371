//! What sessions cost before a manager does anything: a server that only answers heartbeats, with
//! the libraries, the kind of certificates and the windows of the real one, and no pings. Figures of
//! managers are compared with it in docs/benchmarks.md.
//!
//! `cargo run --release -p cluster-scale --example floor [-- SESSIONS]`

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster_identity::{
    Ca, ChannelOptions, Identity, Protocol, Role, Subject, TlsClient, TlsIdentity, TlsServer,
    connect, now_unix, serve_tls,
};
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::dispatcher::v1::dispatcher_client::DispatcherClient;
use cluster_pb::dispatcher::v1::dispatcher_server::{Dispatcher, DispatcherServer};
use cluster_pb::dispatcher::v1::manager_message::Item as Out;
use cluster_pb::dispatcher::v1::worker_message::Item as In;
use futures::{Stream, StreamExt as _, stream};
use rand::Rng as _;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

const SESSIONS: u32 = 1667;
const PERIOD: Duration = Duration::from_secs(1);
/// Connections that are made at once.
const CONNECTING: usize = 64;
const SETTLING: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(10);
/// As the manager's.
const QUEUE: usize = 64;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Heartbeats that were answered, and sessions that ended, which none should.
static ANSWERED: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// Answers heartbeats.
struct Echo;

#[tonic::async_trait]
impl Dispatcher for Echo {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<pb::ManagerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut inbound = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = inbound.message().await {
                if let Some(In::Heartbeat(heartbeat)) = message.item {
                    let answer = Out::Heard(pb::Heard { sequence: heartbeat.sequence });
                    let _ = sender.try_send(Ok(pb::ManagerMessage { item: Some(answer) }));
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn publish_logs(
        &self,
        _: Request<Streaming<pb::PublishLogsRequest>>,
    ) -> Result<Response<pb::PublishLogsResponse>, Status> {
        Err(Status::unimplemented("nothing is published here"))
    }
}

fn main() -> Result<()> {
    let sessions = match std::env::args().nth(1) {
        Some(text) => text.parse().context("SESSIONS: is no number")?,
        None => SESSIONS,
    };
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard)?;
    let (servers, clients) = (runtime("server")?, runtime("clients")?);
    let ca = Ca::create("floorcluster", now_unix())?;
    let server = TlsIdentity::new(member(&ca, Role::Manager, "m1")?)?;
    let worker = TlsIdentity::new(member(&ca, Role::Worker, "w1")?)?;
    let address = servers.block_on(serve(&server))?;
    // Heartbeats come each second while this says so; else each answer is followed by the next.
    let (pace, paced) = watch::channel(true);
    clients.block_on(async {
        let tls = TlsClient::manager(&worker);
        let connecting = stream::iter(0..sessions)
            .map(|_| session(address.clone(), tls.clone(), paced.clone()))
            .buffer_unordered(CONNECTING);
        let connected: Vec<Result<()>> = connecting.collect().await;
        connected.into_iter().collect::<Result<()>>()
    })?;
    measure(&format!("{sessions} sessions, a heartbeat a second each"))?;
    pace.send_replace(false);
    measure("the same, each answer followed by the next heartbeat at once")?;
    clients.shutdown_background();
    servers.shutdown_background();
    Ok(())
}

fn runtime(name: &str) -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().thread_name(name).build()?)
}

fn member(ca: &Ca, role: Role, node_id: &str) -> Result<Identity> {
    let (node_id, cluster_id) = (node_id.to_owned(), ca.cluster_id().to_owned());
    let subject = Subject { role, node_id, cluster_id };
    Ok(ca.issue(&subject, now_unix(), Duration::from_secs(3600))?)
}

async fn serve(identity: &TlsIdentity) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let incoming = serve_tls(listener, TlsServer::new(identity, Protocol::Grpc));
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_service(DispatcherServer::new(Echo));
    tokio::spawn(server.serve_with_incoming(incoming));
    Ok(address)
}

/// Opens a session and leaves it to itself.
async fn session(address: String, tls: TlsClient, mut paced: watch::Receiver<bool>) -> Result<()> {
    let channel = connect(&address, &tls, &ChannelOptions::default()).await?;
    let (out, receiver) = mpsc::channel(QUEUE);
    let mut client = DispatcherClient::new(channel);
    let mut inbound = client.session(ReceiverStream::new(receiver)).await?.into_inner();
    tokio::spawn(async move {
        let _client = client;
        let mut sequence = 0;
        loop {
            sequence += 1;
            let heartbeat = pb::Heartbeat { trouble: String::new(), sequence };
            let message = pb::WorkerMessage { item: Some(In::Heartbeat(heartbeat)) };
            if out.send(message).await.is_err() || !matches!(inbound.message().await, Ok(Some(_))) {
                ENDED.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if *paced.borrow_and_update() {
                let pause = PERIOD.mul_f64(rand::rng().random_range(0.9..=1.0));
                let _ = tokio::time::timeout(pause, paced.wait_for(|paced| !paced)).await;
            }
            ANSWERED.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn measure(what: &str) -> Result<()> {
    let count = || ANSWERED.load(Ordering::Relaxed);
    std::thread::sleep(SETTLING);
    let (server, clients, answered) = (cpu("server")?, cpu("clients")?, count());
    std::thread::sleep(MEASURED);
    let (server, clients) = (cpu("server")? - server, cpu("clients")? - clients);
    let answered = (count() - answered) as f64;
    let ended = ENDED.load(Ordering::Relaxed);
    ensure!(ended == 0, "{ended} sessions ended meanwhile: the figures mean nothing");
    let each = |seconds: f64| seconds * 1e6 / answered;
    println!(
        "{what}: {:.0} answered a second; server {:.1} % of a core, {:.1} us each; clients {:.1} us each",
        answered / MEASURED.as_secs_f64(),
        server * 100.0 / MEASURED.as_secs_f64(),
        each(server),
        each(clients),
    );
    Ok(())
}

/// Seconds that the threads of that name have run.
fn cpu(name: &str) -> Result<f64> {
    let mut seconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == name {
            let times = std::fs::read_to_string(task.join("schedstat"))?;
            let nanos = times.split(' ').next().context("schedstat is empty")?;
            seconds += nanos.parse::<f64>()? / 1e9;
        }
    }
    Ok(seconds)
}
