//! One port, several doors: consensus, who keeps the cluster alive, and everybody else.
//!
//! Managers are served on the threads of consensus: thousands of workers that come back at once would
//! keep votes and heartbeats waiting longer than openraft waits for an answer. Workers are served on
//! the manager's own threads. Users, and strangers who show no certificate, are served on threads of
//! their own that step back for those, so that a flood of requests costs users their time long before it
//! costs a node its lease. Handshakes are everybody's, and what users ask of a follower it asks of the
//! leader as a manager. Which door a connection takes is known from its certificate, once it has shaken
//! hands.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_identity::net::Listener;
use cluster_identity::{
    LogGate, Protocol, Role, TlsConn, TlsIdentity, TlsIncoming, TlsServer, serve_tls_until,
};
use cluster_pb::ca::v1::ca_server::CaServer;
use cluster_pb::control::v1::control_server::ControlServer;
use cluster_pb::dispatcher::v1::dispatcher_server::DispatcherServer;
use cluster_pb::peer::v1::peer_server::PeerServer;
use futures::StreamExt as _;
use nix::sys::resource::{Resource, getrlimit};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;

use crate::access::AccessLayer;
use crate::api::REQUEST_BYTES_MAX;
use crate::api::ca::CaService;
use crate::api::control::ControlService;
use crate::api::peer::PeerService;
use crate::context::Context;
use crate::dispatch::publish::DispatcherService;

/// For requests under way, after which their connections are cut.
const GRACE: Duration = Duration::from_millis(700);
/// A connection whose peer does not answer a ping for this long is dead.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(4);
/// Bytes a client may send on one stream before they are read: idle sessions stay small.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Connections of users that are open at once, and never more than a quarter of the files that the
/// process may open: workers, managers and the log need theirs. One beyond is closed at once.
const USERS_MAX: usize = 4096;
/// The same for strangers, who want a certificate (a joining machine, or one whose certificate expired),
/// and for nodes that were removed and have yet to hear it.
const STRANGERS_MAX: usize = 256;
/// After so long a stranger's connection breaks: each asks one question.
const STRANGER_STAYS: Duration = Duration::from_secs(30);
/// Connections of managers that wait to be picked up.
const MANAGERS_WAITING: usize = 64;
/// The same of workers; so many that those of managers, which come after them, seldom wait for these.
const WORKERS_WAITING: usize = 4096;

/// Serves until `stop`; new connections are refused from `closing` on. Users are served on the threads
/// of `users`, with none on the caller's.
pub fn run(
    context: Context,
    listener: Listener,
    tls: &TlsIdentity,
    closing: CancellationToken,
    stop: CancellationToken,
    users: Option<Handle>,
) -> impl Future<Output = anyhow::Result<()>> + use<> {
    let server = TlsServer::new(tls, Protocol::Grpc);
    let incoming = serve_tls_until(listener, server, closing.cancelled_owned());
    let access = AccessLayer::new(tls);
    let door = |waiting, runtime: Option<Handle>| {
        let (queue, connections) = mpsc::channel(waiting);
        // Boxed: unoptimised, three of them in one future are too much for a stack.
        let serving = Box::pin(serve(&context, &access, connections, stop.clone()));
        let serving = on(runtime.clone(), serving);
        (Door { queue, runtime }, serving)
    };
    let (managers, for_managers) = door(MANAGERS_WAITING, context.raft.threads());
    let (workers, for_workers) = door(WORKERS_WAITING, None);
    let (users, for_users) = door(USERS_MAX + STRANGERS_MAX, users);
    let doors = Doors { managers, workers, users };
    let usher = Usher::new(tls.clone(), doors, users_max(), STRANGERS_MAX);
    async move {
        tokio::select! {
            ended = async { tokio::try_join!(for_managers, for_workers, for_users) } => {
                ended.map(|_| ())
            }
            never = usher.run(incoming) => match never {},
            // Streams of other managers end when those notice that this one has gone.
            () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
        }
    }
}

fn users_max() -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(files / 4).map_or(USERS_MAX, |quarter| quarter.clamp(1, USERS_MAX))
}

/// Runs on those threads, with none on the caller's; what is dropped ends there too.
async fn on(
    runtime: Option<Handle>,
    serving: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) -> anyhow::Result<()> {
    match runtime {
        Some(runtime) => AbortOnDropHandle::new(runtime.spawn(serving)).await?,
        None => serving.await,
    }
}

