//! `RaftNode`: a manager's part in consensus, from starting it to shutting it down.
//!
//! Consensus has a small runtime of its own, so that work elsewhere in the process cannot delay
//! heartbeats; dropping the last handle ends everything in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster_model::{Command, NodeId};
use cluster_pb::raft::v1::raft_client::RaftClient;
use cluster_pb::raft::v1::raft_server::RaftServer;
use nix::fcntl::{Flock, FlockArg};
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{InitializeError, RaftError};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::config::{RaftConfig, Threads, Timing};
use super::disk::Disk;
use super::error::StorageError;
use super::leadership::{Leadership, leader_of, watch_over};
use super::log::{self, Log, LogThread, Owner};
use super::machine::{Machine, Published, View};
use super::members::Member;
use super::network::Network;
use super::peers::{Connector, Lane, MESSAGE_LIMIT, Peers};
use super::propose::{Applied, Failure, ProposeError};
use super::recent::Recent;
use super::service::RaftService;
use super::snapshot::SnapshotStore;
use super::storage::LogStore;
use super::types::{Node, Raft};
use super::understood::Understood;

/// Why consensus did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its files are unusable.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The settings contradict each other.
    #[error("the settings of consensus are not usable")]
    Config(#[source] openraft::ConfigError),
    /// Threads could not be had.
    #[error("cannot start the threads of consensus")]
    Runtime(#[source] std::io::Error),
    /// openraft refused.
    #[error("cannot start consensus: {0}")]
    Consensus(String),
}

/// Why a cluster was not bootstrapped.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The group of one could not be formed.
    #[error("cannot form a group of managers: {0}")]
    Form(String),
    /// The first command was not applied.
    #[error("cannot write the first entry of the cluster")]
    FirstCommand(#[source] ProposeError),
}

/// A manager's consensus; clones share it.
#[derive(Clone)]
pub struct RaftNode {
    inner: Arc<Inner>,
}

struct Inner {
    config: RaftConfig,
    raft: Raft,
    peers: Peers,
    understood: Understood,
    published: Published,
    snapshots: SnapshotStore,
    leadership: watch::Sender<Leadership>,
    fatal: watch::Sender<Option<String>>,
    log: Log,
    running: Mutex<Option<Running>>,
}

/// What ends with the node, in this order.
struct Running {
    /// `None`: the caller's.
    runtime: Option<Runtime>,
    thread: LogThread,
    _lock: Flock<File>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { runtime: Some(runtime), .. }) = running {
            // Waiting would block whoever drops the last handle, maybe inside a runtime.
            runtime.shutdown_background();
        }
    }
}

/// Until a snapshot that was asked for has surely begun.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(1);
/// Of the bytes that make a snapshot in any case, the part that makes one when nothing more comes.
const PART_AT_REST: u64 = 16;
/// Without a command for so long, nothing more comes.
const REST: Duration = Duration::from_secs(3);

/// What `cluster info` shows of consensus.
#[derive(Debug, Clone)]
pub struct Status {
    /// This manager.
    pub node_id: NodeId,
    /// Current term.
    pub term: u64,
    /// Whom this manager voted for in it.
    pub voted_for: NodeId,
    /// Who leads.
    pub leader: Option<(NodeId, String)>,
    /// Last index in this manager's log.
    pub last_log_index: Option<u64>,
    /// Last index known to be committed.
    pub committed: Option<u64>,
    /// Last index applied here.
    pub applied: Option<u64>,
    /// Last index the snapshot covers.
    pub snapshot: Option<u64>,
    /// Last index dropped from the log.
    pub purged: Option<u64>,
    /// The managers.
    pub members: Vec<Member>,
}

impl RaftNode {
    /// Whether `dir` holds the log of a manager, so that starting continues it.
    pub fn has_state(disk: &dyn Disk, dir: &Path) -> Result<bool, StorageError> {
        let dir = log::folder(dir);
        match disk.list(&dir) {
            Ok(names) => Ok(names.iter().any(|name| name.ends_with(".log"))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StorageError::io("list", &dir)(error)),
        }
    }

