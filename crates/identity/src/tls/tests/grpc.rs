//! Members, joiners, and every kind of peer that must not be believed.

use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{soon, start, tls, who};
use crate::testing::{DAY, ca, chain, member, member_signed_ago, member_signed_ahead};
use crate::{
    CaDigest, ChannelOptions, ConnectError, Identity, Protocol, Role, SeenCa, TlsClient, TlsError,
    connect, connect_lazy, find_connect_error,
};

async fn dial_error(address: &str, client: &TlsClient) -> ConnectError {
    soon(connect(address, client, &ChannelOptions::default())).await.unwrap_err()
}

#[tokio::test]
async fn members_know_each_other() {
    let ca = ca("clusterone");
    let server = start(&tls(member(&ca, Role::Manager, "m1"))).await;
    for role in [Role::Manager, Role::Worker, Role::Admin] {
        let identity = member(&ca, role, "n1");
        let expected = format!("{role} n1 clusterone {}", identity.not_after().unwrap());
        let client = TlsClient::manager(&tls(identity));
        let options = ChannelOptions::default();
        let channel = soon(connect(&server.address, &client, &options)).await.unwrap();
        assert_eq!(who(&channel).await.unwrap(), expected);
        let lazy = connect_lazy(&server.address, &client, &options).unwrap();
        assert_eq!(who(&lazy).await.unwrap(), expected);
    }
}

/// Dialling reads the server's first bytes; a reader with any buffer must still get them all.
#[tokio::test]
async fn bytes_read_while_dialling_are_not_lost() {
    let ca = ca("clusterone");
    let server = start(&tls(member(&ca, Role::Manager, "m1"))).await;
    let client = TlsClient::manager(&tls(member(&ca, Role::Worker, "w1")));
    let mut stream = client.dial(&server.address, super::SOON).await.unwrap();
    let mut header = [0; 9];
    for byte in &mut header {
        *byte = soon(stream.read_u8()).await.unwrap();
    }
    let settings_type = 4;
    assert_eq!(header[3], settings_type, "{header:?}");
    let mut settings = vec![0; usize::from(u16::from_be_bytes([header[1], header[2]]))];
    assert!(!settings.is_empty());
    soon(stream.read_exact(&mut settings)).await.unwrap();
    assert_eq!(settings.len() % 6, 0);
    assert!(settings.chunks(6).all(|setting| setting[0] == 0 && setting[1] < 9), "{settings:?}");
}

#[tokio::test]
async fn one_manager_is_not_another() {
    let ca = ca("clusterone");
    let server = start(&tls(member(&ca, Role::Manager, "m1"))).await;
    let ours = tls(member(&ca, Role::Manager, "m2"));
    let options = ChannelOptions::default();
    let right = TlsClient::manager_node(&ours, "m1");
    soon(connect(&server.address, &right, &options)).await.unwrap();
    let error = dial_error(&server.address, &TlsClient::manager_node(&ours, "m3")).await;
    assert!(matches!(error, ConnectError::WrongPeer { .. }), "{error:?}");
    assert!(error.to_string().contains("is not the manager m3"), "{error}");
}

#[tokio::test]
async fn a_joiner_is_nobody_and_learns_the_ca() {
    let ca = ca("clusterone");
    let server = start(&tls(member(&ca, Role::Manager, "m1"))).await;
    let joiner = TlsClient::pinned(ca.digest()).unwrap();
    assert_eq!(joiner.seen_ca(), None);
    let options = ChannelOptions::default();
    let channel = soon(connect(&server.address, &joiner, &options)).await.unwrap();
    assert_eq!(who(&channel).await.unwrap(), "nobody");
    let expected = SeenCa { ca_pem: ca.cert_pem().to_owned(), cluster_id: "clusterone".to_owned() };
    assert_eq!(joiner.seen_ca(), Some(expected));
}

