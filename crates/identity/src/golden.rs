//! Frozen files: what this release writes, every later one must read. Their keys belong to a
//! cluster that never was.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Context, ContextError, Identity, IdentityError};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn identity_files_read_and_write_as_ever() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let frozen = fs::read_to_string(golden("identity.json")).unwrap();
    fs::write(Identity::path(from.path()), &frozen).unwrap();
    let identity = Identity::load_any_age(from.path()).unwrap();
    assert_eq!((&*identity.cluster_id, &*identity.node_id), ("c1", "n1"));
    identity.store(to.path()).unwrap();
    let now = fs::read_to_string(Identity::path(to.path())).unwrap();
    assert!(now == frozen, "an identity file is written otherwise");
}

#[test]
fn context_files_read_and_write_as_ever() {
    let to = tempfile::tempdir().unwrap();
    let context = Context::load(&golden("context.json")).unwrap();
    assert_eq!((&*context.name, &*context.managers), ("c", &["10.0.0.1:7100".to_owned()][..]));
    context.save(&to.path().join("context.json")).unwrap();
    let now = fs::read_to_string(to.path().join("context.json")).unwrap();
    let frozen = fs::read_to_string(golden("context.json")).unwrap();
    assert!(now == frozen, "a context file is written otherwise");
}

/// Whatever else is in it: a newer release may have written fields of other shapes.
#[test]
fn files_of_a_newer_release_are_refused_by_name_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let newer = br#"{"version": 2, "certificate": ["a", "b"]}"#;
    let path = Identity::path(dir.path());
    fs::write(&path, newer).unwrap();
    let error = Identity::load_any_age(dir.path()).unwrap_err();
    assert!(matches!(error, IdentityError::UnknownVersion { found: 2, .. }), "{error}");
    says(&error.to_string(), &path, "start the newer program");
    let path = dir.path().join("context.json");
    fs::write(&path, newer).unwrap();
    let error = Context::load(&path).unwrap_err();
    assert!(matches!(error, ContextError::UnknownVersion { found: 2, .. }), "{error}");
    says(&error.to_string(), &path, "use a clusterctl as new as the managers");
}

fn says(text: &str, path: &Path, fix: &str) {
    for part in [&*path.display().to_string(), "version 2", "knows version 1", fix] {
        assert!(text.contains(part), "does not say `{part}`: {text}");
    }
}
