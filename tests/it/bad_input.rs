//! Bad input: a clear error that names the field and the fix, and nothing half-done.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cluster_lab::Place;
use cluster_tests::cluster::SOON;
use cluster_tests::{Cluster, install, until};

#[test]
fn bad_service_specs_are_refused_with_field_and_fix() {
    let cluster = Cluster::up("bad", 1, 1);
    let long = "n".repeat(500);
    let create = |args: &[&str]| {
        let mut all = vec!["service", "create", "--detach"];
        all.extend(args);
        cluster.ctl(&all)
    };
    let file = tempfile::NamedTempFile::new().expect("a file");
    let lines: String =
        (0..50).map(|number| format!("BIG{number}={}\n", "x".repeat(100 * 1024))).collect();
    std::fs::write(file.path(), lines).expect("5 MB of environment");
    let path = file.path().display().to_string();
    let environment = ["--name", "env", "--env-file", path.as_str(), "web:1"];
    let table: &[(&[&str], &str)] = &[
        (&["--name", "a", "--replicas", "-1", "web:1"], "replicas"),
        (&["--name", "a", "--replicas", "1000000000", "web:1"], "replicas"),
        (&["--name", "a", "--publish", "0:80", "web:1"], "port"),
        (&["--name", "a", "--publish", "70000:80", "web:1"], "port"),
        (&["--name", "a", "--publish", "80:0", "web:1"], "port"),
        (&["--name", "a", "--limit-memory", "1M", "web:1"], "memory"),
        (&["--name", "with space", "web:1"], "name"),
        (&["--name", "new\nline", "web:1"], "name"),
        (&["--name", &long, "web:1"], "name"),
        (&["--name", "a", "--constraint", "rack=a", "web:1"], "constraint"),
        (&["--name", "a", "--mount", "type=bind,source=rel,target=/x", "web:1"], "mount"),
        (&["--name", "a", "--restart-condition", "sometimes", "web:1"], "restart-condition"),
        (&environment, "env"),
    ];
    for (args, says) in table {
        let ran = create(args);
        assert!(ran.code == 1 || ran.code == 2, "{ran:?}");
        assert!(ran.stderr.to_lowercase().contains(says), "does not name `{says}`: {}", ran.stderr);
    }
    assert_eq!(
        cluster.json(&["service", "ls"]).as_array().map(Vec::len),
        Some(0),
        "nothing half-done"
    );

    cluster.good(&["service", "create", "--name", "twice", "web:1"]);
    cluster.bad(
        1,
        &["E0103", "twice"],
        &["service", "create", "--detach", "--name", "twice", "web:1"],
    );

    // An image nobody has: the task is rejected with the reason, and create leaves with an error.
    let ran = cluster.ctl(&["service", "create", "--name", "ghost", "127.0.0.1:1/nothing:1"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("nothing:1"), "{}", ran.stderr);
    cluster.good(&["service", "rm", "ghost"]);
}

#[test]
fn wrong_tokens_ports_and_garbage_do_no_harm() {
    let cluster = Cluster::up("tok", 1, 1);
    let worker = install::bin_dir().join("cluster-worker");
    let manager = format!("{}:7100", cluster.address("manager-1"));
    let join = |token: &str| {
        let data = tempfile::tempdir().expect("a folder");
        let argv = [
            worker.display().to_string(),
            "--data-dir".into(),
            data.path().display().to_string(),
            "--join".into(),
            manager.clone(),
            "--token".into(),
            token.to_owned(),
            "--name".into(),
            "stranger".into(),
            "--advertise".into(),
            "127.0.0.1".into(),
        ];
        let output = cluster.lab().exec_output(Place::Client, &argv).expect("the worker starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let good = cluster.good(&["cluster", "token", "--role", "worker", "--quiet"]);
    let manager_token = cluster.good(&["cluster", "token", "--role", "manager", "--quiet"]);
    for (token, says) in [("nonsense", "token"), (manager_token.trim(), "worker")] {
        let (code, stderr) = join(token);
        assert!(matches!(code, Some(1 | 2)), "{code:?}: {stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
    cluster.good(&["cluster", "token", "--role", "worker", "--rotate", "--quiet"]);
    let (code, stderr) = join(good.trim());
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("rotated"), "{stderr}");

    // Garbage on every listening port; the cluster goes on.
    for (node, port) in [("manager-1", 7100), ("worker-1", 7101)] {
        let address = cluster.address(node);
        let sent = cluster.lab().inside(Place::Client, move || {
            for _ in 0..20 {
                let Ok(mut stream) = TcpStream::connect(SocketAddr::from((address, port))) else {
                    continue;
                };
                let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
                let _ = stream.write_all(&[0xff; 4096]);
                let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
                let _ = stream.read(&mut [0; 64]);
            }
        });
        sent.expect("garbage was sent");
    }
    cluster.good(&["service", "create", "--name", "still", "web:1"]);

    // clusterctl at a worker's port says that no manager is there.
    let text = std::fs::read_to_string(cluster.lab().client_context_file()).expect("the context");
    let wrong = text.replace(&manager, &format!("{}:7101", cluster.address("worker-1")));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), wrong).expect("written");
    let ran = cluster.ctl_with(Place::Client, file.path(), &["service", "ls"]);
    assert_eq!(ran.code, 3, "{ran:?}");
}

#[test]
fn an_image_comes_from_a_registry() {
    let cluster = Cluster::bare("reg", 1, 2, |options| {
        // The registry listens inside the lab, without TLS, which must be asked for.
        options.worker_args.extend(["--insecure-registry".into(), "10.77.0.2:5000".into()]);
    });
    let registry = Registry::start(&cluster);
    registry.push(&install::web_archive());
    cluster.good(&[
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "2",
        "--publish",
        "80:80",
        &registry.image("web:1"),
    ]);
    cluster.wait_running("web", 2, SOON);
    // The registry goes away: what runs is untouched, what must be pulled says why it waits.
    drop(registry);
    assert_eq!(cluster.running("web").len(), 2);
    cluster.good(&["service", "create", "--detach", "--name", "late", "10.77.0.2:5000/web:2"]);
    until("the reason", SOON, || {
        let tasks = cluster.tasks("late");
        let says = tasks.iter().any(|task| task.error.contains("10.77.0.2:5000"));
        if says { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
}

use registry::Registry;

mod registry {
    //! Debian's registry inside the lab's client namespace.

    use std::path::Path;
    use std::process::Child;

    use super::*;

    pub struct Registry {
        child: Child,
        folder: tempfile::TempDir,
    }

    impl Registry {
        pub fn start(cluster: &Cluster) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let config = folder.path().join("config.yml");
            let text = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp:\n  addr: 10.77.0.2:5000\n",
                folder.path().join("data").display()
            );
            std::fs::write(&config, text).expect("the configuration");
            let argv = ["docker-registry".to_owned(), "serve".into(), config.display().to_string()];
            let mut command = cluster.lab().command(Place::Client, &argv).expect("a command");
            let child = command.spawn().expect("docker-registry starts");
            let registry = Self { child, folder };
            until("the registry answers", SOON, || {
                cluster.get([10, 77, 0, 2].into(), 5000, "/v2/")
            });
            registry
        }

        /// Puts the images of an archive into the registry's own storage, in its layout.
        pub fn push(&self, archive: &Path) {
            let unpacked = self.folder.path().join("archive");
            std::fs::create_dir_all(&unpacked).expect("a folder");
            let status = std::process::Command::new("tar")
                .arg("-xf")
                .arg(archive)
                .arg("-C")
                .arg(&unpacked)
                .status();
            assert!(status.expect("tar runs").success());
            crate::bad_input::layout::install(&unpacked, &self.folder.path().join("data"));
        }

        pub fn image(&self, name: &str) -> String {
            format!("10.77.0.2:5000/{name}")
        }
    }

    impl Drop for Registry {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

mod layout {
    //! The registry's storage folder, filled from an OCI layout.

    use std::fs;
    use std::path::Path;

    use serde_json::Value;

    pub fn install(layout: &Path, storage: &Path) {
        let root = storage.join("docker/registry/v2");
        let repository = root.join("repositories/web");
        let blobs = layout.join("blobs/sha256");
        for entry in fs::read_dir(&blobs).expect("blobs") {
            let path = entry.expect("an entry").path();
            let hex = path.file_name().expect("a name").to_string_lossy().into_owned();
            let blob = root.join("blobs/sha256").join(&hex[..2]).join(&hex);
            fs::create_dir_all(&blob).expect("a folder");
            fs::copy(&path, blob.join("data")).expect("a blob");
            link(&repository.join("_layers/sha256").join(&hex), &hex);
        }
        let index: Value =
            serde_json::from_slice(&fs::read(layout.join("index.json")).expect("index.json"))
                .expect("JSON");
        for manifest in index["manifests"].as_array().expect("manifests") {
            let hex = manifest["digest"]
                .as_str()
                .expect("a digest")
                .trim_start_matches("sha256:")
                .to_owned();
            let name =
                manifest["annotations"]["io.containerd.image.name"].as_str().unwrap_or_default();
            let tag = name.rsplit(':').next().expect("a tag");
            link(&repository.join("_manifests/revisions/sha256").join(&hex), &hex);
            let tags = repository.join("_manifests/tags").join(tag);
            link(&tags.join("current"), &hex);
            link(&tags.join("index/sha256").join(&hex), &hex);
        }
    }

    fn link(folder: &Path, hex: &str) {
        fs::create_dir_all(folder).expect("a folder");
        fs::write(folder.join("link"), format!("sha256:{hex}")).expect("a link");
    }
}
