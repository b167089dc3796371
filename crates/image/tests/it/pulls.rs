//! Pulls from registries that misbehave, and pulls at the same time.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cluster_image::{
    Error, Image, Phase, Platform, Progress, PullPolicy, Reference, RegistryOptions,
};
use tokio::sync::watch;

use crate::fixture::{Fresh, Tar, TestImage, gzip, index, other_platform, reference};
use crate::liar::{Liar, Reply, blob_path};

fn sample() -> TestImage {
    let noise: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let big = Tar::new().file("big", &noise).bytes();
    let small = Tar::new().file("small", b"s").bytes();
    TestImage::build(vec![big, small], gzip, &Platform::host())
}

fn quick() -> RegistryOptions {
    RegistryOptions {
        connect_timeout: Duration::from_secs(1),
        read_timeout: Duration::from_secs(2),
        ..RegistryOptions::default()
    }
}

async fn pull(fresh: &Fresh, name: &Reference) -> Result<Image, Error> {
    let policy = PullPolicy::Missing;
    fresh.store.ensure(name, policy, &quick(), None, None).await
}

fn web(liar: &Liar) -> Reference {
    reference(&format!("{}/web:1", liar.address))
}

#[tokio::test]
async fn an_honest_answer_gives_the_image_and_progress() {
    let (liar, fresh, image) = (Liar::start().await, Fresh::new(), sample());
    liar.serve(&image);
    let (tell, hear) = watch::channel(Progress::default());
    let name = web(&liar);
    let options = quick();
    let pulled = fresh.store.ensure(&name, PullPolicy::Missing, &options, None, Some(tell));
    let pulled = pulled.await.unwrap();
    assert_eq!(pulled.manifest_digest, image.digest());
    assert_eq!(pulled.layers.len(), 2);
    let last = *hear.borrow();
    assert_eq!((last.phase, last.layers_done, last.layers_total), (Phase::Done, 2, 2));
    assert_eq!(last.bytes_done, last.bytes_total);
    assert_eq!(last.bytes_total, image.blobs().map(|b| b.len() as u64).sum::<u64>());
    // Here now: the registry may go.
    drop(liar);
    assert!(pull(&fresh, &name).await.is_ok());
    let pinned = reference(&format!("r.example/web@{}", image.digest()));
    assert!(fresh.store.resolve_local(&pinned).await.unwrap().is_some());
}

#[tokio::test]
async fn many_at_once_share_one_pull_and_one_failure() {
    let (liar, fresh, image) = (Liar::start().await, Fresh::new(), sample());
    liar.serve(&image);
    let name = web(&liar);
    let all = futures::future::join_all((0..8).map(|_| pull(&fresh, &name))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    let blobs = image.blobs().count();
    assert_eq!(liar.blob_requests.load(Ordering::SeqCst), blobs);

    liar.set("/v2/silent/manifests/1", Reply::Silence);
    let silent = reference(&format!("{}/silent:1", liar.address));
    let start = Instant::now();
    let all = futures::future::join_all((0..8).map(|_| pull(&fresh, &silent))).await;
    assert!(all.iter().all(|r| matches!(r, Err(Error::RegistryUnreachable { .. }))), "{all:?}");
    let one_after_the_other = Duration::from_secs(2) * 8;
    assert!(start.elapsed() < one_after_the_other, "{:?}", start.elapsed());
}

#[tokio::test]
async fn wrong_bytes_are_never_used() {
    let (liar, fresh, image) = (Liar::start().await, Fresh::new(), sample());
    let mut forged = image.layers[0].clone();
    forged[100] ^= 1;
    let longer = [&image.layers[0][..], b"more"].concat();
    let shorter = image.layers[0][..100].to_vec();
    for lie in [forged, longer, shorter] {
        liar.serve(&image);
        liar.set(&blob_path(&image.layers[0]), Reply::Body(lie));
        let error = pull(&fresh, &web(&liar)).await.unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
        assert!(error.is_permanent());
    }
    // The truth is taken afterwards.
    liar.serve(&image);
    assert!(pull(&fresh, &web(&liar)).await.is_ok());
}

#[tokio::test]
async fn a_pinned_manifest_must_be_the_one() {
    let (liar, fresh, image) = (Liar::start().await, Fresh::new(), sample());
    let other = TestImage::new(vec![Tar::new().file("x", b"").bytes()]);
    liar.serve(&image);
    let path = format!("/v2/web/manifests/{}", image.digest());
    liar.set(&path, Reply::Body(other.manifest.clone()));
    let pinned = reference(&format!("{}/web@{}", liar.address, image.digest()));
    let error = pull(&fresh, &pinned).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let (liar, fresh, image) = (Liar::start().await, Fresh::new(), sample());
    liar.serve(&image);
    let blob = image.layers[0].clone();
    liar.set(&blob_path(&blob), Reply::BreaksAt(1000, blob.clone()));
    pull(&fresh, &web(&liar)).await.unwrap();
    assert_eq!(*liar.ranges.lock().unwrap(), ["1000-"]);
}

#[tokio::test]
async fn a_damaged_partial_download_is_thrown_away() {
    let (liar, fresh, image) = (Liar::start().await, Fresh::new(), sample());
    liar.serve(&image);
    let digest = cluster_image::Digest::of(&image.layers[0]);
    let partial = fresh.dir.path().join("partial").join(digest.hex());
    std::fs::write(&partial, vec![9; image.layers[0].len()]).unwrap();
    pull(&fresh, &web(&liar)).await.unwrap();
    assert!(!partial.exists());
}

#[tokio::test]
async fn the_index_entry_for_this_platform_is_taken() {
    let (liar, fresh, image) = (Liar::start().await, Fresh::new(), sample());
    let theirs = TestImage::build(vec![Vec::new()], <[u8]>::to_vec, &other_platform());
    liar.serve(&image);
    let both = index(&[("x", &theirs), ("x", &image)]);
    liar.set("/v2/web/manifests/1", Reply::Body(both));
    let pulled = pull(&fresh, &web(&liar)).await.unwrap();
    assert_eq!(pulled.manifest_digest, image.digest());

    let fresh = Fresh::new();
    let only_theirs = index(&[("x", &theirs)]);
    liar.set("/v2/web/manifests/1", Reply::Body(only_theirs));
    for _ in 0..2 {
        let error = pull(&fresh, &web(&liar)).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::WrongPlatform { .. }), "{text}");
        assert!(text.contains("s390x") && text.contains(&Platform::host().architecture), "{text}");
        // Then without an index: the configuration says it.
        liar.serve(&theirs);
    }
}

