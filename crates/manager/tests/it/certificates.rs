//! Certificates over their life: short ones, expired ones, a new CA, removal.

use std::time::Instant;

use cluster_identity::{
    ChannelOptions, Context, Identity, KeyAndCsr, TlsClient, TlsIdentity, connect, now_unix,
};
use cluster_pb::ca::v1::ca_client::CaClient;
use cluster_pb::ca::v1::{ConfirmTrustRequest, RecoverRequest, RenewRequest, RenewResponse};
use cluster_pb::control::v1 as control;
use cluster_pb::dispatcher::v1::dispatcher_client::DispatcherClient;
use cluster_pb::raft::v1 as raft;
use cluster_pb::raft::v1::raft_client::RaftClient;
use cluster_wire::Code;
use cluster_wire::error::code_of;
use tonic::{Request, Response, Status};

use crate::harness::{Cluster, channel, eventually, join, refusal};

async fn update(cluster: &Cluster, request: control::UpdateSecurityRequest) {
    cluster.control(0).update_security(request).await.unwrap();
}

async fn live_for(cluster: &Cluster, seconds: u64) {
    let request =
        control::UpdateSecurityRequest { cert_validity_s: Some(seconds), ..Default::default() };
    update(cluster, request).await;
}

async fn security(cluster: &Cluster, manager: usize) -> control::GetSecurityResponse {
    let request = control::GetSecurityRequest::default();
    cluster.control(manager).get_security(request).await.unwrap().into_inner()
}

/// A manager's identity as it is on disk.
fn kept(cluster: &Cluster, manager: usize) -> Identity {
    Identity::load_any_age(&cluster.managers[manager].data).unwrap()
}

fn taken(answer: RenewResponse, key: KeyAndCsr) -> Identity {
    Identity::new(answer.chain, key.key_pem, answer.ca).unwrap()
}

async fn recover(address: &str, identity: &TlsIdentity) -> Result<Identity, Status> {
    let key = KeyAndCsr::generate().unwrap();
    let csr_der = key.csr_pem.clone().into_bytes();
    let ours = identity.identity();
    let signature = ours.sign(&[b"cluster recover", &csr_der[..]].concat()).unwrap();
    let certificate = ours.chain_pem.clone();
    let request = RecoverRequest { certificate, csr_der, signature };
    let client = TlsClient::anonymous(identity).unwrap();
    let channel = connect(address, &client, &ChannelOptions::default()).await.unwrap();
    let answer = CaClient::new(channel).recover(request).await?.into_inner();
    Ok(taken(answer, key))
}

async fn renewed(address: &str, identity: &TlsIdentity) -> TlsIdentity {
    let key = KeyAndCsr::generate().unwrap();
    let request = RenewRequest { csr_der: key.csr_pem.clone().into_bytes() };
    let answer = CaClient::new(channel(address, identity)).renew(request).await.unwrap();
    TlsIdentity::new(taken(answer.into_inner(), key)).unwrap()
}

async fn confirm(address: &str, identity: &TlsIdentity) -> Result<(), Status> {
    let digests = identity.identity().ca_digests();
    let request =
        ConfirmTrustRequest { ca_digests: digests.iter().map(ToString::to_string).collect() };
    CaClient::new(channel(address, identity)).confirm_trust(request).await.map(drop)
}

/// A moment after the last second of a certificate.
fn expired(not_after: u64) -> Option<()> {
    (now_unix() > not_after + 1).then_some(())
}

