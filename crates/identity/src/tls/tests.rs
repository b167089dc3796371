//! Real handshakes on loopback. The gRPC layer is real too; only the service is a stand-in that
//! answers with what it was told about its peer.

mod grpc;
mod mesh;
mod strangers;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::transport::{Channel, Server};
use tower::ServiceExt;

use crate::tls::server::serve_bounded;
use crate::{Identity, PeerInfo, Protocol, TlsIdentity, TlsServer};

const SOON: Duration = Duration::from_secs(10);

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, wait).await.expect("nothing happened in time")
}

fn tls(identity: Identity) -> TlsIdentity {
    TlsIdentity::new(identity).unwrap()
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// A gRPC server that ends with the test.
struct Running {
    address: String,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn start(identity: &TlsIdentity) -> Running {
    start_bounded(identity, 64).await
}

async fn start_bounded(identity: &TlsIdentity, max_handshakes: usize) -> Running {
    let (listener, address) = listen().await;
    let server = TlsServer::new(identity, Protocol::Grpc);
    let incoming = serve_bounded(listener.into(), server, max_handshakes, std::future::pending());
    let service = tower::service_fn(|request: http::Request<Body>| async move {
        let peer = request.extensions().get::<PeerInfo>().unwrap();
        let who = match &peer.peer {
            Some(peer) => {
                format!("{} {} {} {}", peer.role, peer.node_id, peer.cluster_id, peer.not_after)
            }
            None => "nobody".into(),
        };
        let response = http::Response::builder()
            .header("who", who)
            .header("addr", peer.addr.to_string())
            .body(Body::empty())
            .unwrap();
        Ok::<_, Infallible>(response)
    });
    let task = tokio::spawn(async move {
        Server::builder().serve_with_incoming(service, incoming).await.unwrap();
    });
    Running { address, task }
}

/// What the server at the other end of `channel` knows about us.
async fn who(channel: &Channel) -> Result<String, tonic::transport::Error> {
    let request = http::Request::builder().uri("/any").body(Body::empty()).unwrap();
    let response = soon(channel.clone().oneshot(request)).await?;
    let header = |name| response.headers()[name].to_str().unwrap().to_owned();
    assert!(header("addr").parse::<SocketAddr>().unwrap().ip().is_loopback());
    Ok(header("who"))
}
