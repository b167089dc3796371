//! Data at rest: what lies on a manager's disk, locked and not.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use cluster_identity::{Context, TlsIdentity, UnlockKey};
use cluster_pb::control::v1 as control;
use cluster_wire::Code;

use crate::harness::{Cluster, Manager, eventually, refusal};

async fn autolock(cluster: &Cluster, on: bool) -> String {
    let request = control::UpdateSecurityRequest { autolock: Some(on), ..Default::default() };
    cluster.control(0).update_security(request).await.unwrap().into_inner().unlock_key
}

async fn unlock_key(cluster: &Cluster, rotate: bool) -> String {
    let request = control::GetUnlockKeyRequest { rotate };
    cluster.control(0).get_unlock_key(request).await.unwrap().into_inner().unlock_key
}

fn unlock(manager: &Manager, key: &str) -> Output {
    use std::io::Write as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_cluster-manager"))
        .args(["unlock", "--data-dir", manager.data.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended already, for want of a manager.
    let _ = child.stdin.take().unwrap().write_all(format!("{key}\n").as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every file below a folder that holds one of these.
fn files_with(dir: &Path, needles: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, needles));
        } else if let Ok(bytes) = std::fs::read(&path) {
            let holds = |needle: &&str| {
                bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
            };
            if needles.iter().any(holds) {
                found.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

async fn is_locked(manager: &Manager) {
    eventually("the folder to be locked", async || {
        let text = std::fs::read_to_string(manager.data.join("keys.json")).ok()?;
        let identity = std::fs::read_to_string(manager.data.join("identity.json")).ok()?;
        (text.contains("\"locked\"") && identity.contains("sealed_key")).then_some(())
    })
    .await;
}

async fn waits(manager: &Manager) {
    eventually("the manager to say that it is locked", async || {
        manager.told().contains("this manager is locked").then_some(())
    })
    .await;
    assert!(manager.told().contains("cluster-manager unlock"), "and how to unlock it");
}

#[tokio::test]
async fn nothing_of_the_state_lies_on_the_disk_in_the_clear() {
    let cluster = Cluster::new().await;
    cluster.service("a-very-secret-name", 0, 0).await;
    let raft = cluster.managers[0].data.join("raft");
    assert_eq!(files_with(&raft, &["a-very-secret-name", "PRIVATE KEY"]), Vec::<String>::new());
    assert!(!raft.with_file_name("founding.json").exists());
}

#[tokio::test]
async fn a_locked_manager_waits_for_its_key_and_nothing_else_opens_it() {
    let mut cluster = Cluster::new().await;
    let service = cluster.service("web", 0, 0).await;
    let ask = control::GetUnlockKeyRequest { rotate: false };
    let asked = cluster.control(0).get_unlock_key(ask).await;
    assert_eq!(refusal(asked).0, Code::NotLocked);
    let key = autolock(&cluster, true).await;
    assert_eq!(autolock(&cluster, true).await, key, "asked again, it is the same");
    assert_eq!(unlock_key(&cluster, false).await, key);
    is_locked(&cluster.managers[0]).await;
    assert!(said(&unlock(&cluster.managers[0], &key)).contains("no locked manager waits"));

    cluster.managers[0].stop();
    let left = files_with(&cluster.managers[0].data, &["PRIVATE KEY"]);
    assert_eq!(left, ["admin.json"], "which the operator is told to take away");
    cluster.managers[0].start_again(&[]);
    waits(&cluster.managers[0]).await;
    let path = cluster.managers[0].data.join("unlock.sock");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    assert!(cluster.info(0).await.is_none(), "it serves nothing");
    // Wrong ones change nothing, however often.
    let wrong = UnlockKey::generate().unwrap().expose();
    for (text, says) in [
        (wrong.as_str(), "not the one"),
        ("CLUSTER-UNLOCK-1-abc", "damaged"),
        ("", "not an unlock"),
    ] {
        for _ in 0..3 {
            let output = unlock(&cluster.managers[0], text);
            assert!(!output.status.success());
            assert!(said(&output).contains(says), "{text}: {}", said(&output));
        }
    }
    let output = unlock(&cluster.managers[0], &key);
    assert!(output.status.success(), "{}", said(&output));
    eventually("an answer", async || cluster.info(0).await).await;
    assert_eq!(cluster.tasks(0, &service).await.len(), 0);

    // A new unlock key, and new data keys with it.
    let second = unlock_key(&cluster, true).await;
    assert_ne!(second, key);
    let third = std::fs::read_to_string(cluster.managers[0].data.join("keys.json")).unwrap();
    let rotate = control::UpdateSecurityRequest { rotate_data_keys: true, ..Default::default() };
    cluster.control(0).update_security(rotate).await.unwrap();
    eventually("new data keys", async || {
        let now = std::fs::read_to_string(cluster.managers[0].data.join("keys.json")).ok()?;
        (now != third && !now.contains("\"epoch\": 0")).then_some(())
    })
    .await;
    cluster.managers[0].stop();
    let file = cluster.managers[0].data.with_extension("key");
    std::fs::write(&file, &key).unwrap();
    cluster.managers[0].start_again(&["--unlock-key-file", file.to_str().unwrap()]);
    eventually("the old key to be refused", async || {
        cluster.managers[0].told().contains("nothing was changed").then_some(())
    })
    .await;
    std::fs::write(&file, &second).unwrap();
    cluster.managers[0].start_again(&["--unlock-key-file", file.to_str().unwrap()]);
    eventually("an answer", async || cluster.info(0).await).await;

    // And back: it starts by itself again.
    autolock(&cluster, false).await;
    eventually("the folder to be open", async || {
        let text = std::fs::read_to_string(cluster.managers[0].data.join("keys.json")).ok()?;
        let identity = std::fs::read_to_string(cluster.managers[0].data.join("identity.json"));
        (!text.contains("\"locked\"") && identity.ok()?.contains("PRIVATE KEY")).then_some(())
    })
    .await;
    cluster.managers[0].kill();
    cluster.managers[0].start_again(&[]);
    eventually("an answer", async || cluster.info(0).await).await;
    assert_eq!(cluster.tasks(0, "web").await.len(), 0);
}

#[tokio::test]
async fn the_lock_is_the_clusters_and_a_manager_that_was_away_follows() {
    let mut cluster = Cluster::of(3).await;
    let key = autolock(&cluster, true).await;
    for manager in &cluster.managers {
        is_locked(manager).await;
    }
    cluster.managers[2].kill();
    let second = unlock_key(&cluster, true).await;
    for manager in 0..2 {
        eventually("the new lock", async || {
            cluster.managers[manager].told().matches("data folder locked").nth(1).map(|_| ())
        })
        .await;
    }
    cluster.managers[2].start_again(&[]);
    waits(&cluster.managers[2]).await;
    let output = unlock(&cluster.managers[2], &second);
    assert!(said(&output).contains("the one from before"), "{}", said(&output));
    assert!(unlock(&cluster.managers[2], &key).status.success());
    eventually("an answer", async || cluster.info(2).await).await;
    eventually("the new lock", async || {
        cluster.managers[2].told().contains("data folder locked").then_some(())
    })
    .await;
    cluster.managers[2].kill();
    cluster.managers[2].start_again(&[]);
    waits(&cluster.managers[2]).await;
    assert!(!unlock(&cluster.managers[2], &key).status.success(), "only the new one now");
    assert!(unlock(&cluster.managers[2], &second).status.success());
    let path = cluster.managers[0].data.join("admin.json");
    let admin = Context::load(&path).unwrap().identity().unwrap();
    cluster.admin = TlsIdentity::new(admin).unwrap();
    eventually("an answer", async || cluster.info(2).await).await;
}