#[tokio::test]
async fn a_worker_that_slept_past_its_certificate_comes_back_with_its_key_and_only_with_it() {
    let cluster = Cluster::new().await;
    let address = &cluster.managers[0].address;
    live_for(&cluster, 10).await;
    let worker = cluster.worker("worker-1").await;
    let other = cluster.worker("worker-2").await;
    let leaf = worker.identity.leaf();
    assert!(leaf.not_after <= now_unix() + 10);
    eventually("the manager's own short certificate", async || {
        (kept(&cluster, 0).not_after().unwrap() <= now_unix() + 10).then_some(())
    })
    .await;
    live_for(&cluster, 86_400).await;
    let old_admin = Context::load(&cluster.managers[0].data.join("admin.json")).unwrap();
    eventually("the certificate's end", async || expired(leaf.not_after)).await;

    let refused =
        connect(address, &TlsClient::manager(&worker.identity), &ChannelOptions::default()).await;
    assert!(refused.is_err(), "an expired certificate is no certificate");
    let back = recover(address, &worker.identity).await.unwrap();
    assert_eq!(back.subject(), worker.identity.identity().subject(), "the same node");
    assert!(back.not_after().unwrap() > now_unix() + 80_000);
    let back = crate::harness::Worker::new(TlsIdentity::new(back).unwrap());
    back.ready(&cluster.managers[0]).await;

    // Somebody who has the certificate, which is no secret, but not its key.
    let (stolen, theirs) = (worker.identity.identity(), other.identity.identity());
    let csr_der = KeyAndCsr::generate().unwrap().csr_pem.into_bytes();
    let signature = theirs.sign(&[b"cluster recover", &csr_der[..]].concat()).unwrap();
    let request = RecoverRequest { certificate: stolen.chain_pem.clone(), csr_der, signature };
    let nobody = TlsClient::anonymous(&worker.identity).unwrap();
    let nobody = connect(address, &nobody, &ChannelOptions::default()).await.unwrap();
    let refused = CaClient::new(nobody).recover(request).await;
    assert_eq!(refusal(refused).0, Code::NoCertificate);

    // A manager's certificate is no worker's, and who was removed does not come back.
    let manager = TlsIdentity::new(kept(&cluster, 0)).unwrap();
    let code = async |identity: &TlsIdentity| {
        code_of(&recover(address, identity).await.expect_err("it should be refused"))
    };
    assert_eq!(code(&manager).await, Some(Code::Removed));
    let remove = control::RemoveNodeRequest { node: other.id.clone(), force: true };
    cluster.control(0).remove_node(remove).await.unwrap();
    assert_eq!(code(&other.identity).await, Some(Code::Removed));

    // The administrator's file in the manager's folder was kept fresh meanwhile.
    let admin = eventually("a fresh context file", async || {
        let context = Context::load(&cluster.managers[0].data.join("admin.json")).ok()?;
        (context.identity().ok()?.not_after().ok()? > now_unix() + 80_000).then_some(context)
    })
    .await;
    assert_ne!(admin.chain_pem, old_admin.chain_pem);
}

/// All managers were off for longer than certificates live: nobody could talk to anybody.
#[tokio::test]
async fn managers_whose_certificates_expired_while_all_were_off_come_back_by_themselves() {
    let mut cluster = Cluster::of(3).await;
    let service = cluster.service("web", 0, 0).await;
    live_for(&cluster, 10).await;
    for manager in 0..3 {
        eventually("short certificates", async || {
            (kept(&cluster, manager).not_after().unwrap() <= now_unix() + 10).then_some(())
        })
        .await;
    }
    for manager in &mut cluster.managers {
        manager.kill();
    }
    let last = (0..3).map(|manager| kept(&cluster, manager).not_after().unwrap()).max().unwrap();
    eventually("the certificates' end", async || expired(last)).await;
    for manager in &mut cluster.managers {
        manager.start_again(&[]);
    }
    let path = cluster.managers[0].data.join("admin.json");
    let found = eventually("an answer", async || {
        let context = Context::load(&path).ok()?;
        let identity = TlsIdentity::new(context.identity().ok()?).ok()?;
        let request = control::GetServiceRequest { service: "web".into(), stale: false };
        let address = &cluster.managers[1].address;
        let mut control = control::control_client::ControlClient::new(channel(address, &identity));
        control.get_service(request).await.ok()?.into_inner().service
    })
    .await;
    assert_eq!(found.id, service);
    assert!(cluster.managers[0].told().contains("the certificate had expired"));
}

