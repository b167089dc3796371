//! The store as a directory: restarts, corruption, garbage.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use cluster_image::{Error, ImageStore, PullPolicy, RegistryOptions};

use crate::fixture::{Fresh, Tar, TestImage, names_in, oci_archive, reference};

fn sample(content: &[u8]) -> TestImage {
    let shared = Tar::new().file("shared", b"s").bytes();
    TestImage::new(vec![shared, Tar::new().file("own", content).bytes()])
}

#[tokio::test]
async fn everything_is_still_there_after_a_restart() {
    let fresh = Fresh::new();
    fresh.import(oci_archive(&[("web:1", &sample(b"1"))])).await.unwrap();
    let Fresh { store, dir } = fresh;
    let locked = ImageStore::open(dir.path()).unwrap_err();
    assert!(locked.to_string().contains("another worker"), "{locked}");
    drop(store);
    // What a crash in the middle of an import leaves.
    fs::create_dir_all(dir.path().join("tmp/17/half/fs/etc")).unwrap();
    fs::write(dir.path().join("tmp/stray"), b"x").unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    assert_eq!(names_in(&dir.path().join("tmp")), Vec::<String>::new());
    let image = store.resolve_local(&reference("web:1")).await.unwrap().unwrap();
    assert!(image.layers.iter().all(|l| l.is_dir() && l.is_absolute()));
    let list = store.list().await.unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].size, list[0].diff_ids.len()), (2, 2));
}

#[tokio::test]
async fn a_missing_layer_is_unpacked_again() {
    let fresh = Fresh::new();
    fresh.import(oci_archive(&[("web:1", &sample(b"1"))])).await.unwrap();
    let resolve = || async { fresh.store.resolve_local(&reference("web:1")).await };
    let image = resolve().await.unwrap().unwrap();
    let layer = image.layers[1].parent().unwrap().to_owned();
    fs::remove_dir_all(&layer).unwrap();
    let image = resolve().await.unwrap().unwrap();
    assert_eq!(fs::read(image.layers[1].join("own")).unwrap(), b"1");
}

#[tokio::test]
async fn corruption_names_the_file() {
    let image = sample(b"1");
    let fresh = Fresh::new();
    fresh.import(oci_archive(&[("web:1", &image)])).await.unwrap();
    let resolve = || async { fresh.store.resolve_local(&reference("web:1")).await };
    let held = resolve().await.unwrap().unwrap();
    let layer = held.layers[1].parent().unwrap().to_owned();
    fs::remove_dir_all(&layer).unwrap();
    let blob =
        |digest: &cluster_image::Digest| fresh.dir.path().join("blobs/sha256").join(digest.hex());
    let damaged = blob(&cluster_image::Digest::of(&image.layers[1]));
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[3] ^= 0x40;
    fs::write(&damaged, bytes).unwrap();
    let error = resolve().await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == damaged), "{error}");
    let export = fresh.store.export(&reference("web:1"), Vec::new()).await;
    assert!(matches!(export, Err(Error::Corrupt { .. })));
    let manifest = blob(&image.digest());
    fs::write(&manifest, b"{}").unwrap();
    let error = resolve().await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == manifest), "{error}");
    // A good copy mends it.
    fresh.import(oci_archive(&[("web:1", &image)])).await.unwrap();
    assert!(resolve().await.unwrap().is_some());
}

#[tokio::test]
async fn unreadable_names_stop_the_start() {
    let fresh = Fresh::new();
    fresh.import(oci_archive(&[("web:1", &sample(b"1"))])).await.unwrap();
    let Fresh { store, dir } = fresh;
    drop(store);
    fs::write(dir.path().join("refs.json"), b"{\"version\":1,").unwrap();
    let error = ImageStore::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("refs.json"), "{error}");
    fs::write(dir.path().join("refs.json"), b"{\"version\":99,\"refs\":{}}").unwrap();
    assert!(ImageStore::open(dir.path()).is_err());
}

#[tokio::test]
async fn never_means_never() {
    let fresh = Fresh::new();
    let options = RegistryOptions::default();
    let name = reference("web:1");
    let ask = || fresh.store.ensure(&name, PullPolicy::Never, &options, None, None);
    let error = ask().await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }));
    assert!(error.to_string().contains("`web:1`"), "{error}");
    fresh.import(oci_archive(&[("web:1", &sample(b"1"))])).await.unwrap();
    assert!(ask().await.is_ok());
}

#[tokio::test]
async fn garbage_goes_and_what_is_needed_stays() {
    let fresh = Fresh::new();
    let gc = |keep: HashSet<_>| {
        let store = fresh.store.clone();
        async move { store.gc(&keep, Duration::from_secs(3600)).await.unwrap() }
    };
    for (name, content) in [("a:1", b"a"), ("b:1", b"b"), ("c:1", b"c")] {
        fresh.import(oci_archive(&[(name, &sample(content))])).await.unwrap();
    }
    assert_eq!(gc(HashSet::new()).await, cluster_image::Freed::default());
    let c = fresh.store.resolve_local(&reference("c:1")).await.unwrap().unwrap();
    let kept = c.diff_ids.clone();
    drop(c);
    let held = fresh.store.resolve_local(&reference("b:1")).await.unwrap().unwrap();
    for name in ["a:1", "b:1", "c:1"] {
        assert!(fresh.store.remove(&reference(name)).await.unwrap());
        assert!(!fresh.store.remove(&reference(name)).await.unwrap());
    }
    // a's own layer goes; b is held, c's layers are kept, all share one.
    let freed = gc(kept.into_iter().collect()).await;
    assert_eq!(freed.layers, 1);
    assert_eq!(names_in(&fresh.dir.path().join("layers")).len(), 3);
    assert!(held.layers.iter().all(|l| l.is_dir()));
    drop(held);
    gc(HashSet::new()).await;
    for dir in ["layers", "blobs/sha256", "tmp"] {
        assert_eq!(names_in(&fresh.dir.path().join(dir)), Vec::<String>::new(), "{dir}");
    }
}

#[tokio::test]
async fn unused_names_age_away_unless_in_use() {
    let fresh = Fresh::new();
    let (a, b) = (sample(b"a"), sample(b"b"));
    fresh.import(oci_archive(&[("a:1", &a), ("b:1", &b)])).await.unwrap();
    let held = fresh.store.resolve_local(&reference("a:1")).await.unwrap();
    let keep = HashSet::from([b.digest()]);
    let freed = fresh.store.gc(&keep, Duration::ZERO).await.unwrap();
    assert_eq!((freed.references, freed.layers), (0, 0));
    drop(held);
    let freed = fresh.store.gc(&keep, Duration::ZERO).await.unwrap();
    assert_eq!((freed.references, freed.layers), (1, 1));
    assert!(fresh.store.resolve_local(&reference("b:1")).await.unwrap().is_some());
}
