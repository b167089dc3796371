use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::testing::{DAY, ca, member, member_signed_ago, member_signed_ahead};

fn stored(identity: &Identity) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    identity.store(dir.path()).unwrap();
    let path = Identity::path(dir.path());
    (dir, path)
}

/// Stores an identity, lets `damage` change the file's JSON, and loads it.
fn load_damaged(damage: impl FnOnce(&mut serde_json::Value)) -> Error {
    let (dir, path) = stored(&member(&ca("clusterone"), Role::Worker, "node1"));
    let mut value: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    damage(&mut value);
    fs::write(&path, value.to_string()).unwrap();
    Identity::load(dir.path()).unwrap_err()
}

#[test]
fn store_and_load() {
    let ca = ca("clusterone");
    let first = member(&ca, Role::Worker, "node1");
    let (dir, path) = stored(&first);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let loaded = Identity::load(dir.path()).unwrap();
    assert_eq!(loaded.subject(), first.subject());
    assert_eq!(loaded.key_pem.expose(), first.key_pem.expose());
    assert_eq!(loaded.not_after().unwrap(), first.not_after().unwrap());
    assert!(!format!("{loaded:?}").contains("PRIVATE"));

    let renewed = member(&ca, Role::Worker, "node1");
    renewed.store(dir.path()).unwrap();
    let loaded = Identity::load(dir.path()).unwrap();
    assert_eq!(loaded.key_pem.expose(), renewed.key_pem.expose());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn an_absent_or_unreadable_file_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Identity::load(dir.path()).unwrap_err(), Error::NotFound { .. }));
    fs::create_dir(Identity::path(dir.path())).unwrap();
    assert!(matches!(Identity::load(dir.path()).unwrap_err(), Error::Read { .. }));
    let identity = member(&ca("clusterone"), Role::Worker, "node1");
    assert!(matches!(identity.store(&dir.path().join("no")).unwrap_err(), Error::Write { .. }));
}

#[test]
fn every_truncation_is_recognised() {
    let (dir, path) = stored(&member(&ca("clusterone"), Role::Worker, "node1"));
    let text = fs::read(&path).unwrap();
    for length in (0..text.len()).step_by(37) {
        fs::write(&path, &text[..length]).unwrap();
        let error = Identity::load(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{length}: {error:?}");
        assert!(error.to_string().contains("identity.json"));
    }
}

#[test]
fn every_flipped_bit_that_matters_is_noticed() {
    let identity = member(&ca("clusterone"), Role::Worker, "node1");
    let (dir, path) = stored(&identity);
    let text = fs::read(&path).unwrap();
    for at in (0..text.len()).step_by(11) {
        let mut damaged = text.clone();
        damaged[at] ^= 0x04;
        fs::write(&path, &damaged).unwrap();
        // Some flips leave the meaning alone (a line break inside PEM); then all must be as before.
        if let Ok(loaded) = Identity::load(dir.path()) {
            assert_eq!(loaded.subject(), identity.subject(), "byte {at}");
            let ders = |identity: &Identity| certificate::chain_der(&identity.chain_pem).unwrap();
            assert_eq!(ders(&loaded)[0], ders(&identity)[0], "byte {at}");
        }
    }
}

#[test]
fn parts_that_do_not_belong_together_are_named() {
    let other = member(&ca("clusterone"), Role::Worker, "node1");
    assert!(matches!(
        load_damaged(|value| value["key"] = other.key_pem.expose().into()),
        Error::KeyMismatch
    ));
    assert!(matches!(
        load_damaged(|value| value["ca"] = other.ca_pem.clone().into()),
        Error::ForeignCa
    ));
    assert!(matches!(load_damaged(|value| value["key"] = "".into()), Error::Key(_)));
    assert!(matches!(
        load_damaged(|value| value["certificate"] = "".into()),
        Error::Certificate(_)
    ));
    assert!(matches!(load_damaged(|value| value["ca"] = "".into()), Error::CaCertificate(_)));
    assert!(matches!(
        load_damaged(|value| value["version"] = 2.into()),
        Error::UnknownVersion { found: 2, .. }
    ));
    assert!(matches!(load_damaged(|value| value["role"] = "king".into()), Error::Damaged { .. }));
    let error = load_damaged(|value| value["node_id"] = "node2".into());
    let text = error.to_string();
    assert!(text.contains("worker node1") && text.contains("worker node2"), "{text}");
    assert!(matches!(
        load_damaged(|value| value["role"] = "manager".into()),
        Error::WrongSubject { .. }
    ));
}

#[test]
fn dates_are_checked_unless_asked_not_to() {
    let ca = ca("clusterone");
    let (dir, _) = stored(&member_signed_ago(&ca, Role::Manager, "node1", 3 * DAY));
    let error = Identity::load(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Expired { .. }), "{error:?}");
    assert_eq!(Identity::load_any_age(dir.path()).unwrap().node_id, "node1");

    let (dir, _) = stored(&member_signed_ahead(&ca, Role::Manager, "node1", 2 * DAY));
    let error = Identity::load(dir.path()).unwrap_err();
    assert!(matches!(error, Error::NotYetValid { .. }), "{error:?}");
    assert!(error.to_string().contains("clock"), "{error}");
}
