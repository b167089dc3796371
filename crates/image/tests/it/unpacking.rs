//! From a layer's archive to what overlayfs will see.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use cluster_image::{Error, Limits, Platform};
use tar::EntryType;

use crate::fixture::{Fresh, Tar, TestImage, gzip, oci_archive, reference, zstd};

/// Imports the layers as one image; gives their directories.
async fn unpacked(fresh: &Fresh, layers: Vec<Vec<u8>>) -> Result<Vec<PathBuf>, Error> {
    let image = TestImage::new(layers);
    fresh.import(oci_archive(&[("t:1", &image)])).await?;
    let image = fresh.store.resolve_local(&reference("t:1")).await?.unwrap();
    Ok(image.layers)
}

async fn refused(layer: Tar) -> Error {
    let fresh = Fresh::new();
    let error = unpacked(&fresh, vec![layer.bytes()]).await.unwrap_err();
    fresh.assert_untouched();
    error
}

#[tokio::test]
async fn attributes_survive() {
    let capability =
        b"\x01\x00\x00\x02\x0a\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let layer = Tar::new()
        .dir("./", 0o750)
        .dir("bin/", 0o711)
        .raw(EntryType::Regular, "bin/su", "", 0o4755, b"su")
        .hard_link("bin/again", "bin/su")
        .symlink("bin/far", "/etc/passwd")
        .raw(EntryType::Fifo, "pipe", "", 0o620, b"")
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.note", b"two\nlines"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ])
        .file("bin/ping", b"ping");
    let fresh = Fresh::new();
    let dirs = unpacked(&fresh, vec![layer.bytes()]).await.unwrap();
    let root = &dirs[0];
    let su = fs::metadata(root.join("bin/su")).unwrap();
    assert_eq!((su.uid(), su.gid()), (1000, 1001));
    assert_eq!(su.permissions().mode() & 0o7777, 0o4755);
    assert_eq!(su.mtime(), 1_600_000_000);
    assert_eq!(su.ino(), fs::metadata(root.join("bin/again")).unwrap().ino());
    assert_eq!(fs::metadata(root).unwrap().permissions().mode() & 0o7777, 0o750);
    let bin = fs::metadata(root.join("bin")).unwrap();
    assert_eq!((bin.permissions().mode() & 0o7777, bin.mtime()), (0o711, 1_600_000_000));
    let far = fs::symlink_metadata(root.join("bin/far")).unwrap();
    assert_eq!((far.uid(), far.is_symlink()), (1000, true));
    let pipe = fs::metadata(root.join("pipe")).unwrap();
    assert!(pipe.file_type().is_fifo());
    assert_eq!(pipe.permissions().mode() & 0o7777, 0o620);
    let ping = root.join("bin/ping");
    let get = |name: &str| xattr::get(&ping, name).unwrap();
    assert_eq!(get("security.capability").as_deref(), Some(&capability[..]));
    if let Some(note) = get("user.note") {
        assert_eq!(note, b"two\nlines"); // not every file system has these
    }
    assert_eq!(get("trusted.overlay.redirect"), None);
}

