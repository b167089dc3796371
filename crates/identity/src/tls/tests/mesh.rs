//! The routing mesh's side: only workers, sessions resumed, protocols kept apart.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;

use super::{SOON, listen, soon, start, tls};
use crate::testing::{ca, member};
use crate::{
    Ca, ConnectError, Identity, Protocol, Role, TlsClient, TlsConn, TlsIdentity, TlsServer,
    now_unix, serve_tls,
};

/// Echoes one byte on each connection, after saying `!`.
async fn echo(identity: &TlsIdentity) -> (String, JoinHandle<()>) {
    let (listener, address) = listen().await;
    let mut incoming = serve_tls(listener, TlsServer::new(identity, Protocol::Mesh));
    let task = tokio::spawn(async move {
        while let Some(Ok(mut connection)) = incoming.next().await {
            // A client that leaves early is no concern of the next one.
            let _ = exchange(&mut connection).await;
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
async fn a_connection_that_was_moved_outlives_the_runtime_it_was_made_on() {
    let ca = ca("clusterone");
    let (server, client) = (member(&ca, Role::Worker, "w1"), member(&ca, Role::Worker, "w2"));
    let (reply, address) = std::sync::mpsc::channel();
    let here = tokio::runtime::Handle::current();
    // Another runtime shakes hands, hands over and ends.
    let accepting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (listener, address) = listen().await;
            reply.send(address).unwrap();
            let (socket, addr) = listener.accept().await.unwrap();
            let server = TlsServer::new(&tls(server), Protocol::Mesh);
            server.accept(socket, addr).await.unwrap().on(&here).unwrap()
        })
    });
    let address = address.recv().unwrap();
    let talking =
        tokio::spawn(async move { talk(&address, &TlsClient::mesh(&tls(client), "w1")).await });
    let accepted = tokio::task::spawn_blocking(move || accepting.join().unwrap());
    let mut connection = soon(accepted).await.unwrap();
    soon(exchange(&mut connection)).await.unwrap();
    assert!(!soon(talking).await.unwrap());
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

/// A member of the new CA as the managers make it while the CA is being replaced.
fn reissued(old: &Ca, new: &Ca, node_id: &str) -> Identity {
    let fresh = member(new, Role::Worker, node_id);
    let cross = old.cross_sign(new, now_unix()).unwrap();
    let chain = format!("{}{cross}{}", fresh.chain_pem, old.cert_pem());
    let trusted = format!("{}{}", new.cert_pem(), old.cert_pem());
    Identity::new(chain, fresh.key_pem, trusted).unwrap()
}

#[tokio::test]
async fn while_the_ca_is_replaced_all_talk_to_all_and_then_the_old_one_counts_no_more() {
    let (old, new) = (ca("clusterone"), ca("clusterone"));
    let before = tls(member(&old, Role::Worker, "w1"));
    let during = tls(reissued(&old, &new, "w2"));
    let after = tls(member(&new, Role::Worker, "w3"));
    let mut running = Vec::new();
    for identity in [&before, &during, &after] {
        running.push(echo(identity).await);
    }
    let dial = async |from: &TlsIdentity, to: usize| {
        let node = ["w1", "w2", "w3"][to];
        let client = TlsClient::mesh(from, node);
        let stream = client.dial(&running[to].0, SOON).await.ok();
        // TLS 1.3 tells a client that it was refused only with the first bytes.
        match stream {
            Some(mut stream) => soon(stream.read_u8()).await.is_ok(),
            None => false,
        }
    };
    assert!(dial(&before, 1).await, "the cross certificate leads to the old CA");
    assert!(dial(&during, 0).await);
    assert!(dial(&during, 2).await);
    assert!(dial(&after, 1).await);
    assert!(!dial(&after, 0).await, "the old CA counts no more");
    assert!(!dial(&before, 2).await);
}

#[tokio::test]
async fn a_removed_worker_is_neither_let_in_nor_believed() {
    let ca = ca("clusterone");
    let (one, two) = (tls(member(&ca, Role::Worker, "w1")), tls(member(&ca, Role::Worker, "w2")));
    let (address, _task) = echo(&one).await;
    let client = TlsClient::mesh(&two, "w1");
    assert!(!talk(&address, &client).await);
    one.deny(["w2".to_owned()].into());
    // Also not with a ticket from before.
    let refused = match client.dial(&address, SOON).await {
        Ok(mut stream) => soon(stream.read_u8()).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    one.deny(Default::default());
    talk(&address, &client).await;
    two.deny(["w1".to_owned()].into());
    let error = client.dial(&address, SOON).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ConnectError::PeerRemoved { .. }), "{error:?}");
}
