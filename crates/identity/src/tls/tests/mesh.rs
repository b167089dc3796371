//! The routing mesh's side: only workers, sessions resumed, protocols kept apart.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;

use super::{SOON, listen, soon, start, tls};
use crate::testing::{ca, member};
use crate::{ConnectError, Protocol, Role, TlsClient, TlsConn, TlsIdentity, TlsServer, serve_tls};

/// Echoes one byte on each connection, after saying `!`.
async fn echo(identity: &TlsIdentity) -> (String, JoinHandle<()>) {
    let (listener, address) = listen().await;
    let mut incoming = serve_tls(listener, TlsServer::new(identity, Protocol::Mesh));
    let task = tokio::spawn(async move {
        while let Some(Ok(mut connection)) = incoming.next().await {
            if exchange(&mut connection).await.is_err() {
                return;
            }
        }
    });
    (address, task)
}

async fn exchange(connection: &mut TlsConn) -> std::io::Result<()> {
    connection.write_u8(b'!').await?;
    let byte = connection.read_u8().await?;
    connection.write_u8(byte).await?;
    connection.shutdown().await
}

/// One conversation; whether its handshake was a resumed one.
async fn talk(address: &str, client: &TlsClient) -> bool {
    let mut stream = client.dial(address, SOON).await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), b'!');
    stream.write_u8(b'x').await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), b'x');
    assert_eq!(soon(stream.read(&mut [0; 8])).await.unwrap(), 0);
    stream.is_resumed()
}

#[tokio::test]
async fn workers_talk_and_resume_until_the_identity_changes() {
    let ca = ca("clusterone");
    let server = tls(member(&ca, Role::Worker, "w1"));
    let (address, task) = echo(&server).await;
    let client = TlsClient::mesh(&tls(member(&ca, Role::Worker, "w2")), "w1");
    assert!(!talk(&address, &client).await);
    assert!(talk(&address, &client).await);
    assert!(talk(&address, &client).await);
    // Tickets made under the old identity are worth nothing under the new one.
    server.replace(member(&ca, Role::Worker, "w1")).unwrap();
    assert!(!talk(&address, &client).await);
    assert!(talk(&address, &client).await);
    task.abort();
}

#[tokio::test]
async fn only_the_worker_that_was_meant_will_do() {
    let ca = ca("clusterone");
    let ours = tls(member(&ca, Role::Worker, "w2"));
    let (address, task) = echo(&tls(member(&ca, Role::Worker, "w1"))).await;
    let error = TlsClient::mesh(&ours, "w3").dial(&address, SOON).await.err().unwrap();
    assert!(matches!(error, ConnectError::WrongPeer { .. }), "{error:?}");
    assert!(!talk(&address, &TlsClient::mesh_any(&ours)).await);
    task.abort();
    // A manager's certificate carries the node's name, but not the role.
    let (address, task) = echo(&tls(member(&ca, Role::Manager, "w1"))).await;
    let error = TlsClient::mesh(&ours, "w1").dial(&address, SOON).await.err().unwrap();
    assert!(matches!(error, ConnectError::WrongPeer { .. }), "{error:?}");
    task.abort();
}

#[tokio::test]
async fn only_workers_are_let_in() {
    let ca = ca("clusterone");
    let (address, task) = echo(&tls(member(&ca, Role::Worker, "w1"))).await;
    let manager = TlsClient::mesh(&tls(member(&ca, Role::Manager, "m1")), "w1");
    let mut stream = manager.dial(&address, SOON).await.unwrap();
    let mut buffer = [0; 1];
    let read = soon(stream.read(&mut buffer)).await;
    assert!(!matches!(read, Ok(1)), "{read:?}");
    task.abort();
}

#[tokio::test]
async fn the_wrong_port_of_the_right_cluster_is_named_so() {
    let ca = ca("clusterone");
    let ours = tls(member(&ca, Role::Worker, "w1"));
    let (mesh, task) = echo(&ours).await;
    let error = TlsClient::manager(&ours).dial(&mesh, SOON).await.err().unwrap();
    assert!(matches!(error, ConnectError::WrongProtocol { .. }), "{error:?}");
    task.abort();
    let grpc = start(&tls(member(&ca, Role::Worker, "w1"))).await;
    let error = TlsClient::mesh(&ours, "w1").dial(&grpc.address, SOON).await.err().unwrap();
    assert!(matches!(error, ConnectError::WrongProtocol { .. }), "{error:?}");
}
