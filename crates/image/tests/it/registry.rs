//! A real registry: Debian's `docker-registry`, on loopback.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster_image::{Auth, Digest, Error, Platform, PullPolicy, RegistryOptions};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};

use crate::fixture::{Fresh, Tar, TestImage, gzip, reference, zstd};

const PROGRAM: &str = "/usr/bin/docker-registry";
/// Password `open sesame`.
const HTPASSWD: &str = "ali:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n";

struct Registry {
    child: Child,
    address: String,
    /// PEM of what signs its certificate, when it speaks TLS.
    ca: Vec<u8>,
    _dir: tempfile::TempDir,
}

#[derive(Clone, Copy, Default)]
struct Wanted {
    auth: bool,
    tls: bool,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// `None` where the program is not installed.
    async fn start(wanted: Wanted) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            eprintln!("SKIPPED: {PROGRAM} is missing; apt-get install docker-registry");
            return None;
        }
        for _ in 0..5 {
            if let Some(registry) = Self::try_start(wanted).await {
                return Some(registry);
            }
        }
        panic!("{PROGRAM} does not start");
    }

    /// The port is chosen by the system and may be taken before it is used.
    async fn try_start(wanted: Wanted) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let root = dir.path().display();
        let htpasswd = dir.path().join("htpasswd");
        std::fs::write(&htpasswd, HTPASSWD).unwrap();
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    \
             rootdirectory: {root}/data\nhttp:\n  addr: {address}\n"
        );
        if wanted.tls {
            config += &format!("  tls:\n    certificate: {root}/cert\n    key: {root}/key\n");
        }
        if wanted.auth {
            config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {root}/htpasswd\n");
        }
        let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let ca = signed.cert.pem().into_bytes();
        std::fs::write(dir.path().join("cert"), &ca).unwrap();
        std::fs::write(dir.path().join("key"), signed.signing_key.serialize_pem()).unwrap();
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(PROGRAM)
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { child, address, ca, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if registry.child.try_wait().unwrap().is_some() {
                return None;
            }
            if tokio::net::TcpStream::connect(&registry.address).await.is_ok() {
                return Some(registry);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    async fn push(&self, image: &TestImage, auth: RegistryAuth, tls: bool) {
        let pem = Certificate { encoding: CertificateEncoding::Pem, data: self.ca.clone() };
        let client = Client::new(ClientConfig {
            protocol: if tls { ClientProtocol::Https } else { ClientProtocol::Http },
            extra_root_certificates: vec![pem],
            ..ClientConfig::default()
        });
        let name: oci_client::Reference = format!("{}/web:1", self.address).parse().unwrap();
        client.auth(&name, &auth, RegistryOperation::Push).await.unwrap();
        for blob in image.blobs() {
            let digest = Digest::of(blob).to_string();
            client.push_blob(&name, blob.clone(), &digest).await.unwrap();
        }
        let media_type = "application/vnd.oci.image.manifest.v1+json".parse().unwrap();
        client.push_manifest_raw(&name, image.manifest.clone(), media_type).await.unwrap();
    }
}

fn sample(pack: fn(&[u8]) -> Vec<u8>) -> TestImage {
    let layers = (0..5).map(|i: u8| Tar::new().file(&format!("f{i}"), &[i]).bytes());
    TestImage::build(layers.collect(), pack, &Platform::host())
}

#[tokio::test]
async fn pull_from_a_registry() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(registry) = Registry::start(Wanted::default()).await else { return };
    for (i, pack) in [gzip, zstd].into_iter().enumerate() {
        let image = sample(pack);
        registry.push(&image, RegistryAuth::Anonymous, false).await;
        let fresh = Fresh::new();
        let name = reference(&format!("{}/web:1", registry.address));
        let options = RegistryOptions::default();
        let ask = |policy| fresh.store.ensure(&name, policy, &options, None, None);
        let pulled = ask(PullPolicy::Missing).await.unwrap();
        assert_eq!(pulled.manifest_digest, image.digest());
        for (n, layer) in pulled.layers.iter().enumerate() {
            assert_eq!(std::fs::read(layer.join(format!("f{n}"))).unwrap(), [n as u8]);
        }
        // `Always` sees the new meaning of the name, `Missing` does not care.
        let newer = TestImage::new(vec![Tar::new().file("new", &[i as u8]).bytes()]);
        registry.push(&newer, RegistryAuth::Anonymous, false).await;
        let same = ask(PullPolicy::Missing).await.unwrap();
        assert_eq!(same.manifest_digest, image.digest());
        let moved = ask(PullPolicy::Always).await.unwrap();
        assert_eq!(moved.manifest_digest, newer.digest());
        let pinned = reference(&format!("{}/web@{}", registry.address, image.digest()));
        let other = Fresh::new();
        let pinned = other.store.ensure(&pinned, PullPolicy::Missing, &options, None, None);
        assert_eq!(pinned.await.unwrap().manifest_digest, image.digest());
        let none = reference(&format!("{}/web:none", registry.address));
        let none = other.store.ensure(&none, PullPolicy::Missing, &options, None, None);
        assert!(matches!(none.await, Err(Error::NotInRegistry { .. })));
    }
}

#[tokio::test]
async fn credentials_are_needed_and_used() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(registry) = Registry::start(Wanted { auth: true, ..Wanted::default() }).await else {
        return;
    };
    let image = sample(gzip);
    let login =
        |password: &str| Auth::Basic { username: "ali".to_owned(), password: password.to_owned() };
    let right = RegistryAuth::Basic("ali".to_owned(), "open sesame".to_owned());
    registry.push(&image, right, false).await;
    let fresh = Fresh::new();
    let name = reference(&format!("{}/web:1", registry.address));
    let options = RegistryOptions::default();
    for auth in [None, Some(login("wrong"))] {
        let refused = fresh.store.ensure(&name, PullPolicy::Missing, &options, auth, None);
        let error = refused.await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
    }
    let pulled =
        fresh.store.ensure(&name, PullPolicy::Missing, &options, Some(login("open sesame")), None);
    assert_eq!(pulled.await.unwrap().manifest_digest, image.digest());
}

#[tokio::test]
async fn tls_needs_a_trusted_certificate() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let wanted = Wanted { tls: true, ..Wanted::default() };
    let Some(registry) = Registry::start(wanted).await else { return };
    let image = sample(gzip);
    registry.push(&image, RegistryAuth::Anonymous, true).await;
    let fresh = Fresh::new();
    let name = reference(&format!("{}/web:1", registry.address));
    let mut options = RegistryOptions::default();
    let pull = |options: RegistryOptions| {
        let (store, name) = (fresh.store.clone(), name.clone());
        async move {
            let policy = PullPolicy::Missing;
            store.ensure(&name, policy, &options, None, None).await
        }
    };
    let error = pull(options.clone()).await.unwrap_err();
    assert!(matches!(error, Error::RegistryUnreachable { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    options.extra_ca = vec![registry.ca.clone()];
    assert_eq!(pull(options).await.unwrap().manifest_digest, image.digest());
}