#[tokio::test]
async fn deletions_become_overlay_marks() {
    let lower = Tar::new().dir("d/", 0o755).file("d/old", b"").file("gone", b"");
    let upper = Tar::new()
        .file(".wh.gone", b"")
        .dir("d/", 0o755)
        .file("d/.wh..wh..opq", b"")
        .file("d/new", b"")
        // Deleted and made again as a directory: hides what was below.
        .file(".wh.e", b"")
        .file("e/inside", b"")
        .file(".wh..wh.plnk", b"")
        // Hides only what is below, not what this layer brings.
        .file("kept", b"k")
        .file(".wh.kept", b"");
    let fresh = Fresh::new();
    let dirs = unpacked(&fresh, vec![lower.bytes(), upper.bytes()]).await.unwrap();
    let gone = fs::symlink_metadata(dirs[1].join("gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
    let opaque = |path: &str| xattr::get(dirs[1].join(path), "trusted.overlay.opaque").unwrap();
    assert_eq!(opaque("d").as_deref(), Some(&b"y"[..]));
    assert_eq!(opaque("e").as_deref(), Some(&b"y"[..]));
    assert!(dirs[1].join("d/new").exists());
    assert_eq!(fs::read(dirs[1].join("kept")).unwrap(), b"k");
    assert!(!dirs[1].join(".wh..wh.plnk").exists());
}

#[tokio::test]
async fn a_directory_without_an_entry_looks_as_it_does_below() {
    let lower = Tar::new().dir("tmp/", 0o1777);
    let upper = Tar::new().file("tmp/x", b"").file("own/y", b"");
    let fresh = Fresh::new();
    let dirs = unpacked(&fresh, vec![lower.bytes(), upper.bytes()]).await.unwrap();
    let tmp = fs::metadata(dirs[1].join("tmp")).unwrap();
    assert_eq!(tmp.permissions().mode() & 0o7777, 0o1777);
    assert_eq!(tmp.uid(), 1000);
    let own = fs::metadata(dirs[1].join("own")).unwrap();
    assert_eq!(own.permissions().mode() & 0o7777, 0o755);
}

#[tokio::test]
async fn later_entries_replace_earlier_ones() {
    let layer = Tar::new()
        .file("a", b"1")
        .file("a", b"22")
        .dir("b/", 0o755)
        .file("b/c", b"")
        .file("b", b"now a file")
        .symlink("l", "a")
        .file("l", b"not through the link");
    let fresh = Fresh::new();
    let dirs = unpacked(&fresh, vec![layer.bytes()]).await.unwrap();
    assert_eq!(fs::read(dirs[0].join("a")).unwrap(), b"22");
    assert_eq!(fs::read(dirs[0].join("b")).unwrap(), b"now a file");
    assert_eq!(fs::read(dirs[0].join("l")).unwrap(), b"not through the link");
}

#[tokio::test]
async fn links_lead_inside_only() {
    // As in a container: the absolute link means the image's own /etc.
    let layer = Tar::new()
        .dir("etc/", 0o755)
        .symlink("abs", "/etc")
        .symlink("up", "../../../../etc")
        .file("abs/one", b"1")
        .file("up/two", b"2");
    let fresh = Fresh::new();
    let dirs = unpacked(&fresh, vec![layer.bytes()]).await.unwrap();
    assert_eq!(fs::read(dirs[0].join("etc/one")).unwrap(), b"1");
    assert_eq!(fs::read(dirs[0].join("etc/two")).unwrap(), b"2");

    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let error = refused(Tar::new().symlink("evil", target).file("evil/x", b"")).await;
    assert!(matches!(error, Error::UnsafePath { ref entry, .. } if entry == "evil/x"), "{error}");
    let up = format!("../../../../../../../..{target}");
    let error = refused(Tar::new().symlink("evil", &up).file("evil/x", b"")).await;
    assert!(matches!(error, Error::UnsafePath { .. }), "{error}");
    let secret = outside.path().join("secret");
    fs::write(&secret, b"s").unwrap();
    let error = refused(Tar::new().hard_link("copy", secret.to_str().unwrap())).await;
    assert!(matches!(error, Error::MalformedArchive { .. }), "{error}");
    assert_eq!(crate::fixture::names_in(outside.path()), ["secret"]);
}

#[tokio::test]
async fn what_cannot_be_right_is_refused_by_name() {
    for path in ["../x", "a/../../x", ".wh...", "a/.wh.."] {
        let error = refused(Tar::new().file(path, b"")).await;
        assert!(matches!(error, Error::UnsafePath { ref entry, .. } if entry == path), "{error}");
    }
    for layer in [
        Tar::new().hard_link("a", "missing"),
        Tar::new().dir("d/", 0o755).hard_link("a", "d"),
        Tar::new().symlink("a", ""),
        Tar::new().file("a", b"").file("a/b", b""),
        Tar::new().raw(EntryType::Char, "sda", "", 0o600, b""),
        Tar::new().raw(EntryType::new(b'%'), "odd", "", 0o600, b""),
    ] {
        let error = refused(layer).await;
        assert!(matches!(error, Error::MalformedArchive { .. }), "{error}");
        assert!(error.is_permanent());
    }
    let error = refused(Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", b"")).await;
    assert!(matches!(error, Error::UnsafePath { .. }), "{error}");
}

#[tokio::test]
async fn a_device_in_dev_is_left_out() {
    let layer = Tar::new().dir("dev/", 0o755).raw(EntryType::Char, "dev/null", "", 0o666, b"");
    let fresh = Fresh::new();
    let dirs = unpacked(&fresh, vec![layer.bytes()]).await.unwrap();
    assert!(dirs[0].join("dev").is_dir());
    assert!(!dirs[0].join("dev/null").exists());
}

#[tokio::test]
async fn packed_layers_are_unpacked() {
    for pack in [gzip, zstd] {
        let tar = Tar::new().file("a", b"content").bytes();
        let image = TestImage::build(vec![tar], pack, &Platform::host());
        let fresh = Fresh::new();
        fresh.import(oci_archive(&[("t:1", &image)])).await.unwrap();
        let image = fresh.store.resolve_local(&reference("t:1")).await.unwrap();
        let image = image.unwrap();
        assert_eq!(fs::read(image.layers[0].join("a")).unwrap(), b"content");
        assert_eq!(image.size, 7);
    }
}

#[tokio::test]
async fn bounds_hold() {
    let limits = Limits {
        layer_entries: 3,
        layer_bytes: 1 << 20,
        ratio: 10,
        ratio_free_bytes: 64 << 10,
        header_bytes: 16 << 10,
        ..Limits::default()
    };
    let many = (0..4).fold(Tar::new(), |tar, i| tar.file(&format!("f{i}"), b""));
    let big = Tar::new().file("big", &vec![7; 2 << 20]);
    let long = "x".repeat(32 << 10);
    let header = Tar::new().pax(&[("comment", long.as_bytes())]).file("a", b"");
    let bomb = Tar::new().file("zeros", &vec![0; 512 << 10]);
    for (layer, pack) in [
        (many, <[u8]>::to_vec as fn(&[u8]) -> Vec<u8>),
        (big, <[u8]>::to_vec),
        (header, <[u8]>::to_vec),
        (bomb, gzip),
    ] {
        let image = TestImage::build(vec![layer.bytes()], pack, &Platform::host());
        let fresh = Fresh::with(limits);
        let error = fresh.import(oci_archive(&[("t:1", &image)])).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        fresh.assert_untouched();
    }
}

#[tokio::test]
async fn a_layer_that_is_not_what_its_image_says_is_refused() {
    let mut image = TestImage::new(vec![Tar::new().file("a", b"1").bytes()]);
    let other = TestImage::new(vec![Tar::new().file("a", b"2").bytes()]);
    let config = serde_json::from_slice(&other.config).unwrap();
    image = TestImage::with_config(config, image.layers, &Platform::host());
    let fresh = Fresh::new();
    let error = fresh.import(oci_archive(&[("t:1", &image)])).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    fresh.assert_untouched();
}

#[tokio::test]
async fn overlayfs_shows_what_the_image_means() {
    let lower =
        Tar::new().dir("d/", 0o755).file("d/old", b"").file("gone", b"").file("both", b"lower");
    let upper = Tar::new()
        .file(".wh.gone", b"")
        .file("d/.wh..wh..opq", b"")
        .file("d/new", b"")
        .file("both", b"upper");
    let fresh = Fresh::new();
    let dirs = unpacked(&fresh, vec![lower.bytes(), upper.bytes()]).await.unwrap();
    // A mount namespace of its own, so that the mount ends with the command.
    let script = format!(
        "mount -t overlay test -o ro,lowerdir={}:{} /mnt && cd /mnt && find . | sort && cat both",
        dirs[1].display(),
        dirs[0].display()
    );
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(shown, ".\n./both\n./d\n./d/new\nupper", "{output:?}");
}
