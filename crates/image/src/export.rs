//! Writing an image as an archive that we, OCI tools and Docker can read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};

use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::digest::{Digest, Hashing};
use crate::error::{Error, IoContext, Result};
use crate::manifest::{Descriptor, INDEX, Index, MANIFEST};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Documents, Inner};

const OUTPUT: &str = "the archive being written";

pub(crate) fn archive<W: Write>(store: &Inner, reference: &Reference, writer: W) -> Result<W> {
    let not_found = || Error::NotFound { reference: reference.to_string() };
    let digest = store.refs.lookup(&store.layout, reference);
    let digest = digest.ok_or_else(not_found)?;
    let lease = store.leases.lease();
    lease.add(&digest);
    let documents = store.documents(&digest, Some(&lease))?;
    let documents = documents.ok_or_else(not_found)?;
    let mut out = Builder::new(writer);
    small(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = index(reference, &digest, &documents);
    small(&mut out, "index.json", &encode(&index)?)?;
    small(&mut out, "manifest.json", &encode(&docker(reference, &documents))?)?;
    small(&mut out, &blob_name(&digest), &documents.bytes)?;
    let layers = documents.layers.iter().map(|(blob, _)| blob);
    let mut written: Vec<&Digest> = Vec::new();
    for blob in layers.chain([&documents.config_descriptor]) {
        if !written.contains(&&blob.digest) {
            copy(store, &mut out, blob)?;
            written.push(&blob.digest);
        }
    }
    out.into_inner().at("writing", OUTPUT)
}

fn index(reference: &Reference, digest: &Digest, documents: &Documents) -> Index {
    let mut annotations = BTreeMap::new();
    annotations.insert("io.containerd.image.name".to_owned(), reference.canonical());
    if let Some(tag) = reference.tag() {
        annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
    }
    Index {
        schema_version: 2,
        media_type: INDEX.to_owned(),
        manifests: vec![Descriptor {
            media_type: MANIFEST.to_owned(),
            digest: digest.clone(),
            size: documents.bytes.len() as u64,
            platform: Some(Platform { ..documents.config.platform() }),
            annotations: Some(annotations),
        }],
    }
}

/// What older Dockers look for.
fn docker(reference: &Reference, documents: &Documents) -> serde_json::Value {
    let layers = documents.layers.iter().map(|(blob, _)| blob_name(&blob.digest));
    let tags: Vec<String> = match reference.digest() {
        Some(_) => Vec::new(),
        None => vec![reference.to_string()],
    };
    json!([{
        "Config": blob_name(&documents.config_descriptor.digest),
        "RepoTags": tags,
        "Layers": layers.collect::<Vec<_>>(),
    }])
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::io("encoding for", OUTPUT, e.into()))
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header
}

fn small<W: Write>(out: &mut Builder<W>, name: &str, bytes: &[u8]) -> Result<()> {
    out.append_data(&mut header(bytes.len() as u64), name, bytes).at("writing", OUTPUT)
}

/// Copies a blob and checks it on the way: a bad one must not travel on.
fn copy<W: Write>(store: &Inner, out: &mut Builder<W>, blob: &Descriptor) -> Result<()> {
    let path = store.layout.blob(&blob.digest);
    let file = File::open(&path).at("opening", &path)?;
    let size = file.metadata().at("inspecting", &path)?.len();
    let mut hashed = Hashing::new(file.take(size));
    out.append_data(&mut header(size), blob_name(&blob.digest), &mut hashed)
        .at("copying to the archive", &path)?;
    let actual = hashed.digest();
    if actual == blob.digest && hashed.into_inner().limit() == 0 {
        Ok(())
    } else {
        Err(Error::Corrupt { path, actual })
    }
}
