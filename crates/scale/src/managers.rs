//! Manager processes on the loopback device, each with a data folder of its own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster_identity::Context as ContextFile;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::api::Api;
use crate::process::Usage;

const START_WITHIN: Duration = Duration::from_secs(60);
/// Longer than a worker waits for a manager that says nothing, and longer than its lease.
const STANDSTILL: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(20);

struct Manager {
    name: String,
    address: SocketAddr,
    folder: PathBuf,
    child: Option<Child>,
}

/// A group.
pub struct Managers {
    program: PathBuf,
    all: Vec<Manager>,
    pub api: Api,
}

impl Managers {
    /// Starts a group and waits until all of it votes.
    pub async fn start(bin_dir: &Path, folder: &Path, count: u32) -> Result<Self> {
        let program = bin_dir.join("cluster-manager");
        ensure!(program.is_file(), "field `--bin-dir`: {} is not there", program.display());
        let ports = free_ports(count)?;
        let mut all: Vec<Manager> = (1u32..)
            .zip(ports)
            .map(|(number, address)| {
                let name = format!("manager-{number}");
                Manager { folder: folder.join(&name), name, address, child: None }
            })
            .collect();
        let first = all.first_mut().context("no manager was asked for")?;
        first.launch(&program, &["--bootstrap"])?;
        let context = wait_for("the first manager", first.child.as_mut(), || {
            Ok(ContextFile::load(&first.folder.join("admin.json")).ok())
        })
        .await?;
        let join = first.address.to_string();
        let mut api = Api::new(context)?;
        let begun = Instant::now();
        // The context is written before the founding is committed.
        let token = loop {
            match api.token("manager").await {
                Ok(token) => break token,
                Err(error) if begun.elapsed() > START_WITHIN => return Err(error),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        };
        for manager in all.iter_mut().skip(1) {
            manager.launch(&program, &["--join", &join, "--token", &token])?;
        }
        let addresses = all.iter().map(|manager| manager.address.to_string()).collect();
        api.use_managers(addresses)?;
        let mut managers = Self { program, all, api };
        managers.wait_for_voters(count as usize).await?;
        Ok(managers)
    }

    async fn wait_for_voters(&mut self, count: usize) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.check()?;
            let cluster = self.api.cluster().await;
            if cluster
                .is_ok_and(|cluster| cluster.managers.iter().filter(|m| m.voter).count() == count)
            {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < START_WITHIN,
                "the managers do not all vote after {START_WITHIN:?}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// An error if a manager that should run does not.
    pub fn check(&mut self) -> Result<()> {
        for manager in &mut self.all {
            if let Some(child) = &mut manager.child
                && let Some(status) = child.try_wait().context("looking at a manager")?
            {
                bail!("{} ended by itself ({status}): {}", manager.name, manager.last_words());
            }
        }
        Ok(())
    }

    pub fn addresses(&self) -> Vec<String> {
        self.all.iter().map(|manager| manager.address.to_string()).collect()
    }

    /// The context file that the first manager wrote.
    pub fn context_file(&self) -> PathBuf {
        self.all.first().map(|manager| manager.folder.join("admin.json")).unwrap_or_default()
    }

    /// What each running manager used so far, by its place.
    pub fn usage(&self) -> Result<Vec<Usage>> {
        let running = self.all.iter().filter_map(|manager| manager.child.as_ref());
        running.map(|child| Usage::of(child.id())).collect()
    }

    /// The place of the manager that leads.
    pub async fn leader(&mut self) -> Result<usize> {
        let cluster = self.api.cluster().await?;
        let leader = cluster.managers.iter().find(|manager| manager.leader);
        let name = &leader.context("no manager leads")?.name;
        let place = self.all.iter().position(|manager| manager.name == *name);
        place.with_context(|| format!("{name} leads and is none of ours"))
    }

    /// SIGKILL.
    pub fn kill(&mut self, place: usize) -> Result<()> {
        let manager = &mut self.all[place];
        if let Some(mut child) = manager.child.take() {
            child.kill().with_context(|| format!("killing {}", manager.name))?;
            child.wait().with_context(|| format!("waiting for {}", manager.name))?;
        }
        Ok(())
    }

    /// Stops all managers where they are, and lets them go on after [`STANDSTILL`].
    pub async fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        tokio::time::sleep(STANDSTILL).await;
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        for child in self.all.iter().filter_map(|manager| manager.child.as_ref()) {
            let pid = Pid::from_raw(i32::try_from(child.id()).context("an odd process id")?);
            kill(pid, signal).with_context(|| format!("sending {signal} to a manager"))?;
        }
        Ok(())
    }

    /// Starts a killed manager again; does not wait for it.
    pub fn start_again(&mut self, place: usize) -> Result<()> {
        let program = self.program.clone();
        self.all[place].launch(&program, &[])
    }

    /// Bytes of a manager's largest snapshot.
    pub fn snapshot_bytes(&self, place: usize) -> u64 {
        let folder = self.all[place].folder.join("raft/snapshots");
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.metadata().ok())
            .map(|m| m.len())
            .max()
            .unwrap_or(0)
    }

    /// CPU and memory of one manager.
    pub fn usage_of(&self, place: usize) -> Result<Usage> {
        let child = self.all[place].child.as_ref().context("this manager does not run")?;
        Usage::of(child.id())
    }
}

impl Manager {
    fn launch(&mut self, program: &Path, more: &[&str]) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("making {}", self.folder.display()))?;
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.with_context(|| format!("opening {}", self.log().display()))?;
        let child = Command::new(program)
            .args(["--name", &self.name, "--listen", &self.address.to_string()])
            .arg("--data-dir")
            .arg(&self.folder)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        text.lines().rev().take(3).collect::<Vec<_>>().join(" | ")
    }
}

/// The process ends with this value.
impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that is gone already needs no killing.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ports that nobody listens on; all are held until all are known.
fn free_ports(count: u32) -> Result<Vec<SocketAddr>> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<_, _>>()
        .context("looking for free ports on 127.0.0.1")?;
    let addresses = listeners.iter().map(TcpListener::local_addr);
    addresses.collect::<Result<_, _>>().context("reading a port")
}

async fn wait_for<T>(
    what: &str,
    mut child: Option<&mut Child>,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        let ended = child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = ended {
            bail!("{what} ended: {status}");
        }
        ensure!(begun.elapsed() < START_WITHIN, "{what} is not there after {START_WITHIN:?}");
        tokio::time::sleep(POLL).await;
    }
}