/// Where connections wait to be served, on the threads of `runtime`.
struct Door {
    queue: mpsc::Sender<TlsConn>,
    runtime: Option<Handle>,
}

impl Door {
    /// `None`: the connection broke on its way.
    fn lead(&self, connection: TlsConn) -> Option<TlsConn> {
        match &self.runtime {
            Some(runtime) => {
                let addr = connection.info().addr;
                let moved = connection.on(runtime);
                moved.inspect_err(|error| tracing::debug!(%addr, %error, "connection lost")).ok()
            }
            None => Some(connection),
        }
    }

    async fn send(&self, connection: TlsConn) {
        if let Some(connection) = self.lead(connection) {
            // A server that has ended takes the rest with it.
            let _ = self.queue.send(connection).await;
        }
    }
}

struct Doors {
    managers: Door,
    workers: Door,
    users: Door,
}

/// Sends each connection to its door.
struct Usher {
    /// Knows the nodes that were removed.
    identity: TlsIdentity,
    doors: Doors,
    users_room: Arc<Semaphore>,
    strangers_room: Arc<Semaphore>,
    /// A flood must not become one of log lines.
    told: LogGate,
}

impl Usher {
    fn new(identity: TlsIdentity, doors: Doors, users_max: usize, strangers_max: usize) -> Self {
        let users_room = Arc::new(Semaphore::new(users_max));
        let strangers_room = Arc::new(Semaphore::new(strangers_max));
        let told = LogGate::default();
        Self { identity, doors, users_room, strangers_room, told }
    }

    /// When no more come it waits: a door that saw the end of its connections would take it for the end
    /// of what it serves.
    async fn run(mut self, mut incoming: TlsIncoming) -> Infallible {
        while let Some(Ok(connection)) = incoming.next().await {
            let peer = connection.info().peer.as_ref();
            let peer = peer.filter(|peer| !self.identity.is_denied(&peer.node_id));
            match peer.map(|peer| peer.role) {
                Some(Role::Manager) => self.doors.managers.send(connection).await,
                Some(Role::Worker) => self.doors.workers.send(connection).await,
                Some(Role::Admin) => self.let_in(connection, self.users_room.clone()),
                None => {
                    let connection = connection.breaking_after(STRANGER_STAYS);
                    self.let_in(connection, self.strangers_room.clone());
                }
            }
        }
        std::future::pending().await
    }

    fn let_in(&mut self, connection: TlsConn, room: Arc<Semaphore>) {
        if let Ok(place) = room.try_acquire_owned() {
            let users = &self.doors.users;
            if let Some(connection) = users.lead(connection) {
                // There is a place in the queue for each in the rooms.
                let _ = users.queue.try_send(connection.holding(place));
            }
            return;
        }
        if let Some(suppressed) = self.told.pass(Instant::now()) {
            let addr = connection.info().addr;
            tracing::warn!(%addr, suppressed, "too many connections of users: closed the newest");
        }
    }
}

fn serve(
    context: &Context,
    access: &AccessLayer,
    connections: mpsc::Receiver<TlsConn>,
    stop: CancellationToken,
) -> impl Future<Output = anyhow::Result<()>> + Send + use<> {
    let incoming = ReceiverStream::new(connections).map(Ok::<_, std::io::Error>);
    let control = ControlServer::new(ControlService::new(context.clone()))
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let dispatcher = DispatcherServer::new(DispatcherService { context: context.clone() })
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_PERIOD))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .layer(access.clone())
        .add_service(CaServer::new(CaService { context: context.clone() }))
        .add_service(control)
        .add_service(dispatcher)
        .add_service(PeerServer::new(PeerService { context: context.clone() }))
        .add_service(context.raft.service())
        .serve_with_incoming_shutdown(incoming, async move { stop.cancelled().await });
    async move { Ok(server.await?) }
}

#[cfg(test)]
mod tests {
    use cluster_identity::{Ca, ClientStream, ConnectError, Subject, TlsClient, now_unix};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    type Dialling = AbortOnDropHandle<Result<ClientStream, ConnectError>>;

    const SOON: Duration = Duration::from_secs(10);

