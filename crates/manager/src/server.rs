//! One port, two doors: who keeps the cluster alive, and everybody else.
//!
//! Workers and managers are served on the manager's own threads. Users, and whoever shows no
//! certificate, are served on threads of their own that step back for those, so that a flood of
//! requests costs users their time and no node its lease. Which door a connection takes is known
//! from its certificate, once it has shaken hands.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use cluster_identity::net::Listener;
use cluster_identity::{
    Protocol, Role, TlsConn, TlsIdentity, TlsIncoming, TlsServer, serve_tls_until,
};
use cluster_pb::ca::v1::ca_server::CaServer;
use cluster_pb::control::v1::control_server::ControlServer;
use cluster_pb::dispatcher::v1::dispatcher_server::DispatcherServer;
use cluster_pb::peer::v1::peer_server::PeerServer;
use futures::StreamExt as _;
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
/// Connections of users that are open at once, about 100 KiB each; one beyond that is closed at
/// once. Every one of them may wait for the door, so that is no bound of its own.
const USERS_MAX: usize = 4096;
/// Connections of workers and managers that wait to be picked up.
const MEMBERS_WAITING: usize = 64;

/// Serves until `stop`; new connections are refused from `closing` on.
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
    let (to_members, members) = mpsc::channel(MEMBERS_WAITING);
    let (to_users, strangers) = mpsc::channel(USERS_MAX);
    let room = Arc::new(Semaphore::new(USERS_MAX));
    let access = AccessLayer::new(tls);
    let members = door(&context, &access, members, stop.clone());
    let strangers = door(&context, &access, strangers, stop.clone());
    async move {
        let strangers = async {
            match users {
                Some(runtime) => AbortOnDropHandle::new(runtime.spawn(strangers)).await?,
                None => strangers.await,
            }
        };
        tokio::select! {
            ended = async { tokio::try_join!(members, strangers) } => ended.map(|_| ()),
            never = usher(incoming, to_members, to_users, room) => match never {},
            // Streams of other managers end when those notice that this one has gone.
            () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
        }
    }
}

/// Sends each connection to its door. When no more come it waits: a door that saw the end of its
/// connections would take it for the end of what it serves.
async fn usher(
    mut incoming: TlsIncoming,
    members: mpsc::Sender<TlsConn>,
    users: mpsc::Sender<TlsConn>,
    room: Arc<Semaphore>,
) -> Infallible {
    while let Some(Ok(connection)) = incoming.next().await {
        let peer = connection.info().peer.as_ref();
        if peer.is_some_and(|peer| matches!(peer.role, Role::Worker | Role::Manager)) {
            // A server that has ended takes the rest with it.
            let _ = members.send(connection).await;
        } else if let Ok(place) = room.clone().try_acquire_owned() {
            let _ = users.try_send(connection.holding(place));
        } else {
            tracing::debug!(addr = %connection.info().addr, "closed a connection: too many users");
        }
    }
    std::future::pending().await
}

fn door(
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
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    type Dialling = AbortOnDropHandle<Result<ClientStream, ConnectError>>;

    const SOON: Duration = Duration::from_secs(10);

    fn identity(ca: &Ca, role: Role) -> TlsIdentity {
        let (node_id, cluster_id) = (role.to_string(), ca.cluster_id().to_owned());
        let subject = Subject { role, node_id, cluster_id };
        TlsIdentity::new(ca.issue(&subject, now_unix(), SOON * 60).unwrap()).unwrap()
    }

    /// Nothing answers here but the handshake, so it ends only when it is turned away.
    fn dial(ca: &Ca, role: Role, address: &str) -> Dialling {
        let client = TlsClient::manager(&identity(ca, role));
        let address = address.to_owned();
        AbortOnDropHandle::new(tokio::spawn(async move { client.dial(&address, SOON * 2).await }))
    }

    #[tokio::test]
    async fn users_have_a_bounded_door_of_their_own() {
        let ca = Ca::create("testcluster", now_unix()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = TlsServer::new(&identity(&ca, Role::Manager), Protocol::Grpc);
        let incoming = serve_tls_until(listener, server, std::future::pending());
        let (to_members, mut members) = mpsc::channel(4);
        let (to_users, mut users) = mpsc::channel(4);
        let _usher = AbortOnDropHandle::new(tokio::spawn(usher(
            incoming,
            to_members,
            to_users,
            Arc::new(Semaphore::new(1)),
        )));
        let role = |connection: Option<TlsConn>| {
            let connection = connection.unwrap();
            (connection.info().peer.as_ref().unwrap().role, connection)
        };
        let _first = dial(&ca, Role::Admin, &address);
        let (first_role, first) = role(timeout(SOON, users.recv()).await.unwrap());
        assert_eq!(first_role, Role::Admin);
        // One too many is closed, and keeps no worker out.
        let second = timeout(SOON, dial(&ca, Role::Admin, &address)).await.unwrap();
        assert!(second.unwrap().is_err());
        for member in [Role::Worker, Role::Manager] {
            let _member = dial(&ca, member, &address);
            assert_eq!(role(timeout(SOON, members.recv()).await.unwrap()).0, member);
        }
        assert!(users.try_recv().is_err());
        // Whoever leaves makes room.
        drop(first);
        let _third = dial(&ca, Role::Admin, &address);
        assert_eq!(role(timeout(SOON, users.recv()).await.unwrap()).0, Role::Admin);
    }
}