#[tokio::test]
async fn a_joiner_believes_only_a_manager_under_the_pinned_ca() {
    let (one, two) = (ca("clusterone"), ca("clustertwo"));
    let manager = start(&tls(member(&one, Role::Manager, "m1"))).await;
    for digest in [two.digest(), CaDigest::of_der(b"nothing")] {
        let joiner = TlsClient::pinned(digest).unwrap();
        let error = dial_error(&manager.address, &joiner).await;
        assert!(matches!(error, ConnectError::OtherClusterThanToken { .. }), "{error:?}");
        assert_eq!(joiner.seen_ca(), None);
    }

    let joiner = TlsClient::pinned(one.digest()).unwrap();
    let worker = start(&tls(member(&one, Role::Worker, "w1"))).await;
    let error = dial_error(&worker.address, &joiner).await;
    assert!(matches!(error, ConnectError::WrongPeer { .. }), "{error:?}");
    let expired = start(&tls(member_signed_ago(&one, Role::Manager, "m2", 3 * DAY))).await;
    let error = dial_error(&expired.address, &joiner).await;
    assert!(matches!(error, ConnectError::PeerExpired { .. }), "{error:?}");
    assert_eq!(joiner.seen_ca(), None);
}

#[tokio::test]
async fn a_pinned_root_beside_a_foreign_leaf_is_not_believed() {
    // The root is public: anybody can send it along.
    let (one, two) = (ca("clusterone"), ca("clustertwo"));
    let mut liar = member(&two, Role::Manager, "m1");
    liar.chain_pem.push_str(one.cert_pem());
    let server = start(&tls(liar)).await;
    let joiner = TlsClient::pinned(one.digest()).unwrap();
    let error = dial_error(&server.address, &joiner).await;
    assert!(matches!(error, ConnectError::OtherClusterThanToken { .. }), "{error:?}");
    assert_eq!(joiner.seen_ca(), None);
}

#[tokio::test]
async fn the_server_of_another_cluster_is_named_so() {
    let server = start(&tls(member(&ca("clusterone"), Role::Manager, "m1"))).await;
    let stranger = tls(member(&ca("clustertwo"), Role::Admin, "root"));
    let error = dial_error(&server.address, &TlsClient::manager(&stranger)).await;
    assert!(matches!(error, ConnectError::OtherCluster { .. }), "{error:?}");
    assert!(!error.is_retryable());
    // The same cause is found behind a call on a lazy channel.
    let options = ChannelOptions::default();
    let lazy = connect_lazy(&server.address, &TlsClient::manager(&stranger), &options).unwrap();
    let error = who(&lazy).await.unwrap_err();
    let found = find_connect_error(&error);
    assert!(matches!(found, Some(ConnectError::OtherCluster { .. })), "{}", chain(&error));
    // And behind the status that generated clients make of it.
    let status = tonic::Status::from_error(Box::new(error));
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let found = find_connect_error(&status);
    assert!(matches!(found, Some(ConnectError::OtherCluster { .. })), "{}", chain(&status));
}

#[tokio::test]
async fn a_client_certificate_of_another_cluster_is_refused_and_told_so() {
    let (one, two) = (ca("clusterone"), ca("clustertwo"));
    let server = start(&tls(member(&one, Role::Manager, "m1"))).await;
    // Trusts the right CA, and so passes its own check, but was signed by the other.
    let stranger = member(&two, Role::Admin, "root");
    let stranger =
        Identity { ca_pem: one.cert_pem().into(), cluster_id: "clusterone".into(), ..stranger };
    let error = dial_error(&server.address, &TlsClient::manager(&tls(stranger))).await;
    assert!(matches!(error, ConnectError::RefusedForeign { .. }), "{error:?}");
}

#[tokio::test]
async fn a_manager_outside_its_dates_is_named_so() {
    let ca = ca("clusterone");
    let client = TlsClient::manager(&tls(member(&ca, Role::Worker, "w1")));
    let expired = start(&tls(member_signed_ago(&ca, Role::Manager, "m1", 3 * DAY))).await;
    let error = dial_error(&expired.address, &client).await;
    assert!(matches!(error, ConnectError::PeerExpired { .. }), "{error:?}");
    let early = start(&tls(member_signed_ahead(&ca, Role::Manager, "m1", 2 * DAY))).await;
    let error = dial_error(&early.address, &client).await;
    assert!(matches!(error, ConnectError::PeerNotYetValid { .. }), "{error:?}");
    assert!(error.to_string().contains("clock"), "{error}");
    // Two hours ahead is more than the backdating covers, half an hour is not.
    let slightly = std::time::Duration::from_secs(1800);
    let server = start(&tls(member_signed_ahead(&ca, Role::Manager, "m1", slightly))).await;
    soon(connect(&server.address, &client, &ChannelOptions::default())).await.unwrap();
}