    fn identity(ca: &Ca, role: Role, node_id: &str) -> TlsIdentity {
        let (node_id, cluster_id) = (node_id.to_owned(), ca.cluster_id().to_owned());
        let subject = Subject { role, node_id, cluster_id };
        TlsIdentity::new(ca.issue(&subject, now_unix(), SOON * 60).unwrap()).unwrap()
    }

    /// Nothing answers here but the handshake, so it ends only when it is turned away.
    fn dial(client: TlsClient, address: &str) -> Dialling {
        let address = address.to_owned();
        AbortOnDropHandle::new(tokio::spawn(async move { client.dial(&address, SOON * 2).await }))
    }

    async fn came(door: &mut mpsc::Receiver<TlsConn>) -> (Option<Role>, TlsConn) {
        let connection = timeout(SOON, door.recv()).await.unwrap().unwrap();
        (connection.info().peer.as_ref().map(|peer| peer.role), connection)
    }

    #[tokio::test]
    async fn everybody_comes_in_by_the_right_door_and_only_members_without_bound() {
        let ca = Ca::create("testcluster", now_unix()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let own = identity(&ca, Role::Manager, "m1");
        let server = TlsServer::new(&own, Protocol::Grpc);
        let incoming = serve_tls_until(listener, server, std::future::pending());
        let door = || {
            let (queue, connections) = mpsc::channel(4);
            (Door { queue, runtime: Some(Handle::current()) }, connections)
        };
        let (to_managers, mut managers) = door();
        let (to_workers, mut workers) = door();
        let (to_users, mut users) = door();
        let doors = Doors { managers: to_managers, workers: to_workers, users: to_users };
        own.deny(["removed".to_owned()].into());
        let usher = Usher::new(own.clone(), doors, 1, 1);
        let _usher = AbortOnDropHandle::new(tokio::spawn(usher.run(incoming)));
        let member = |role, node| TlsClient::manager(&identity(&ca, role, node));
        let stranger = || TlsClient::anonymous(&own).unwrap();

        let _first = dial(member(Role::Admin, "a1"), &address);
        let (role, first) = came(&mut users).await;
        assert_eq!(role, Some(Role::Admin));
        // One too many is closed, and keeps nobody else out.
        let second = timeout(SOON, dial(member(Role::Admin, "a2"), &address)).await.unwrap();
        assert!(second.unwrap().is_err());
        let _worker = dial(member(Role::Worker, "w1"), &address);
        assert_eq!(came(&mut workers).await.0, Some(Role::Worker));
        let _manager = dial(member(Role::Manager, "m2"), &address);
        assert_eq!(came(&mut managers).await.0, Some(Role::Manager));
        let _stranger = dial(stranger(), &address);
        let (role, held) = came(&mut users).await;
        assert_eq!(role, None);
        // So is a node that was removed, and the strangers' place is taken.
        let removed = timeout(SOON, dial(member(Role::Worker, "removed"), &address)).await.unwrap();
        assert!(removed.unwrap().is_err());
        assert!(users.try_recv().is_err());
        assert!(workers.try_recv().is_err() && managers.try_recv().is_err());
        // Whoever leaves makes room.
        drop((first, held));
        let _third = dial(member(Role::Admin, "a3"), &address);
        assert_eq!(came(&mut users).await.0, Some(Role::Admin));
        let _removed = dial(member(Role::Worker, "removed"), &address);
        assert_eq!(came(&mut users).await.0, Some(Role::Worker));
    }

    #[tokio::test]
    async fn a_stranger_who_says_nothing_does_not_stay() {
        let ca = Ca::create("testcluster", now_unix()).unwrap();
        let own = identity(&ca, Role::Manager, "m1");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let _silent = dial(TlsClient::anonymous(&own).unwrap(), &address);
        let (socket, addr) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        let server = TlsServer::new(&own, Protocol::Grpc);
        let connection = timeout(SOON, server.accept(socket, addr)).await.unwrap().unwrap();
        let mut connection = connection.breaking_after(Duration::from_millis(20));
        // Its preface may be there; after that it says nothing.
        let ended = timeout(SOON, async {
            let mut bytes = [0; 1024];
            loop {
                if let Err(error) = connection.read(&mut bytes).await {
                    return error.kind();
                }
            }
        });
        assert_eq!(ended.await.unwrap(), std::io::ErrorKind::TimedOut);
    }
}
