//! Images that cannot be used: from archives and from registries. Each is refused by name, and
//! leaves nothing on the node.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use cluster_lab::Place;
use cluster_tests::image::{Image, Liar, blob_file, digest, native_architecture, tar};
use cluster_tests::{Cluster, Ran, eventually, install};

/// Another architecture than this machine's.
fn foreign_architecture() -> &'static str {
    if native_architecture() == "arm64" { "amd64" } else { "arm64" }
}

/// `cluster-worker image …` on worker-1.
fn image(cluster: &Cluster, verb: &str, archive: Option<&Path>) -> Ran {
    let worker = install::bin_dir().join("cluster-worker").display().to_string();
    let data = cluster.lab().data_path("worker-1").display().to_string();
    let mut argv = vec![worker, "image".into(), verb.to_owned(), "--data-dir".into(), data];
    argv.extend(archive.map(|path| path.display().to_string()));
    let output = cluster.lab().exec_output(Place::Node("worker-1"), &argv).expect("it starts");
    Ran::from(output)
}

fn spoiled(layer: &[u8]) -> Vec<u8> {
    let mut layer = layer.to_vec();
    layer[600] ^= 1;
    layer
}

#[test]
fn archives_that_cannot_be_used_are_refused_by_name() {
    let cluster = Cluster::bare("arch", 1, 1, |_| {});
    let folder = tempfile::tempdir_in(install::lab_base()).expect("a folder");
    let good = Image::native(tar(&[("hello", b"world")]));
    let make =
        |name: &str, image: &Image, change: &dyn Fn(&mut std::collections::BTreeMap<_, _>)| {
            let path = folder.path().join(format!("{name}.tar"));
            image.archive(&path, "docker.io/library/bad:1", change);
            path
        };
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let layer = blob_file(&good.layer);
    let climbing = Image::native(tar(&[("../../../../var/tmp/cluster-evil", b"evil")]));
    let foreign = Image::new(foreign_architecture(), good.layer.clone());
    let whole = std::fs::read(make("whole", &good, &|_| {})).expect("the archive");
    let table: &[(PathBuf, &[&str])] = &[
        (folder.path().join("absent.tar"), &["absent.tar"]),
        (write("empty.tar", b""), &["malformed"]),
        (write("garbage.tar", &[0xff; 5000]), &["malformed"]),
        (write("cut.tar", &whole[..whole.len() / 2]), &["malformed"]),
        (
            make("climbing", &climbing, &|_| {}),
            &["unsafe path", "../../../../var/tmp/cluster-evil"],
        ),
        (
            make("member", &good, &|files| {
                files.insert("../cluster-evil".into(), b"evil".to_vec());
            }),
            &["unsafe path", "../cluster-evil"],
        ),
        (
            make("corrupt", &good, &|files| {
                files.insert(layer.clone(), spoiled(&good.layer));
            }),
            &["digest", "corrupt"],
        ),
        (
            make("incomplete", &good, &|files| {
                files.remove(&layer);
            }),
            &["malformed", &digest(&good.layer)[7..19]],
        ),
        (
            make("foreign", &foreign, &|_| {}),
            &["bad:1", foreign_architecture(), native_architecture()],
        ),
    ];
    for (path, says) in table {
        let ran = image(&cluster, "load", Some(path));
        assert_eq!(ran.code, 1, "{}: {ran:?}", path.display());
        for text in *says {
            let shown = path.display();
            assert!(ran.stderr.contains(text), "{shown} does not say `{text}`: {}", ran.stderr);
        }
        assert_eq!(
            image(&cluster, "ls", None).stdout.trim(),
            "",
            "{} is half there",
            path.display()
        );
    }
    assert!(!Path::new("/var/tmp/cluster-evil").exists(), "a path led out");
    let ran = image(&cluster, "load", Some(&folder.path().join("whole.tar")));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(image(&cluster, "ls", None).stdout.contains("bad:1"));
}

#[test]
fn a_registry_that_lies_or_lacks_the_image_is_found_out() {
    let cluster = Cluster::bare("liar", 1, 1, |options| {
        options.worker_args.extend(["--insecure-registry".into(), "10.77.0.2:5000".into()]);
    });
    let listener = cluster.lab().inside(Place::Client, || TcpListener::bind("10.77.0.2:5000"));
    let liar = Liar::serve(listener.expect("inside").expect("a port"));
    let good = Image::native(tar(&[("hello", b"world")]));
    let foreign = Image::new(foreign_architecture(), good.layer.clone());
    let climbing = Image::native(tar(&[("../../cluster-evil", b"evil")]));

    let bad_layer = liar.offer("layer", &good);
    liar.set(&format!("/v2/layer/blobs/{}", digest(&good.layer)), &spoiled(&good.layer));
    // Of its own, as the node rightly keeps what it received whole.
    let fresh = Image::native(tar(&[("hello", b"config")]));
    let bad_config = liar.offer("config", &fresh);
    liar.set(&format!("/v2/config/blobs/{}", digest(&fresh.config)), &foreign.config);
    // Asked for one manifest by its digest, it hands out another.
    liar.set(&format!("/v2/other/manifests/{}", digest(b"asked for")), &good.manifest);
    let other = format!("10.77.0.2:5000/other@{}", digest(b"asked for"));
    let garbled = liar.offer("garbled", &good);
    liar.set("/v2/garbled/manifests/1", b"{\"schemaVersion\": ");
    let foreign = liar.offer("foreign", &foreign);
    let climbing = liar.offer("climbing", &climbing);
    let table: &[(&str, &str, &[&str])] = &[
        ("layer", &bad_layer, &["digest"]),
        ("config", &bad_config, &["digest"]),
        ("other", &other, &["digest"]),
        ("garbled", &garbled, &["10.77.0.2:5000"]),
        ("foreign", &foreign, &["foreign:1", foreign_architecture()]),
        ("climbing", &climbing, &["unsafe path"]),
        ("absent", "10.77.0.2:5000/absent:1", &["absent:1", "check the name"]),
    ];
    for (name, reference, says) in table {
        let ran = cluster.ctl(&["service", "create", "--name", name, reference]);
        assert_eq!(ran.code, 1, "{name}: {ran:?}");
        for text in *says {
            assert!(ran.stderr.contains(text), "{name} does not say `{text}`: {}", ran.stderr);
        }
        let tasks = cluster.tasks(name);
        assert!(tasks.iter().all(|task| !task.is_running()), "{tasks:?}");
        assert!(tasks.iter().any(|task| task.observed == "rejected"), "{tasks:?}");
        cluster.good(&["service", "rm", name]);
    }
    eventually("no image is half there", cluster_tests::cluster::SOON, || {
        image(&cluster, "ls", None).stdout.trim().is_empty()
    });
    assert!(!Path::new("/var/tmp/cluster-evil").exists(), "a path led out");
}
