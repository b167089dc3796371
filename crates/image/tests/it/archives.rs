//! Archives in and out.

use std::io::Cursor;

use cluster_image::{Error, Limits, Platform, Reference};

use crate::fixture::{
    Fresh, Tar, TestImage, docker_archive, gzip, index, oci_archive, other_platform, reference,
    zstd,
};

fn sample() -> TestImage {
    let one = Tar::new().file("one", b"1").bytes();
    let two = Tar::new().file("two", b"2").bytes();
    TestImage::new(vec![one.clone(), two, one])
}

#[tokio::test]
async fn both_formats_packed_or_not_give_the_same_image() {
    let image = sample();
    let oci = oci_archive(&[("web:1", &image)]);
    let docker = docker_archive(&["web:1"], &image);
    for archive in [oci.clone(), gzip(&oci), zstd(&oci), docker.clone(), gzip(&docker)] {
        let fresh = Fresh::new();
        let imported = fresh.import(archive).await.unwrap();
        assert_eq!(imported.len(), 1);
        assert_eq!(imported[0].names, [reference("web:1")]);
        let found = fresh.store.resolve_local(&reference("docker.io/library/web:1")).await;
        let found = found.unwrap().unwrap();
        assert_eq!(found.manifest_digest, imported[0].digest);
        assert_eq!(found.layers.len(), 3);
        assert_eq!(found.config.entrypoint, ["/bin/web"]);
        assert_eq!(found.config.exposed_ports, ["80/tcp"]);
        assert_eq!(found.config.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!(found.config.healthcheck.unwrap().interval_ns, 1_000_000_000);
        assert_eq!(found.config.working_dir, "/srv");
        assert_eq!(found.config.labels["k"], "v");
    }
}

#[tokio::test]
async fn several_images_and_names() {
    let (a, b) = (sample(), TestImage::new(vec![Tar::new().file("b", b"").bytes()]));
    let fresh = Fresh::new();
    let archive = oci_archive(&[("r.example/a:1", &a), ("b:1", &b)]);
    assert_eq!(fresh.import(archive).await.unwrap().len(), 2);
    let fresh = Fresh::new();
    let imported = fresh.import(docker_archive(&["a:1", "a:2"], &a)).await.unwrap();
    assert_eq!(imported[0].names, [reference("a:1"), reference("a:2")]);
    // A tag alone names nothing; the digest does.
    let fresh = Fresh::new();
    let imported = fresh.import(oci_archive(&[("latest", &a)])).await.unwrap();
    let name = &imported[0].names[0];
    assert_eq!(name.digest(), Some(&a.digest()));
    assert!(fresh.store.resolve_local(name).await.unwrap().is_some());
}

#[tokio::test]
async fn the_entry_for_this_platform_is_taken() {
    let ours = sample();
    let theirs = TestImage::build(vec![Vec::new()], <[u8]>::to_vec, &other_platform());
    let fresh = Fresh::new();
    let archive = oci_archive(&[("web:1", &theirs), ("web:1", &ours)]);
    let imported = fresh.import(archive).await.unwrap();
    assert_eq!(imported[0].digest, ours.digest());

    let fresh = Fresh::new();
    let error = fresh.import(oci_archive(&[("web:1", &theirs)])).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::WrongPlatform { .. }), "{text}");
    assert!(text.contains("linux/s390x") && text.contains(&Platform::host().to_string()), "{text}");
    fresh.assert_untouched();

    // The index lies about the platform; the configuration tells.
    let mut liar = theirs.clone();
    liar.platform = Platform::host();
    let error = fresh.import(oci_archive(&[("web:1", &liar)])).await.unwrap_err();
    assert!(matches!(error, Error::WrongPlatform { .. }), "{error}");
    fresh.assert_untouched();
}

