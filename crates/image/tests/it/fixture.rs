//! Small images made in memory.

use std::io::{Cursor, Write};
use std::path::Path;

use cluster_image::{Digest, Error, ImageStore, Imported, Limits, Platform, Reference};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

pub struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.raw(EntryType::Directory, path, "", mode, b"")
    }

    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.raw(EntryType::Regular, path, "", 0o644, content)
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(EntryType::Symlink, path, target, 0o777, b"")
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.raw(EntryType::Link, path, target, 0o644, b"")
    }

    /// An entry without the writer's own checks; owner 1000:1001.
    pub fn raw(mut self, kind: EntryType, path: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_600_000_000);
        header.set_size(data.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..path.len()].copy_from_slice(path.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[derive(Clone)]
pub struct TestImage {
    pub config: Vec<u8>,
    /// As they travel.
    pub layers: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
    pub platform: Platform,
}

impl TestImage {
    pub fn new(layers: Vec<Vec<u8>>) -> Self {
        Self::build(layers, <[u8]>::to_vec, &Platform::host())
    }

    pub fn build(tars: Vec<Vec<u8>>, pack: fn(&[u8]) -> Vec<u8>, platform: &Platform) -> Self {
        let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
        let config = json!({
            "architecture": platform.architecture, "os": platform.os,
            "config": {
                "Entrypoint": ["/bin/web"], "Cmd": null, "Env": ["A=1"], "User": "1000",
                "WorkingDir": "/srv", "ExposedPorts": {"80/tcp": {}},
                "Labels": {"k": "v"}, "StopSignal": "SIGINT",
                "Healthcheck": {"Test": ["CMD", "/bin/check"], "Interval": 1_000_000_000}
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        Self::with_config(config, tars.iter().map(|tar| pack(tar)).collect(), platform)
    }

    pub fn with_config(config: Value, layers: Vec<Vec<u8>>, platform: &Platform) -> Self {
        let config = serde_json::to_vec(&config).unwrap();
        let describe = |bytes: &Vec<u8>| {
            json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": Digest::of(bytes), "size": bytes.len(),
            })
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config), "size": config.len(),
            },
            "layers": layers.iter().map(describe).collect::<Vec<_>>(),
        });
        Self {
            config,
            layers,
            manifest: serde_json::to_vec(&manifest).unwrap(),
            platform: platform.clone(),
        }
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub fn blobs(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.layers.iter().chain([&self.config])
    }

    fn entry(&self, name: &str) -> Value {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": self.digest(), "size": self.manifest.len(), "platform": self.platform,
            "annotations": {"org.opencontainers.image.ref.name": name},
        })
    }
}

pub fn index(images: &[(&str, &TestImage)]) -> Vec<u8> {
    let manifests: Vec<_> = images.iter().map(|(name, i)| i.entry(name)).collect();
    serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": manifests})).unwrap()
}

fn blob_name(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(bytes).hex())
}

pub fn oci_archive(images: &[(&str, &TestImage)]) -> Vec<u8> {
    let mut tar = Tar::new().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    tar = tar.file("index.json", &index(images));
    for (_, image) in images {
        for blob in image.blobs().chain([&image.manifest]) {
            tar = tar.file(&blob_name(blob), blob);
        }
    }
    tar.bytes()
}

/// The classic layout; the second of two equal layers is a link to the first.
pub fn docker_archive(tags: &[&str], image: &TestImage) -> Vec<u8> {
    let config = format!("{}.json", Digest::of(&image.config).hex());
    let mut tar = Tar::new().file(&config, &image.config);
    let mut names = Vec::new();
    for (i, layer) in image.layers.iter().enumerate() {
        let name = format!("layer{i}/layer.tar");
        tar = tar.dir(&format!("layer{i}/"), 0o755);
        tar = match image.layers[..i].iter().position(|l| l == layer) {
            Some(same) => tar.symlink(&name, &format!("../layer{same}/layer.tar")),
            None => tar.file(&name, layer),
        };
        names.push(name);
    }
    let manifest = json!([{"Config": config, "RepoTags": tags, "Layers": names}]);
    tar.file("manifest.json", &serde_json::to_vec(&manifest).unwrap())
        .file("repositories", b"{}")
        .bytes()
}

/// A store in a directory of its own.
pub struct Fresh {
    pub store: ImageStore,
    pub dir: tempfile::TempDir,
}

impl Fresh {
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open_with(dir.path(), limits).unwrap();
        Self { store, dir }
    }

    pub async fn import(&self, archive: Vec<u8>) -> Result<Vec<Imported>, Error> {
        self.store.import_from(Cursor::new(archive)).await
    }

    /// No blobs, no layers, nothing in scratch, no names.
    pub fn assert_untouched(&self) {
        for dir in ["blobs/sha256", "layers", "tmp"] {
            assert_eq!(names_in(&self.dir.path().join(dir)), Vec::<String>::new(), "{dir}");
        }
        assert!(!self.dir.path().join("refs.json").exists());
    }
}

pub fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let name = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name();
    let mut names: Vec<_> = entries.map(|e| name(e).to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

pub fn other_platform() -> Platform {
    Platform { os: "linux".to_owned(), architecture: "s390x".to_owned() }
}
