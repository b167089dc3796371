//! `cargo xtask image`: packs the demo web server into the OCI archive `images/web.tar` of the
//! target folder, as `web:1` and `web:2`, which differ only in the version they answer, and
//! `web:checked`, which has a HEALTHCHECK.
//!
//! The archive is deterministic (fixed times, owners and order) and carries both an OCI layout
//! and the `manifest.json` of `docker save`, so that old Docker versions load it too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cargo;

const VERSIONS: [&str; 3] = ["1", "2", CHECKED];
/// The one with a health check: every second, three failures are too many.
const CHECKED: &str = "checked";
const SECOND_NANOS: u64 = 1_000_000_000;
/// Reproducible archives carry no clock; some tools dislike 1970, so a fixed later day.
const MTIME: u64 = 1_735_689_600;
const CREATED: &str = "2025-01-01T00:00:00Z";
const PASSWD: &str = "root:x:0:0:root:/:/web\n\
    web:x:1000:1000:web:/:/web\n\
    nobody:x:65534:65534:nobody:/:/web\n";
const GROUP: &str = "root:x:0:\nweb:x:1000:\nnogroup:x:65534:\n";

pub fn run() -> Result<()> {
    let archive = build()?;
    println!("{}", archive.display());
    Ok(())
}

/// Builds the binary, packs it, and returns the archive's path.
pub fn build() -> Result<PathBuf> {
    let metadata = cargo::metadata()?;
    let binary = compile(&metadata.target_directory)?;
    let archive = metadata.target_directory.join("images").join("web.tar");
    pack(&binary, &archive)?;
    Ok(archive)
}

/// Compiles `web` static. The target is named so that the flags touch no build script.
fn compile(target_directory: &Path) -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = cargo::cargo(["build", "--release", "--quiet"]);
    command
        .args(["--package", "cluster-example-web", "--bin", "web", "--target", &triple])
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo::run(&mut command)?;
    Ok(target_directory.join(triple).join("release").join("web"))
}

/// One content-addressed blob of the layout.
struct Blob {
    bytes: Vec<u8>,
    hex: String,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let hex = hex::encode(Sha256::digest(&bytes));
        Self { bytes, hex }
    }

    fn json(value: &Value) -> Result<Self> {
        Ok(Self::new(serde_json::to_vec(value).context("encoding JSON")?))
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({
            "mediaType": media_type,
            "digest": format!("sha256:{}", self.hex),
            "size": self.bytes.len(),
        })
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.hex)
    }
}

fn pack(binary: &Path, archive: &Path) -> Result<()> {
    let binary = fs::read(binary).with_context(|| format!("reading {}", binary.display()))?;
    let tar = layer(&binary)?;
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(&tar)));
    let layer = Blob::new(gzip(&tar)?);
    let mut index = Vec::new();
    let mut docker = Vec::new();
    let mut blobs = Vec::new();
    for version in VERSIONS {
        let config = Blob::json(&config(version, &diff_id)?)?;
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
        }))?;
        let mut descriptor = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture()?});
        descriptor["annotations"] = json!({
            "org.opencontainers.image.ref.name": version,
            "io.containerd.image.name": format!("docker.io/library/web:{version}"),
        });
        index.push(descriptor);
        docker.push(json!({
            "Config": config.path(),
            "RepoTags": [format!("web:{version}")],
            "Layers": [layer.path()],
        }));
        blobs.extend([config, manifest]);
    }
    blobs.push(layer);

    // Sorted by name, as a directory would be; a map also drops blobs that are equal.
    let mut files: BTreeMap<String, Vec<u8>> =
        blobs.into_iter().map(|blob| (blob.path(), blob.bytes)).collect();
    files.insert(
        "oci-layout".into(),
        json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes(),
    );
    files.insert(
        "index.json".into(),
        serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": index,
        }))?,
    );
    files.insert("manifest.json".into(), serde_json::to_vec(&docker)?);
    write_archive(&files, archive)
}

fn write_archive(files: &BTreeMap<String, Vec<u8>>, archive: &Path) -> Result<()> {
    let folder = archive.parent().context("the archive's path has no parent")?;
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    // Written aside and renamed: a reader sees the old archive or the new one.
    let partial = tempfile::NamedTempFile::new_in(folder).context("creating the archive")?;
    let mut tar = tar::Builder::new(partial.as_file());
    for folder in ["blobs/", "blobs/sha256/"] {
        tar.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), folder, [].as_slice())?;
    }
    for (path, bytes) in files {
        let mut header = header(tar::EntryType::Regular, 0o644, bytes.len());
        tar.append_data(&mut header, path, bytes.as_slice())?;
    }
    tar.finish().context("writing the archive")?;
    drop(tar);
    let file: &File = partial.as_file();
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    partial
        .persist(archive)
        .with_context(|| format!("moving the archive to {}", archive.display()))?;
    Ok(())
}

/// The only layer: the server, somewhere to write, and names for the users one may run it as.
fn layer(binary: &[u8]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode) in [("etc/", 0o755), ("tmp/", 0o1777)] {
        tar.append_data(&mut header(tar::EntryType::Directory, mode, 0), path, [].as_slice())?;
    }
    let files: [(&str, u32, &[u8]); 3] = [
        ("etc/group", 0o644, GROUP.as_bytes()),
        ("etc/passwd", 0o644, PASSWD.as_bytes()),
        ("web", 0o755, binary),
    ];
    for (path, mode, bytes) in files {
        tar.append_data(&mut header(tar::EntryType::Regular, mode, bytes.len()), path, bytes)?;
    }
    tar.into_inner().context("writing the layer")
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(MTIME);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).context("compressing the layer")?;
    encoder.finish().context("compressing the layer")
}

fn config(version: &str, diff_id: &str) -> Result<Value> {
    let mut config = json!({
        "created": CREATED,
        "architecture": architecture()?,
        "os": "linux",
        "config": {
            "Env": ["PATH=/", format!("WEB_VERSION={version}")],
            "Entrypoint": ["/web"],
            "ExposedPorts": {"80/tcp": {}},
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.title": "web", "org.opencontainers.image.version": version},
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": CREATED, "created_by": "cargo xtask image"}],
    });
    if version == CHECKED {
        config["config"]["Healthcheck"] = json!({
            "Test": ["CMD", "/web", "check"],
            "Interval": SECOND_NANOS,
            "Timeout": SECOND_NANOS,
            "Retries": 3,
        });
    }
    Ok(config)
}

/// The name OCI gives to the architecture we build for.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no image is built for {other}; build on x86_64 or aarch64"),
    }
}