#[tokio::test]
async fn broken_archives_are_refused_and_leave_nothing() {
    let image = sample();
    let good = oci_archive(&[("web:1", &image)]);
    let cut = good[..good.len() / 2].to_vec();
    let packed = gzip(&good);
    let cut_gzip = packed[..packed.len() / 2].to_vec();
    let no_layers = Tar::new().file("index.json", &index(&[("web:1", &image)])).bytes();
    for (archive, what) in [
        (b"nonsense".repeat(200), "no archive"),
        (Vec::new(), "empty"),
        (Tar::new().file("x", b"").bytes(), "no index"),
        (Tar::new().file("index.json", b"{").bytes(), "bad JSON"),
        (Tar::new().file("manifest.json", b"[]").bytes(), "no images"),
        (Tar::new().hard_link("a", "b").bytes(), "hard link"),
        (no_layers, "missing blobs"),
        (cut, "cut off"),
        (cut_gzip, "cut off inside gzip"),
    ] {
        let fresh = Fresh::new();
        let error = fresh.import(archive).await.unwrap_err();
        assert!(matches!(error, Error::MalformedArchive { .. }), "{what}: {error}");
        assert!(error.is_permanent());
        fresh.assert_untouched();
    }
}

#[tokio::test]
async fn paths_out_of_the_archive_are_refused() {
    let good = oci_archive(&[("web:1", &sample())]);
    for bad in [
        Tar::new().file("../x", b""),
        Tar::new().file("blobs/../../x", b""),
        Tar::new().file("/etc/x", b""),
        Tar::new().symlink("index.json", "/etc/passwd"),
        Tar::new().symlink("a/b", "../../x"),
    ] {
        // Followed by a good archive, which must not be used either.
        let bad = bad.bytes();
        let archive = [&bad[..bad.len() - 1024], &good].concat();
        let fresh = Fresh::new();
        let error = fresh.import(archive).await.unwrap_err();
        assert!(matches!(error, Error::UnsafePath { .. }), "{error}");
        fresh.assert_untouched();
    }
}

#[tokio::test]
async fn a_blob_under_a_false_name_is_refused() {
    let image = sample();
    let good = oci_archive(&[("web:1", &image)]);
    let needle = image.layers[0].clone();
    let at = good.windows(needle.len()).position(|w| w == needle).unwrap();
    let mut bad = good;
    bad[at + 512] ^= 1; // the first byte of the layer's only file
    let fresh = Fresh::new();
    let error = fresh.import(bad).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert!(error.to_string().contains("blobs/sha256/"), "{error}");
    fresh.assert_untouched();
}

#[tokio::test]
async fn one_bad_image_spoils_the_archive() {
    let good = sample();
    let bad = TestImage::new(vec![Tar::new().file("../x", b"").bytes()]);
    let fresh = Fresh::new();
    let archive = oci_archive(&[("good:1", &good), ("bad:1", &bad)]);
    let error = fresh.import(archive).await.unwrap_err();
    assert!(matches!(error, Error::UnsafePath { .. }), "{error}");
    fresh.assert_untouched();
}

#[tokio::test]
async fn archives_are_bounded() {
    let archive = oci_archive(&[("web:1", &sample())]);
    for limits in [
        Limits { archive_entries: 3, ..Limits::default() },
        Limits { archive_bytes: 2048, ..Limits::default() },
        Limits { layers: 2, ..Limits::default() },
        Limits { document_bytes: 16, ..Limits::default() },
    ] {
        let fresh = Fresh::with(limits);
        let error = fresh.import(archive.clone()).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        fresh.assert_untouched();
    }
}

#[tokio::test]
async fn what_was_exported_can_be_imported() {
    let fresh = Fresh::new();
    fresh.import(oci_archive(&[("r.example:5/web:1", &sample())])).await.unwrap();
    let name: Reference = reference("r.example:5/web:1");
    let archive = fresh.store.export(&name, Vec::new()).await.unwrap();
    let other = Fresh::new();
    let imported = other.store.import_from(Cursor::new(archive)).await.unwrap();
    assert_eq!(imported[0].names, std::slice::from_ref(&name));
    assert_eq!(imported[0].digest, sample().digest());
    assert!(other.store.resolve_local(&name).await.unwrap().is_some());
    let missing = fresh.store.export(&reference("no:1"), Vec::new()).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn two_imports_of_one_archive_at_once() {
    let archive = oci_archive(&[("web:1", &sample())]);
    let fresh = Fresh::new();
    let (a, b) = tokio::join!(fresh.import(archive.clone()), fresh.import(archive));
    assert_eq!(a.unwrap(), b.unwrap());
}
