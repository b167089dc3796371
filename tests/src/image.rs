//! Small images made in memory, good and bad ones, and a registry that serves them as it is told.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A tar archive of files, under names that no careful writer would give them if so asked.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        let name = &mut header.as_gnu_mut().expect("a GNU header").name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).expect("an entry");
    }
    builder.into_inner().expect("an archive")
}

/// An image of one layer for one platform.
#[derive(Clone)]
pub struct Image {
    pub layer: Vec<u8>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    pub fn new(architecture: &str, layer: Vec<u8>) -> Self {
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Entrypoint": ["/nothing"] },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest(&layer),
                "size": layer.len(),
            }],
        });
        Self { layer, config, manifest: manifest.to_string().into_bytes() }
    }

    /// An image for this machine.
    pub fn native(layer: Vec<u8>) -> Self {
        Self::new(native_architecture(), layer)
    }

    fn blobs(&self) -> [&Vec<u8>; 3] {
        [&self.layer, &self.config, &self.manifest]
    }

    /// Writes an OCI archive that carries the image under this name; `change` may spoil its files.
    pub fn archive(
        &self,
        path: &Path,
        name: &str,
        change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>),
    ) {
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(&self.manifest),
                "size": self.manifest.len(),
                "annotations": { "io.containerd.image.name": name },
            }],
        });
        let mut files = BTreeMap::from([
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ]);
        for blob in self.blobs() {
            files.insert(blob_file(blob), blob.clone());
        }
        change(&mut files);
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        std::fs::write(path, tar(&files)).expect("the archive is written");
    }
}

/// Where an OCI layout keeps a blob.
pub fn blob_file(blob: &[u8]) -> String {
    digest(blob).replacen("sha256:", "blobs/sha256/", 1)
}

/// This machine's architecture as images name it.
pub fn native_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

/// A registry that answers each path with what it was given, right or wrong.
pub struct Liar {
    answers: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    address: SocketAddr,
}

impl Liar {
    /// Serves a socket, which may have been made in another network namespace, until the process
    /// ends.
    pub fn serve(listener: TcpListener) -> Self {
        let answers: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
        let address = listener.local_addr().expect("its address");
        let shared = answers.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let answers = shared.clone();
                std::thread::spawn(move || answer(stream, &answers));
            }
        });
        Self { answers, address }
    }

    /// Offers an image as `NAME:1`; answers its reference.
    pub fn offer(&self, name: &str, image: &Image) -> String {
        let manifest = digest(&image.manifest);
        for tag in ["1", manifest.as_str()] {
            self.set(&format!("/v2/{name}/manifests/{tag}"), &image.manifest);
        }
        for blob in [&image.layer, &image.config] {
            self.set(&format!("/v2/{name}/blobs/{}", digest(blob)), blob);
        }
        format!("{}/{name}:1", self.address)
    }

    pub fn set(&self, path: &str, body: &[u8]) {
        self.answers.lock().expect("the answers").insert(path.to_owned(), body.to_vec());
    }
}

fn answer(mut stream: TcpStream, answers: &Mutex<BTreeMap<String, Vec<u8>>>) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && request.len() < 16 * 1024 {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let found = answers.lock().expect("the answers").get(path).cloned();
    let missing = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}"#;
    let (status, body) = match found {
        Some(body) => (200, body),
        None if path == "/v2/" => (200, b"{}".to_vec()),
        None => (404, missing.to_vec()),
    };
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let _ = stream.write_all(head.as_bytes());
    if method != "HEAD" {
        let _ = stream.write_all(&body);
    }
}
