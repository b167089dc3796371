//! A locked manager: says so, and serves nothing but one small endpoint, on a Unix socket in its data
//! folder, until somebody brings the unlock key.
//!
//! Whoever reaches the socket must be root or the manager's own user. A wrong key is answered and
//! changes nothing; it can be tried again.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cluster_daemon::{chain, systemd};
use cluster_identity::UnlockKey;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::cli::{Cli, Unlock};
use crate::keys::{Error, KeyStore};

const SOCKET: &str = "unlock.sock";
/// A key is far shorter.
const LINE_MAX: u64 = 512;
/// How long who connects may take to say the key.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the keys of a folder whose manager does not run; a locked one needs the file with its key.
pub fn open_with(dir: &Path, key_file: Option<&Path>) -> anyhow::Result<KeyStore> {
    match (KeyStore::open(dir, None), key_file) {
        (Err(Error::Locked { .. }), Some(path)) => Ok(KeyStore::open(dir, Some(&read_key(path)?))?),
        (Err(locked @ Error::Locked { .. }), None) => {
            Err(locked).context("give the unlock key with --unlock-key-file")
        }
        (opened, _) => Ok(opened?),
    }
}

/// Opens the folder's keys; of a locked folder, once the key was brought.
pub async fn open(cli: &Cli) -> anyhow::Result<KeyStore> {
    let locked = match KeyStore::open(&cli.data_dir, None) {
        Err(locked @ Error::Locked { .. }) => locked,
        opened => return Ok(opened?),
    };
    let Some(path) = &cli.unlock_key_file else {
        tracing::debug!(reason = %locked, "waiting for the unlock key");
        return wait(&cli.data_dir).await;
    };
    Ok(KeyStore::open(&cli.data_dir, Some(&read_key(path)?))?)
}

async fn wait(dir: &Path) -> anyhow::Result<KeyStore> {
    let path = dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(|| {
        format!(
            "this manager is locked, and cannot listen on {} for the unlock key; give it with \
             --unlock-key-file",
            path.display()
        )
    })?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", path.display()))?;
    tracing::warn!(
        data_dir = %dir.display(),
        "this manager is locked and serves nothing: run `cluster-manager unlock --data-dir DIR` on \
         this machine and give it the key that `clusterctl cluster unlock-key` prints on another one"
    );
    // Whoever started it must not wait for a person.
    systemd::ready("locked: waiting for the unlock key, see `cluster-manager unlock`");
    let store = loop {
        let (stream, _) = listener.accept().await.context("cannot accept an unlock key")?;
        match tokio::time::timeout(PATIENCE, serve(stream, dir)).await {
            Ok(Ok(Some(store))) => break store,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::info!(%error, "whoever wanted to unlock went away"),
            Err(_) => tracing::info!("no unlock key was said in time"),
        }
    };
    // A socket that is left is removed by the next start.
    let _ = std::fs::remove_file(&path);
    tracing::info!("unlocked");
    systemd::status("unlocked: starting");
    Ok(store)
}

async fn serve(mut stream: UnixStream, dir: &Path) -> std::io::Result<Option<KeyStore>> {
    let (ours, theirs) = (nix::unistd::geteuid().as_raw(), stream.peer_cred()?.uid());
    if theirs != 0 && theirs != ours {
        stream.write_all(b"error: only root may unlock\n").await?;
        return Ok(None);
    }
    let mut line = String::new();
    tokio::io::BufReader::new((&mut stream).take(LINE_MAX)).read_line(&mut line).await?;
    let opened = match UnlockKey::parse(&line) {
        Ok(key) => KeyStore::open(dir, Some(&key)).map_err(|error| chain(&error)),
        Err(error) => Err(chain(&error)),
    };
    match opened {
        Ok(store) => {
            stream.write_all(b"unlocked\n").await?;
            Ok(Some(store))
        }
        Err(reason) => {
            tracing::warn!(reason, "refused an unlock key");
            stream.write_all(format!("error: {reason}\n").as_bytes()).await?;
            Ok(None)
        }
    }
}

fn read_key(path: &Path) -> anyhow::Result<UnlockKey> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LINE_MAX).read_to_string(&mut text))
        .with_context(|| format!("cannot read the unlock key from {}", path.display()))?;
    UnlockKey::parse(&text).with_context(|| format!("cannot use {}", path.display()))
}

/// `cluster-manager unlock`: brings a key to the manager of a folder.
#[expect(clippy::print_stderr, reason = "the prompt and the answer of an interactive command")]
pub fn ask(cli: &Unlock) -> anyhow::Result<()> {
    let path: PathBuf = cli.data_dir.join(SOCKET);
    let mut stream = StdUnixStream::connect(&path).with_context(|| {
        format!(
            "no locked manager waits at {}: start it first, or it is unlocked already",
            path.display()
        )
    })?;
    let key = match &cli.key_file {
        Some(path) => read_key(path)?,
        None => {
            if std::io::stdin().is_terminal() {
                eprint!("Unlock key: ");
            }
            let mut text = String::new();
            std::io::stdin()
                .lock()
                .take(LINE_MAX)
                .read_line(&mut text)
                .context("cannot read the unlock key from standard input")?;
            UnlockKey::parse(&text)?
        }
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{}\n", key.expose()).as_bytes()).context("cannot reach it")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("the manager did not answer")?;
    match answer.trim() {
        "unlocked" => {
            eprintln!("unlocked");
            Ok(())
        }
        "" => bail!("the manager closed the connection; try again"),
        other => bail!("{}", other.trim_start_matches("error: ")),
    }
}