    /// Opens the files and takes part. A manager of no group yet waits to be bootstrapped or added.
    pub async fn start(config: RaftConfig, connector: Connector) -> Result<Self, StartError> {
        let lock = lock_folder(&config.dir)?;
        let settings = Arc::new(config.openraft().map_err(StartError::Config)?);
        let owner = Owner { cluster_id: config.cluster_id.0, node_id: config.node_id.0 };
        let (dir, log_settings, threads) = (config.dir.clone(), config.log, config.threads);
        let (disk, commands) = (config.disk.clone(), config.commands);
        let (keys, background) = (config.keys.clone(), config.background.clone());
        let published = Published::new();
        let machine_published = published.clone();
        let opening = cluster_daemon::blocking(move || {
            let snapshots = SnapshotStore::open_with(
                disk.clone(),
                &dir.join("snapshots"),
                owner.cluster_id,
                keys.clone(),
            )?;
            let machine =
                Machine::open(snapshots.clone(), machine_published, commands, background)?;
            let folder = log::folder(&dir);
            let (log, thread) = Log::open_with(disk, &folder, owner, log_settings, threads, keys)?;
            Ok::<_, StorageError>((snapshots, machine, log, thread))
        });
        let (snapshots, machine, log, thread) =
            opening.await.map_err(|error| StartError::Consensus(error.to_string()))??;

        let runtime = match config.threads {
            Threads::Own => Some(own_runtime().map_err(StartError::Runtime)?),
            Threads::Callers => None,
        };
        let handle = runtime.as_ref().map_or_else(Handle::current, |own| own.handle().clone());
        let peers = Peers::new(connector, handle.clone());
        let understood = Understood::new(commands);
        let network = Network { peers: peers.clone(), understood: understood.clone() };
        let store = LogStore(log.clone());
        let id = config.node_id.0;
        let starting =
            handle.spawn(async move { Raft::new(id, settings, network, store, machine).await });
        let raft = match starting.await {
            Ok(Ok(raft)) => raft,
            failed => {
                let reason = match failed {
                    Ok(Err(fatal)) => fatal.to_string(),
                    Err(error) => error.to_string(),
                    Ok(Ok(_)) => String::new(),
                };
                if let Some(runtime) = runtime {
                    runtime.shutdown_background();
                }
                return Err(StartError::Consensus(reason));
            }
        };
        let leadership = watch::Sender::new(Leadership::default());
        let fatal = watch::Sender::new(None);
        let failures = [log.failure(), published.failure.subscribe()];
        handle.spawn(save_what_is_long(
            raft.clone(),
            published.unsaved.subscribe(),
            config.snapshot_bytes,
        ));
        handle.spawn(watch_over(
            raft.clone(),
            config.timing,
            leadership.clone(),
            fatal.clone(),
            failures,
        ));
        let running = Mutex::new(Some(Running { runtime, thread, _lock: lock }));
        let inner = Inner {
            config,
            raft,
            peers,
            understood,
            published,
            snapshots,
            leadership,
            fatal,
            log,
            running,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Forms a group of this manager alone and applies the cluster's first command. Repeating it
    /// after a crash continues; the command is refused if it was applied before.
    pub async fn bootstrap(&self, first: Command) -> Result<Applied, BootstrapError> {
        let me = BTreeMap::from([(self.id().0, Node::new(&self.inner.config.advertise))]);
        match self.raft().initialize(me).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(BootstrapError::Form(error.to_string())),
        }
        self.propose(first).await.map_err(BootstrapError::FirstCommand)
    }

    /// The gRPC service for the other managers.
    pub fn service(&self) -> RaftServer<RaftService> {
        RaftServer::new(RaftService::new(self.clone()))
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// The threads of consensus, if it has its own: what other managers ask is served there.
    pub fn threads(&self) -> Option<Handle> {
        let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref()?.runtime.as_ref().map(|runtime| runtime.handle().clone())
    }

    /// This manager.
    pub fn id(&self) -> NodeId {
        self.inner.config.node_id
    }

    /// The state as applied here, maybe a little behind others.
    pub fn view(&self) -> View {
        self.inner.published.view.borrow().clone()
    }

    /// A look at the same. Nothing is published while it lasts, so it must be short.
    pub fn look<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.inner.published.view.borrow())
    }

    /// Changes to the last applied index whenever a view was published.
    pub fn feed(&self) -> watch::Receiver<u64> {
        self.inner.published.feed.subscribe()
    }

    /// Who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// The leader this manager knows of.
    pub fn leader(&self) -> Option<(NodeId, String)> {
        leader_of(&self.raft().metrics().borrow_watched())
    }