#[tokio::test]
async fn the_ca_is_replaced_under_the_eyes_of_all_and_over_a_change_of_leaders() {
    let mut cluster = Cluster::of(3).await;
    let address = cluster.managers[1].address.clone();
    let worker = cluster.worker("worker-1").await;
    let mut session = worker.ready(&cluster.managers[1]).await;
    let (old_token, old_admin) = (cluster.token("worker").await, cluster.admin.clone());
    let before = security(&cluster, 0).await;
    assert!(before.rotation.is_none());
    cluster.control(0).rotate_ca(control::RotateCaRequest { force: false }).await.unwrap();
    let again = cluster.control(0).rotate_ca(control::RotateCaRequest { force: false }).await;
    assert_eq!(refusal(again).0, Code::CaNotNow);

    // Managers do their part by themselves; the worker is told, and waited for.
    session
        .until("to be told of two CAs", |known| {
            known.trust.as_ref().is_some_and(|trust| {
                trust.confirm && trust.cas.matches("BEGIN CERTIFICATE").count() == 2
            })
        })
        .await;
    let held = eventually("everybody but the worker", async || {
        let rotation = security(&cluster, 1).await.rotation?;
        (rotation.done == 3).then_some(rotation)
    })
    .await;
    assert_eq!((held.nodes, held.missing.len()), (4, 1));
    assert_eq!(held.missing[0].id, worker.id);
    assert!(held.missing[0].waited_for);
    // Its old certificate proves nothing, though it is good for everything else.
    let early = confirm(&address, &worker.identity).await.unwrap_err();
    assert_eq!(code_of(&early), Some(Code::CaNotNow));
    // A machine with a token from before joins still.
    join(&address, &old_token, "worker", "worker-2").await.unwrap();
    let remove = control::RemoveNodeRequest { node: "worker-2".into(), force: true };
    cluster.control(1).remove_node(remove).await.unwrap();

    let leader = cluster.leader(1).await.unwrap();
    cluster.managers[leader].kill();
    let alive = (leader + 1) % 3;
    eventually("another leader", async || cluster.leader(alive).await.filter(|l| *l != leader))
        .await;
    let address = cluster.managers[alive].address.clone();
    let fresh = renewed(&address, &worker.identity).await;
    assert_eq!(fresh.identity().ca_digests().len(), 2);
    confirm(&address, &fresh).await.unwrap();
    // The old CA is dropped; the worker, whose session is gone, is not waited for with that.
    cluster.admin = renewed(&address, &old_admin).await;
    eventually("the end of the old CA", async || {
        let found = security(&cluster, alive).await;
        let over = found.rotation.is_none_or(|rotation| rotation.phase == "retire");
        (over && found.ca_digest != before.ca_digest).then_some(())
    })
    .await;
    let last = renewed(&address, &fresh).await;
    assert_eq!(last.identity().ca_digests().len(), 1);
    confirm(&address, &last).await.unwrap();
    cluster.admin = renewed(&address, &cluster.admin).await;
    eventually("the end of the change", async || {
        security(&cluster, alive).await.rotation.is_none().then_some(())
    })
    .await;

    // What is of the old CA counts no more, on no manager.
    for identity in [&old_admin, &worker.identity] {
        let refused =
            connect(&address, &TlsClient::manager(identity), &ChannelOptions::default()).await;
        assert!(refused.is_err(), "{identity:?}");
    }
    let request = control::GetTokenRequest { role: "worker".into(), rotate: false };
    let token = cluster.control(alive).get_token(request).await.unwrap().into_inner().token;
    assert_ne!(token, old_token);
    join(&address, &token, "worker", "worker-3").await.unwrap();
    // The manager that was killed meanwhile finds its way back.
    cluster.managers[leader].start_again(&[]);
    let begun = Instant::now();
    eventually("the manager that was away", async || cluster.info(leader).await).await;
    println!("back after {:?}", begun.elapsed());
}

#[tokio::test]
async fn removal_makes_certificates_worthless_at_once() {
    let mut cluster = Cluster::of(3).await;
    let address = cluster.managers[0].address.clone();
    let worker = cluster.worker("worker-1").await;
    let witness = cluster.worker("worker-2").await;
    let mut seen = witness.ready(&cluster.managers[0]).await;
    let session = worker.ready(&cluster.managers[0]).await;
    let remove = control::RemoveNodeRequest { node: worker.id.clone(), force: true };
    cluster.control(0).remove_node(remove).await.unwrap();
    seen.until("to be told of the removal", |known| {
        known.trust.as_ref().is_some_and(|trust| trust.revoked.contains(&worker.id))
    })
    .await;
    drop(session);
    // Every call, on connections that were open before and on new ones.
    let as_worker = channel(&address, &worker.identity);
    let refused = DispatcherClient::new(as_worker).session(tokio_stream::empty()).await;
    assert_eq!(refusal(refused).0, Code::Removed);

    // A manager that was removed has a certificate that let it into the group's own protocol.
    let identity = TlsIdentity::new(kept(&cluster, 2)).unwrap();
    let mut group = RaftClient::new(channel(&address, &identity));
    let ask = || Request::new(raft::ReadIndexRequest { to: 0, timeout_ms: 10 });
    let before: Result<Response<_>, Status> = group.read_index(ask()).await;
    assert!(before.is_err_and(|status| code_of(&status).is_none()), "let in, not understood");
    cluster.managers[2].kill();
    let remove = control::RemoveNodeRequest { node: "manager-3".into(), force: true };
    cluster.control(0).remove_node(remove).await.unwrap();
    eventually("the removed manager to be refused", async || {
        let refused = group.read_index(ask()).await;
        refused.is_err_and(|status| code_of(&status) == Some(Code::Removed)).then_some(())
    })
    .await;
    assert_eq!(security(&cluster, 0).await.revoked, 2);
}
