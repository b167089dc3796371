//! What images bring: documents, layers and archives.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::LazyLock;

use cluster_image::fuzzing;
use cluster_image::{ImageStore, Limits, PullPolicy, RegistryOptions};
use tokio::runtime::Runtime;

use crate::scratch;

/// Small, so that every bound is met by small inputs.
const LIMITS: Limits = Limits {
    layer_entries: 200,
    layer_bytes: 1 << 20,
    ratio: 100,
    ratio_free_bytes: 64 << 10,
    layers: 8,
    document_bytes: 64 << 10,
    header_bytes: 64 << 10,
    archive_entries: 64,
    archive_bytes: 4 << 20,
};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
});

/// The input is a manifest or index, a zero byte, and a configuration.
pub fn documents(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (manifest, config) = data.split_at(at);
    let _ = fuzzing::documents(manifest, config.get(1..).unwrap_or_default());
}

/// The input is a packed layer. Whatever is in it stays in its folder and in its bounds.
pub fn layer(data: &[u8]) {
    let folder = scratch::folder();
    let (packed, into) = (folder.path().join("packed"), folder.path().join("into"));
    let secret = folder.path().join("secret");
    fs::write(&packed, data).expect("the input is written");
    fs::write(&secret, "untouched").expect("a file beside it");
    fs::create_dir(&into).expect("a folder to unpack into");
    let _ = fuzzing::layer(&packed, &into, LIMITS);
    assert_eq!(fs::read(&secret).expect("the file beside"), b"untouched", "the layer got out");
    let mut beside: Vec<_> = fs::read_dir(folder.path())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    beside.sort();
    assert_eq!(beside, ["into", "packed", "secret"], "the layer got out");
    let mut found = Found::default();
    look(&into, &mut found, 0);
    assert!(found.bytes <= LIMITS.layer_bytes, "{} bytes were unpacked", found.bytes);
}

#[derive(Default)]
struct Found {
    bytes: u64,
}

/// Adds up what is really there; symbolic links are not followed.
fn look(folder: &Path, found: &mut Found, depth: usize) {
    assert!(depth < 5_000, "folders in folders without end");
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            look(&entry.path(), found, depth + 1);
        } else if kind.is_file() {
            use std::os::unix::fs::MetadataExt as _;
            let Ok(metadata) = entry.metadata() else { continue };
            found.bytes += metadata.blocks() * 512 / metadata.nlink().max(1);
        }
    }
}

/// The input is an archive. What is imported is there afterwards, and an export of it can be
/// imported again.
pub fn archive(data: &[u8]) {
    let folder = scratch::folder();
    let store = ImageStore::open_with(&folder.path().join("store"), LIMITS).expect("a store");
    let data = data.to_vec();
    RUNTIME.block_on(async {
        let Ok(imported) = store.import_from(Cursor::new(data)).await else {
            let list = store.list().await.expect("the store lists");
            assert!(list.is_empty(), "a refused archive left {list:?}");
            return;
        };
        for name in imported.into_iter().flat_map(|image| image.names) {
            let options = RegistryOptions::default();
            let image = store.ensure(&name, PullPolicy::Never, &options, None, None).await;
            image.unwrap_or_else(|error| panic!("{name} was imported and is not there: {error}"));
            let copy = store.export(&name, Vec::new()).await;
            let copy = copy.unwrap_or_else(|error| panic!("{name} cannot be exported: {error}"));
            let again = store.import_from(Cursor::new(copy)).await;
            again.unwrap_or_else(|error| panic!("the export of {name} is refused: {error}"));
        }
    });
}
