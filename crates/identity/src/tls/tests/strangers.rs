//! Whoever speaks something else, nothing at all, or to nobody.

use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::version::TLS13;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt as _;

use super::{SOON, listen, soon, start, start_bounded, tls, who};
use crate::testing::{ca, member};
use crate::tls::pinned::PinnedVerifier;
use crate::{
    ChannelOptions, ConnectError, Protocol, Role, TlsClient, TlsServer, connect, serve_tls_until,
};

#[tokio::test]
async fn garbage_and_plain_http_are_turned_away_and_others_served() {
    let ca = ca("clusterone");
    let server = start(&tls(member(&ca, Role::Manager, "m1"))).await;
    let noise = vec![0xa5u8; 100_000];
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\0\0\0\0\0\0\0\0",
        &noise,
        b"PRI * HTTP/2.0\r\n",
    ] {
        let mut stranger = TcpStream::connect(&server.address).await.unwrap();
        // The server may hang up before it has read everything.
        let _ = stranger.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = soon(stranger.read_to_end(&mut answer)).await;
        assert!(answer.len() < 64, "{answer:?}");
        assert!(!answer.starts_with(b"HTTP"));
    }
    let client = TlsClient::manager(&tls(member(&ca, Role::Admin, "root")));
    let channel =
        soon(connect(&server.address, &client, &ChannelOptions::default())).await.unwrap();
    assert!(who(&channel).await.unwrap().starts_with("admin root"));
}

#[tokio::test]
async fn silent_clients_delay_nobody_even_in_every_slot() {
    let ca = ca("clusterone");
    let server = start_bounded(&tls(member(&ca, Role::Manager, "m1")), 4).await;
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(TcpStream::connect(&server.address).await.unwrap());
    }
    let client = TlsClient::manager(&tls(member(&ca, Role::Admin, "root")));
    let options =
        ChannelOptions { connect_timeout: Duration::from_secs(10), ..ChannelOptions::default() };
    let began = Instant::now();
    let channel = soon(connect(&server.address, &client, &options)).await.unwrap();
    assert!(who(&channel).await.unwrap().starts_with("admin root"));
    // Sooner than the handshake's own limit, which the silent ones are all within.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // The oldest was hung up on.
    assert_eq!(soon(silent[0].read(&mut [0; 8])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_client_that_offers_no_protocol_is_not_served() {
    let ca = ca("clusterone");
    let server = start(&tls(member(&ca, Role::Manager, "m1"))).await;
    let config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(PinnedVerifier::new(ca.digest())))
        .with_no_client_auth();
    let tcp = TcpStream::connect(&server.address).await.unwrap();
    let name = ServerName::try_from("any.example").unwrap();
    let connected = soon(TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp)).await;
    if let Ok(mut stream) = connected {
        let read = soon(stream.read(&mut [0; 8])).await;
        assert!(!matches!(read, Ok(1..)), "{read:?}");
    }
}

/// Answers every connection with `bytes` and hangs up.
async fn answering(bytes: &'static [u8]) -> String {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut hello = [0; 4096];
            let _ = connection.read(&mut hello).await;
            let _ = connection.write_all(bytes).await;
        }
    });
    address
}

#[tokio::test]
async fn the_wrong_port_of_another_program_is_named_so() {
    let ca = ca("clusterone");
    let client = TlsClient::manager(&tls(member(&ca, Role::Admin, "root")));
    let joiner = TlsClient::pinned(ca.digest()).unwrap();
    let options =
        ChannelOptions { connect_timeout: Duration::from_millis(300), ..ChannelOptions::default() };
    let patient = ChannelOptions::default();

    for client in [&client, &joiner] {
        let http = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let error = soon(connect(&http, client, &patient)).await.unwrap_err();
        assert!(matches!(error, ConnectError::NotTls { .. }), "{error:?}");

        let rude = answering(b"").await;
        let error = soon(connect(&rude, client, &patient)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Closed { .. }), "{error:?}");

        // Accepts (the backlog does) and never says a word.
        let (listener, mute) = listen().await;
        let error = soon(connect(&mute, client, &options)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Timeout { .. }), "{error:?}");
        drop(listener);

        let error = soon(connect(&mute, client, &patient)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
        assert!(error.is_retryable());

        for address in ["", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "a b:7100", "x:y"] {
            let error = soon(connect(address, client, &patient)).await.unwrap_err();
            assert!(matches!(error, ConnectError::BadAddress { .. }), "{address:?}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_closes_refuses_newcomers_and_finishes_what_is_under_way() {
    let ca = ca("clusterone");
    let (listener, address) = listen().await;
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let closing = async {
        let _ = closed.await;
    };
    let server = TlsServer::new(&tls(member(&ca, Role::Manager, "m1")), Protocol::Grpc);
    let mut incoming = serve_tls_until(listener, server, closing);
    // The second to connect has shaken hands, so the first, which says nothing, was accepted.
    let client = TlsClient::manager(&tls(member(&ca, Role::Admin, "root")));
    let mut half = TcpStream::connect(&address).await.unwrap();
    let target = address.clone();
    let early = tokio::spawn(async move { client.dial(&target, SOON).await.is_ok() });
    let first = soon(incoming.next()).await.unwrap().unwrap();
    assert!(first.info().peer.is_some());
    early.abort();
    close.send(()).unwrap();
    soon(async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let waits = tokio::time::timeout(Duration::from_millis(100), incoming.next()).await;
    assert!(waits.is_err(), "a handshake is under way: the stream has not ended");
    half.shutdown().await.unwrap();
    drop(half);
    assert!(soon(incoming.next()).await.is_none(), "nothing more comes");
}
