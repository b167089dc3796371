//! Clients that are not who they should be, or speak at the wrong place or time.

use std::path::PathBuf;
use std::time::Duration;

use cluster_identity::{
    Ca, ChannelOptions, Context, Identity, JoinToken, KeyAndCsr, Role, Subject, TlsClient,
    TlsIdentity, connect, now_unix,
};
use cluster_pb::ca::v1::JoinRequest;
use cluster_pb::ca::v1::ca_client::CaClient;
use cluster_pb::control::v1::control_client::ControlClient;
use cluster_pb::control::v1::{GetServiceRequest, UpdateServiceRequest};
use cluster_tests::manager::{Folder, ctl};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn admin(ca: &Ca, signed_at: u64) -> Identity {
    let subject = Subject {
        role: Role::Admin,
        node_id: "0000000000001".into(),
        cluster_id: ca.cluster_id().into(),
    };
    ca.issue(&subject, signed_at, DAY).expect("a certificate")
}

/// Writes a context file.
fn context(folder: &tempfile::TempDir, name: &str, address: &str, identity: &Identity) -> PathBuf {
    let path = folder.path().join(format!("{name}.json"));
    let context = Context::new(name, vec![address.to_owned()], identity).expect("a context");
    context.save(&path).expect("the context is written");
    path
}

#[test]
fn clusterctl_says_what_is_wrong_with_its_certificate_or_address() {
    let cluster = Folder::new();
    let manager = cluster.start(&["--bootstrap"]);
    let address = cluster.address();
    let contexts = tempfile::tempdir().expect("a folder");
    let refused = |path: &PathBuf, codes: &[i32], says: &[&str]| {
        let ran = ctl(path, &["--timeout", "3s", "service", "ls"]);
        assert!(codes.contains(&ran.code), "{ran:?}");
        for text in says {
            assert!(ran.stderr.contains(text), "does not say `{text}`: {}", ran.stderr);
        }
    };

    let foreign = Ca::create("0000000000007", now_unix()).expect("a CA");
    let path = context(&contexts, "foreign", &address, &admin(&foreign, now_unix()));
    refused(&path, &[1, 2, 3], &[&address, "another cluster"]);
    let path = context(&contexts, "expired", &address, &admin(&foreign, now_unix() - 3 * 86400));
    refused(&path, &[1, 2, 3], &["expired"]);
    let path = context(&contexts, "early", &address, &admin(&foreign, now_unix() + 2 * 86400));
    refused(&path, &[1, 2, 3], &["clock"]);

    // The right certificate, the wrong places.
    let text = std::fs::read_to_string(cluster.file("admin.json")).expect("the context");
    let at = |other: &str| {
        let path = contexts.path().join("elsewhere.json");
        std::fs::write(&path, text.replace(&address, other)).expect("the context is written");
        path
    };
    refused(&at("127.0.0.1:1"), &[3], &["127.0.0.1:1"]);
    let banner = banner_server();
    refused(&at(&banner), &[3], &[&banner, "not a cluster port"]);
    let other = Folder::new();
    let _other_manager = other.start(&["--bootstrap"]);
    refused(&at(&other.address()), &[1, 2, 3], &[&other.address(), "another cluster"]);

    // Damaged context files.
    for (bytes, says) in
        [(&b"{}"[..], "damaged"), (b"garbage", "damaged"), (&text.as_bytes()[..200], "truncated")]
    {
        let path = contexts.path().join("damaged.json");
        std::fs::write(&path, bytes).expect("the context is written");
        refused(&path, &[1, 2], &["damaged.json", says]);
    }
    refused(&contexts.path().join("absent.json"), &[1, 2], &["absent.json"]);
    assert!(manager.services().is_empty());
}

/// Two users read the same version of a service; the second to change it is told.
#[test]
fn an_update_of_a_version_that_moved_on_is_refused() {
    let cluster = Folder::new();
    let manager = cluster.start(&["--bootstrap"]);
    manager.write("web");
    let context = Context::load(&cluster.file("admin.json")).expect("the context");
    let identity = TlsIdentity::new(context.identity().expect("an identity")).expect("usable");
    let address = cluster.address();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async move {
        let client = TlsClient::manager(&identity);
        let channel = connect(&address, &client, &ChannelOptions::default()).await;
        let mut control = ControlClient::new(channel.expect("a connection"));
        let read =
            control.get_service(GetServiceRequest { service: "web".into(), ..Default::default() });
        let service = read.await.expect("the service").into_inner().service.expect("the service");
        let update = UpdateServiceRequest {
            id: service.id.clone(),
            version: service.version,
            spec: service.spec.clone(),
            remove_tasks: Vec::new(),
        };
        control.update_service(update.clone()).await.expect("the first is taken");
        let status = control.update_service(update).await.expect_err("the second is not");
        let code = status.metadata().get("cluster-error-code").map(|code| code.as_bytes().to_vec());
        assert_eq!(code.as_deref(), Some(&b"E0105"[..]), "{status:?}");
        assert!(status.message().contains("read it again"), "{status:?}");
    });
}

/// A server that speaks first and is no cluster's, such as one for mail.
fn banner_server() -> String {
    use std::io::Write as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(b"220 mail.example.net ready\r\n");
            open.push(stream);
        }
    });
    address
}

#[test]
fn a_machine_whose_clock_is_off_cannot_join() {
    let cluster = Folder::new();
    let manager = cluster.start(&["--bootstrap"]);
    let text = manager.good(&["cluster", "token", "--role", "worker", "--quiet"]);
    let token: JoinToken = text.trim().parse().expect("a token");
    let now_ms = now_unix() * 1000;
    let two_hours = 2 * 3600 * 1000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let join = |name: &str, now_ms: u64| {
        let (token, address, name) = (token.clone(), cluster.address(), name.to_owned());
        runtime.block_on(async move {
            let client = TlsClient::pinned(token.ca_digest).expect("a client");
            let channel = connect(&address, &client, &ChannelOptions::default()).await;
            let key = KeyAndCsr::generate().expect("a key");
            let request = JoinRequest {
                token: token.to_string(),
                csr_der: key.csr_pem.into_bytes(),
                name,
                role: "worker".into(),
                now_ms,
            };
            CaClient::new(channel.expect("a connection")).join(request).await
        })
    };
    for (name, now_ms, says) in [
        ("late", now_ms - two_hours, "minutes behind"),
        ("early", now_ms + two_hours, "minutes ahead"),
    ] {
        let status = join(name, now_ms).expect_err("the clock is off");
        let code = status.metadata().get("cluster-error-code").map(|code| code.as_bytes().to_vec());
        assert_eq!(code.as_deref(), Some(&b"E0204"[..]), "{status:?}");
        assert!(status.message().contains(says), "{status:?}");
        let nodes = manager.good(&["node", "ls", "--output", "json"]);
        assert!(!nodes.contains(name), "{nodes}");
    }
    join("right", now_ms).expect("a clock that is right");
    let nodes = manager.good(&["node", "ls", "--output", "json"]);
    assert!(nodes.contains("right"), "{nodes}");
}
