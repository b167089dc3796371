//! Who may call what, over the wire, and who may join.

use cluster_identity::{ChannelOptions, JoinToken, KeyAndCsr, TlsClient, connect};
use cluster_pb::ca::v1::ca_client::CaClient;
use cluster_pb::ca::v1::{JoinRequest, RenewRequest};
use cluster_pb::control::v1 as control;
use cluster_pb::control::v1::control_client::ControlClient;
use cluster_pb::dispatcher::v1::dispatcher_client::DispatcherClient;
use cluster_pb::peer::v1 as peer;
use cluster_pb::peer::v1::peer_client::PeerClient;
use cluster_wire::Code;
use cluster_wire::error::code_of;

use crate::harness::{Cluster, ask_to_join, channel, join, refusal};

#[tokio::test]
async fn a_role_calls_its_own_services_only() {
    let cluster = Cluster::new().await;
    let address = &cluster.managers[0].address;
    let worker = cluster.worker("worker-1").await;
    let list = control::ListServicesRequest::default();

    let as_worker = channel(address, &worker.identity);
    let refused = ControlClient::new(as_worker.clone()).list_services(list.clone()).await;
    assert_eq!(refusal(refused).0, Code::WrongRole);
    let as_manager = peer::JoinGroupRequest { node_id: worker.id.clone(), ..Default::default() };
    let refused = PeerClient::new(as_worker).join_group(as_manager).await;
    assert_eq!(refusal(refused).0, Code::WrongRole);
    let admin = channel(address, &cluster.admin);
    let refused = DispatcherClient::new(admin).session(tokio_stream::empty()).await;
    assert_eq!(refusal(refused).0, Code::WrongRole);

    let token: JoinToken = cluster.token("worker").await.parse().unwrap();
    let nobody = TlsClient::pinned(token.ca_digest).unwrap();
    let nobody = connect(address, &nobody, &ChannelOptions::default()).await.unwrap();
    let refused = ControlClient::new(nobody).list_services(list).await;
    assert_eq!(refusal(refused).0, Code::NoCertificate);
}

#[tokio::test]
async fn a_machine_joins_with_the_right_token_name_and_clock() {
    let cluster = Cluster::new().await;
    let address = &cluster.managers[0].address;
    let (worker, manager) = (cluster.token("worker").await, cluster.token("manager").await);
    let code = async |token: &str, role: &str, name: &str| {
        code_of(&join(address, token, role, name).await.expect_err("it should be refused"))
    };
    assert_eq!(code(&manager, "worker", "w").await, Some(Code::WrongToken));
    assert_eq!(code(&worker, "manager", "w").await, Some(Code::WrongToken));
    assert_eq!(code(&worker, "admin", "w").await, Some(Code::InvalidField));
    assert_eq!(code(&worker, "worker", "a b").await, Some(Code::InvalidField));
    assert_eq!(code(&manager, "manager", "manager-1").await, Some(Code::NameTaken));
    join(address, &worker, "worker", "w").await.unwrap();
    assert_eq!(code(&worker, "worker", "w").await, Some(Code::NameTaken));

    let off = JoinRequest {
        token: worker.clone(),
        csr_der: KeyAndCsr::generate().unwrap().csr_pem.into_bytes(),
        name: "late".into(),
        role: "worker".into(),
        now_ms: 1,
    };
    let status = ask_to_join(address, &worker, off).await.unwrap_err();
    assert_eq!(code_of(&status), Some(Code::ClockOff));

    let rotate = control::GetTokenRequest { role: "worker".into(), rotate: true };
    let fresh = cluster.control(0).get_token(rotate).await.unwrap().into_inner().token;
    assert_eq!(code(&worker, "worker", "x").await, Some(Code::WrongToken));
    join(address, &fresh, "worker", "x").await.unwrap();
    assert_eq!(cluster.token("manager").await, manager, "the other token stays");
}

#[tokio::test]
async fn members_renew_and_removed_ones_do_not() {
    let cluster = Cluster::new().await;
    let address = &cluster.managers[0].address;
    let worker = cluster.worker("worker-1").await;
    let mut ca = CaClient::new(channel(address, &worker.identity));
    let renew = || RenewRequest { csr_der: KeyAndCsr::generate().unwrap().csr_pem.into_bytes() };
    ca.renew(renew()).await.unwrap();
    let remove = control::RemoveNodeRequest { node: worker.id.clone(), force: false };
    cluster.control(0).remove_node(remove).await.unwrap();
    assert_eq!(refusal(ca.renew(renew()).await).0, Code::Removed);

    // The daemons of one machine may share its name: then only their ids tell.
    join(address, &cluster.token("worker").await, "worker", "manager-1").await.unwrap();
    let remove = control::RemoveNodeRequest { node: "manager-1".into(), force: true };
    assert_eq!(refusal(cluster.control(0).remove_node(remove).await).0, Code::Ambiguous);

    // A manager's certificate alone makes no member, and a name or an address has one owner.
    let token = cluster.token("manager").await;
    let second = join(address, &token, "manager", "manager-2").await.unwrap();
    let mut ca = CaClient::new(channel(address, &second));
    assert_eq!(refusal(ca.renew(renew()).await).0, Code::Removed);
    let mut group = PeerClient::new(channel(address, &second));
    let ask = |name: &str, address: &str| peer::JoinGroupRequest {
        node_id: second.identity().node_id.clone(),
        name: name.into(),
        address: address.into(),
        spare: false,
    };
    let taken = refusal(group.join_group(ask("manager-1", "127.0.0.1:1")).await);
    assert_eq!(taken.0, Code::NameTaken);
    assert_eq!(refusal(group.join_group(ask("manager-2", address)).await).0, Code::NameTaken);
    assert_eq!(refusal(group.join_group(ask("manager-2", "here")).await).0, Code::InvalidField);
}