#[tokio::test]
async fn our_own_certificate_outside_its_dates_is_noticed_here() {
    let ca = ca("clusterone");
    let server = start(&tls(member(&ca, Role::Manager, "m1"))).await;
    let expired = tls(member_signed_ago(&ca, Role::Worker, "w1", 3 * DAY));
    let error = dial_error(&server.address, &TlsClient::manager(&expired)).await;
    assert!(matches!(error, ConnectError::OwnExpired { .. }), "{error:?}");
    let early = tls(member_signed_ahead(&ca, Role::Worker, "w1", 2 * DAY));
    let error = dial_error(&server.address, &TlsClient::manager(&early)).await;
    assert!(matches!(error, ConnectError::OwnNotYetValid { .. }), "{error:?}");
}

/// A client whose clock is wrong does not notice its own expiry; the server must.
#[tokio::test]
async fn the_server_refuses_a_client_certificate_outside_its_dates() {
    let ca = ca("clusterone");
    let server = start(&tls(member(&ca, Role::Manager, "m1"))).await;
    for identity in [
        member_signed_ago(&ca, Role::Admin, "root", 3 * DAY),
        member_signed_ahead(&ca, Role::Admin, "root", 2 * DAY),
    ] {
        let config = tls(identity).loaded().client(Protocol::Grpc);
        let name = ServerName::try_from("manager.clusterone.cluster.internal").unwrap();
        let tcp = TcpStream::connect(&server.address).await.unwrap();
        let mut stream = soon(TlsConnector::from(config).connect(name, tcp)).await.unwrap();
        let error = soon(stream.read_u8()).await.unwrap_err();
        let error = ConnectError::from_tls(&server.address, "a manager", false, error);
        assert!(matches!(error, ConnectError::RefusedDates { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_worker_does_not_pass_for_a_manager() {
    let ca = ca("clusterone");
    let server = start(&tls(member(&ca, Role::Worker, "w1"))).await;
    let client = TlsClient::manager(&tls(member(&ca, Role::Admin, "root")));
    let error = dial_error(&server.address, &client).await;
    assert!(matches!(error, ConnectError::WrongPeer { .. }), "{error:?}");
    assert!(error.to_string().contains("is not a manager of cluster clusterone"), "{error}");
}

#[tokio::test]
async fn a_new_identity_is_used_at_once_and_open_connections_go_on() {
    let ca = ca("clusterone");
    let server_identity = tls(member(&ca, Role::Manager, "m1"));
    let server = start(&server_identity).await;
    let ours = tls(member(&ca, Role::Worker, "w1"));
    let client = TlsClient::manager(&ours);
    let options = ChannelOptions::default();
    let before = soon(connect(&server.address, &client, &options)).await.unwrap();
    let first = who(&before).await.unwrap();

    let later = crate::now_unix() + 600;
    let worker = crate::testing::subject(&ca, Role::Worker, "w1");
    ours.replace(ca.issue(&worker, later, DAY).unwrap()).unwrap();
    server_identity.replace(member(&ca, Role::Manager, "m1")).unwrap();

    let after = soon(connect(&server.address, &client, &options)).await.unwrap();
    let second = who(&after).await.unwrap();
    assert_eq!(second, format!("worker w1 clusterone {}", later + DAY.as_secs()));
    assert_eq!(who(&before).await.unwrap(), first);
    assert_ne!(first, second);

    let error = ours.replace(member(&ca, Role::Worker, "w2")).unwrap_err();
    assert!(matches!(error, TlsError::OtherSubject { .. }), "{error:?}");
    assert_eq!(ours.leaf().not_after, later + DAY.as_secs());
}