#[tokio::test]
async fn answers_are_told_apart() {
    let (liar, fresh) = (Liar::start().await, Fresh::new());
    let missing = pull(&fresh, &web(&liar)).await.unwrap_err();
    assert!(matches!(missing, Error::NotInRegistry { .. }), "{missing}");
    assert!(missing.is_permanent());
    for (reply, permanent) in [
        (Reply::Status(503, "busy"), false),
        (Reply::Status(429, "slow down"), false),
        (Reply::Status(418, "teapot"), true),
        (Reply::Body(b"<html>".to_vec()), true),
    ] {
        liar.set("/v2/web/manifests/1", reply);
        let error = pull(&fresh, &web(&liar)).await.unwrap_err();
        assert_eq!(error.is_permanent(), permanent, "{error}");
        assert!(error.to_string().contains("/web:1"), "{error}");
    }
    for code in [401, 403] {
        liar.set("/v2/web/manifests/1", Reply::Status(code, "no"));
        let error = pull(&fresh, &web(&liar)).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    }
}

#[tokio::test]
async fn nobody_there_is_told_quickly_and_with_advice() {
    let fresh = Fresh::new();
    // A port that was free a moment ago; refused at once.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let name = format!("127.0.0.1:{port}/web:1");
    let start = Instant::now();
    let error = pull(&fresh, &reference(&name)).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::RegistryUnreachable { .. }), "{text}");
    assert!(text.contains(&name) && text.contains("image load"), "{text}");
    assert!(!error.is_permanent());
    assert!(start.elapsed() < Duration::from_secs(5));
    // No label may have 64 characters, so the resolver refuses without asking.
    let name = format!("{}.invalid/web:1", "a".repeat(64));
    let error = pull(&fresh, &reference(&name)).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::RegistryUnreachable { .. }), "{text}");
    assert!(text.contains("cannot be resolved"), "{text}");
}

#[tokio::test]
async fn the_pull_stops_when_nobody_waits() {
    let (liar, fresh, image) = (Liar::start().await, Fresh::new(), sample());
    liar.serve(&image);
    liar.set(&blob_path(&image.layers[0]), Reply::Silence);
    let name = web(&liar);
    let waiting = pull(&fresh, &name);
    assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());
    // A new caller is not tied to the old pull.
    liar.serve(&image);
    assert!(pull(&fresh, &name).await.is_ok());
}

#[tokio::test]
async fn a_corrupt_store_is_mended_from_the_registry() {
    let (liar, fresh, image) = (Liar::start().await, Fresh::new(), sample());
    liar.serve(&image);
    let name = web(&liar);
    let layers = pull(&fresh, &name).await.unwrap().layers;
    for bytes in image.blobs().chain([&image.manifest]) {
        let hex = cluster_image::Digest::of(bytes).hex().to_owned();
        let path = fresh.dir.path().join("blobs/sha256").join(hex);
        std::fs::write(&path, b"rot").unwrap();
    }
    std::fs::remove_dir_all(layers[0].parent().unwrap()).unwrap();
    assert_eq!(fresh.store.list().await.unwrap().len(), 1);
    let mended = pull(&fresh, &name).await.unwrap();
    assert!(mended.layers[0].join("big").exists());
    assert!(fresh.store.resolve_local(&name).await.unwrap().is_some());
}
