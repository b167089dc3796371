use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::Role;
use crate::testing::{ca, chain, member};

fn context() -> Context {
    let identity = member(&ca("clusterone"), Role::Admin, "root");
    Context::new("lab", vec!["127.0.0.1:7100".into(), "[::1]:7101".into()], &identity).unwrap()
}

fn load(text: &str) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lab.json");
    fs::write(&path, text).unwrap();
    Context::load(&path).unwrap_err()
}

fn changed(change: impl FnOnce(&mut serde_json::Value)) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lab.json");
    context().save(&path).unwrap();
    let mut value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut value);
    load(&value.to_string())
}

#[test]
fn save_and_load() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lab.json");
    let saved = context();
    saved.save(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let loaded = Context::load(&path).unwrap();
    assert_eq!(loaded.name, "lab");
    assert_eq!(loaded.managers, saved.managers);
    let identity = loaded.identity().unwrap();
    assert_eq!((identity.role, identity.node_id.as_str()), (Role::Admin, "root"));
    assert!(!format!("{loaded:?}").contains("PRIVATE"));
    let value: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for key in ["version", "name", "cluster_id", "managers", "ca", "certificate", "key"] {
        assert!(!value[key].is_null(), "{key}");
    }
}

#[test]
fn each_fault_is_named() {
    let missing = Context::load(Path::new("/nonexistent/lab.json")).unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }));
    assert!(matches!(load(""), Error::Truncated { .. }));
    assert!(matches!(load("{\"version\":1,"), Error::Truncated { .. }));
    assert!(chain(&load("not json")).contains("line 1"), "the place in the file is named");
    assert!(matches!(changed(|v| v["version"] = 9.into()), Error::UnknownVersion { found: 9, .. }));
    assert!(matches!(changed(|v| v["managers"] = serde_json::json!([])), Error::NoManagers { .. }));
    assert!(matches!(
        changed(|v| v["cluster_id"] = "clustertwo".into()),
        Error::OtherCluster { .. }
    ));
    assert!(matches!(changed(|v| v["key"] = "".into()), Error::Identity { .. }));
    for address in ["", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "a b:1", "http://x:1", ":1"]
    {
        let error = changed(|v| v["managers"] = serde_json::json!([address]));
        assert!(matches!(error, Error::BadManager { .. }), "{address:?}: {error:?}");
    }
}

#[test]
fn names_must_be_file_names() {
    let long = "x".repeat(500);
    for name in ["", "a b", "a/b", "..", "-x", "line\nbreak", &long] {
        let error = Context { name: name.into(), ..context() }.save(Path::new("/nonexistent/x"));
        let error = error.unwrap_err();
        assert!(matches!(error, Error::BadName { .. }), "{name:?}: {error:?}");
        assert!(!error.to_string().contains('\n'));
    }
}
