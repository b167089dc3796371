//! A simulated machine with a manager on it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser as _;
use cluster_identity::net::Net;
use cluster_manager::cli::Cli;
use cluster_manager::context::Context;
use cluster_manager::host::Host as Ground;
use cluster_manager::raft::disk::sim::{Loss, SimDisk};
use cluster_manager::raft::{LogSettings, RaftConfig, Threads};
use cluster_manager::serve::Manager;
use tokio::sync::Notify;

use crate::host::Host;
use crate::net::{Wires, address};

pub const PORT: u16 = 7100;
/// Small, so that segments and snapshots turn over within a run.
const SEGMENT_BYTES: u64 = 48 << 10;
const SNAPSHOT_EVERY: u64 = 120;
const KEEP_ENTRIES: u64 = 40;

/// The running program's parts, while it runs.
type Shown = Arc<Mutex<Option<Context>>>;

pub struct ManagerHost {
    pub number: usize,
    pub host: Host,
    pub disk: SimDisk,
    dir: PathBuf,
    net: Net,
    shown: Shown,
    stop: Arc<Notify>,
    /// Where and with what it joins; empty for the founder.
    join: Option<(Vec<String>, String)>,
}

impl ManagerHost {
    pub fn new(number: usize, wires: &Wires, dir: PathBuf) -> Self {
        let disk = SimDisk::default();
        disk.forget_after_failed_syncs();
        Self {
            number,
            host: Host::default(),
            disk,
            dir,
            net: Net::over(wires.of(number)),
            shown: Arc::default(),
            stop: Arc::default(),
            join: None,
        }
    }

    pub fn address(&self) -> String {
        format!("{}:{PORT}", address(self.number))
    }

    pub fn admin_context(&self) -> PathBuf {
        self.dir.join("admin.json")
    }

    pub fn join_with(&mut self, managers: Vec<String>, token: String) {
        self.join = Some((managers, token));
    }

    /// What the running manager shares; `None` while it does not run or has only begun.
    pub fn context(&self) -> Option<Context> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cli(&self) -> Cli {
        let mut args = vec!["cluster-manager".to_owned(), "--data-dir".to_owned()];
        args.push(self.dir.display().to_string());
        let listen = self.address();
        let name = format!("manager-{}", self.number + 1);
        args.extend(["--listen".into(), listen, "--name".into(), name]);
        match &self.join {
            None => args.push("--bootstrap".into()),
            Some((managers, token)) => {
                let managers = managers.join(",");
                args.extend(["--join".into(), managers, "--token".into(), token.clone()]);
            }
        }
        Cli::parse_from(args)
    }

    pub fn start(&mut self, now: u64) -> anyhow::Result<()> {
        let ground = Ground {
            net: self.net.clone(),
            disk: Arc::new(self.disk.clone()),
            adapt: Some(Arc::new(|config: &mut RaftConfig| {
                config.threads = Threads::Callers;
                config.log = LogSettings { segment_bytes: SEGMENT_BYTES, cache_bytes: 16 << 10 };
                config.snapshot_every = SNAPSHOT_EVERY;
                config.keep_entries = KEEP_ENTRIES;
            })),
            users: None,
        };
        self.stop = Arc::default();
        let (cli, shown, stop) = (self.cli(), self.shown.clone(), self.stop.clone());
        self.host.start(now, async move {
            cli.check().map_err(|problem| anyhow::anyhow!(problem))?;
            let mut manager = Manager::start(cli, &ground).await?;
            show(&shown, Some(manager.context().clone()));
            manager.take_part().await?;
            let ended = manager.until(async { stop.notified().await }).await;
            show(&shown, None);
            ended
        })
    }

    /// SIGTERM.
    pub fn ask_to_stop(&self) {
        self.stop.notify_one();
    }

    /// SIGKILL: nothing is said, everything written stays.
    pub fn kill(&mut self) {
        show(&self.shown, None);
        self.host.kill();
    }

    /// What the disk keeps of the unsynced writes after a loss of power.
    pub fn lose_unsynced(&mut self, loss: Loss) {
        self.disk = self.disk.after_power_loss(loss);
    }
}

fn show(shown: &Shown, context: Option<Context>) {
    *shown.lock().unwrap_or_else(PoisonError::into_inner) = context;
}