    /// Becomes the reason when this manager can take no further part; it must then exit.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.inner.fatal.subscribe()
    }

    /// Waits for that reason.
    pub async fn failed(&self) -> String {
        let mut fatal = self.fatal();
        match fatal.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "consensus has ended".to_owned(),
        }
    }

    /// Positions and members, for people.
    pub fn status(&self) -> Status {
        let members = self.members();
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        Status {
            node_id: self.id(),
            term: metrics.current_term,
            voted_for: NodeId(metrics.vote.leader_id.voted_for),
            leader: leader_of(&metrics),
            last_log_index: metrics.last_log_index,
            committed: metrics.local_committed.map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            members,
        }
    }

    /// Waits until `index` is applied here; false if it takes longer than `patience`.
    pub async fn wait_applied(&self, index: u64, patience: Duration) -> bool {
        let mut feed = self.feed();
        let waiting = feed.wait_for(|applied| *applied >= index);
        matches!(tokio::time::timeout(patience, waiting).await, Ok(Ok(_)))
    }

    /// The data keys that present files need; none stands for a file in the clear.
    pub fn key_ids(&self) -> Result<BTreeSet<Option<u64>>, StorageError> {
        let mut ids = self.inner.log.key_ids();
        ids.extend(self.inner.snapshots.key_id()?);
        Ok(ids)
    }

    /// Asks the core of consensus and waits, however long, until it has answered: then it goes round.
    pub async fn answers(&self) -> bool {
        self.raft().with_raft_state(|_| ()).await.is_ok()
    }

    /// Starts writing a snapshot now; older parts of the log go after it.
    pub async fn write_snapshot(&self) {
        // Refused only by consensus that has ended, which is told elsewhere.
        let _ = self.raft().trigger().snapshot().await;
    }

    /// Ends this manager's part: consensus stops, the log is synced, the folder is free.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft().shutdown().await {
            tracing::warn!(%error, "consensus did not stop cleanly");
        }
        self.stop().await;
    }

    /// Stops all threads without telling consensus first.
    pub(crate) async fn stop(&self) {
        let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { runtime, thread, _lock: lock }) = running else { return };
        let log = self.inner.log.clone();
        let ending = cluster_daemon::blocking(move || {
            if let Some(runtime) = runtime {
                runtime.shutdown_timeout(Duration::from_secs(5));
            }
            log.close();
            thread.join();
            drop(lock);
        });
        if let Err(error) = ending.await {
            tracing::warn!(%error, "consensus did not stop cleanly");
        }
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    pub(crate) fn understood(&self) -> &Understood {
        &self.inner.understood
    }

    pub(crate) fn snapshots(&self) -> &SnapshotStore {
        &self.inner.snapshots
    }

    pub(crate) fn recent(&self) -> &Recent {
        &self.inner.published.recent
    }

    pub(crate) fn timing(&self) -> Timing {
        self.inner.config.timing
    }

    pub(crate) fn leader_client(&self, address: &str) -> Result<RaftClient<Channel>, Failure> {
        let client = self.peers().client(address, Lane::Forwarded);
        client.map_err(|error| {
            Failure::NotDone(format!("cannot reach the leader at {address}: {error}"))
        })
    }
}

fn own_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("raft")
        .enable_all()
        .build()
}

pub(super) fn lock_folder(dir: &Path) -> Result<Flock<File>, StorageError> {
    std::fs::create_dir_all(dir).map_err(StorageError::io("make", dir))?;
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(StorageError::io("open", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(StorageError::InUse { path }),
        Err((_, error)) => Err(StorageError::io("lock", &path)(error.into())),
    }
}

/// Asks for a snapshot whenever a restart would have to repeat much: after `limit` bytes of commands, or
/// after a part of that once nothing more comes. The log of a burst may be longer than the state that it
/// led to, and takes longer to repeat than the state takes to read.
async fn save_what_is_long(raft: Raft, mut unsaved: watch::Receiver<u64>, limit: u64) {
    let worth_it = limit / PART_AT_REST;
    loop {
        let bytes = match unsaved.wait_for(|bytes| *bytes >= worth_it).await {
            Ok(bytes) => *bytes,
            Err(_) => return,
        };
        if bytes < limit
            && let Ok(more) = tokio::time::timeout(REST, unsaved.changed()).await
        {
            match more {
                Ok(()) => continue,
                Err(_) => return,
            }
        }
        // It fails only when consensus ended.
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
        tokio::time::sleep(SNAPSHOT_PAUSE).await;
    }
}
