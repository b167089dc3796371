//! What the program refuses before it changes anything on the machine. Needs root, as the worker.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use cluster_daemon::DataDirLock;
use cluster_identity::Role;

use crate::manager::Manager;

async fn worker(data_dir: &Path, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cluster-worker"));
    command.arg("--data-dir").arg(data_dir).args(args);
    // Should a check be missing, it must not get as far as the network of this machine.
    command.args(["--bridge", "a-name-that-is-far-too-long"]);
    let output: Output =
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_the_field_and_the_fix() {
    let manager = Manager::start().await;
    let other = Manager::start().await;
    let dir = tempfile::tempdir().unwrap();
    let address = manager.address();
    let good = manager.token(Role::Worker);
    let garbage = TcpListener::bind("127.0.0.1:0").unwrap();
    let wrong_port = garbage.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = garbage.accept() {
            // The client may have left already.
            let _ = stream.write_all(b"SSH-2.0-something\r\n");
        }
    });
    let cases: [(&[&str], i32, &str); 9] = [
        (&[], 1, "--join and --token"),
        (&["--system-reserve", "cpu=9999"], 1, "field `--system-reserve`: cpu=9999"),
        (&["--generic-resource", "a=1", "--generic-resource", "a=2"], 1, "given twice"),
        (&["--join", &address, "--token", "nonsense"], 1, "not a join token"),
        (&["--join", &address, "--token", &manager.token(Role::Manager)], 1, "--role worker"),
        (&["--join", &address, "--token", &other.token(Role::Worker)], 1, "another cluster"),
        (&["--join", &wrong_port, "--token", &good], 1, "does not speak TLS"),
        (&["--join", &address, "--token", &good, "--name", "a b"], 1, "field `--name`"),
        (
            &["--join", "127.0.0.1:9", "--token", &good, "--join-timeout", "1"],
            3,
            "no manager could be reached at 127.0.0.1:9",
        ),
    ];
    for (args, code, text) in cases {
        let (found, said) = worker(dir.path(), args).await;
        assert_eq!(found, code, "{args:?}: {said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains(text), "{args:?}: {said}");
        assert!(!said.contains(&good), "the token was printed");
    }
    assert!(!dir.path().join("identity.json").exists(), "nothing was joined");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_use_is_named_with_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let _held = DataDirLock::acquire(dir.path()).unwrap();
    let (code, said) = worker(dir.path(), &[]).await;
    assert_eq!(code, 1);
    assert!(said.contains(&format!("another process (pid {})", std::process::id())), "{said}");
}
