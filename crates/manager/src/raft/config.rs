//! Settings of a manager's consensus.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster_daemon::Background;
use cluster_model::command::COMMANDS;
use cluster_model::{ClusterId, NodeId};
use openraft::SnapshotPolicy;

use super::cipher::Keyring;
use super::disk::{Disk, OsDisk};
use super::log::LogSettings;

/// What `RaftNode::start` needs to know.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// Folder for log and snapshots; used by this manager only.
    pub dir: PathBuf,
    /// This manager.
    pub node_id: NodeId,
    /// Its cluster; files of another one are refused.
    pub cluster_id: ClusterId,
    /// Where the other managers reach this one.
    pub advertise: String,
    /// How long things may take.
    pub timing: Timing,
    /// Sizes of the log.
    pub log: LogSettings,
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// Bytes of commands after which a snapshot is made even if there are few entries: a plan for
    /// thousands of tasks is one.
    pub snapshot_bytes: u64,
    /// Entries kept behind a snapshot for followers that are a little late.
    pub keep_entries: u64,
    /// What log and snapshots are encrypted with; none writes them in the clear.
    pub keys: Option<Keyring>,
    /// Where log and snapshots are.
    pub disk: Arc<dyn Disk>,
    /// Where snapshots are written.
    pub background: Background,
    /// Who runs consensus.
    pub threads: Threads,
    /// The newest set of commands that is understood; smaller than the program's only in tests.
    pub(crate) commands: u8,
}

/// On which threads consensus runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// On its own, so that nothing else can delay heartbeats, and with a thread that writes the
    /// log.
    Own,
    /// On the caller's runtime, without any other thread: nothing but the program decides what
    /// happens next, which simulations need.
    Callers,
}

impl RaftConfig {
    /// The defaults for a manager.
    pub fn new(dir: PathBuf, cluster_id: ClusterId, node_id: NodeId, advertise: String) -> Self {
        Self {
            dir,
            node_id,
            cluster_id,
            advertise,
            timing: Timing::default(),
            log: LogSettings::default(),
            snapshot_every: 8_000,
            snapshot_bytes: 16 << 20,
            keep_entries: 4_000,
            keys: None,
            disk: Arc::new(OsDisk),
            background: Background::default(),
            threads: Threads::Own,
            commands: COMMANDS,
        }
    }
}

/// Periods and patience.
///
/// A follower lets the old leader's lease (`election_max`) pass and then waits
/// `election_min..election_max` more, so a new leader is there after about twice that.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The leader is heard at least this often.
    pub heartbeat: Duration,
    /// Shortest silence after which a follower stands for election.
    pub election_min: Duration,
    /// Longest such silence, and the length of a leader's lease.
    pub election_max: Duration,
    /// How long a proposal looks for a leader that takes it, in all.
    pub propose: Duration,
    /// How long the group may be without a leader, or a leader without its majority, before a
    /// call fails and says so.
    pub majority: Duration,
    /// How long a new manager may take to learn the log.
    pub learn: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(250),
            election_max: Duration::from_millis(400),
            propose: Duration::from_secs(10),
            majority: Duration::from_millis(2_500),
            learn: Duration::from_secs(30),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl RaftConfig {
    pub(crate) fn openraft(&self) -> Result<openraft::Config, openraft::ConfigError> {
        openraft::Config {
            cluster_name: self.cluster_id.to_string(),
            heartbeat_interval: millis(self.timing.heartbeat),
            election_timeout_min: millis(self.timing.election_min),
            election_timeout_max: millis(self.timing.election_max),
            // A manager that was merely slow asks first, instead of deposing a working leader.
            enable_pre_vote: Some(true),
            // A restarted leader stands for election like anyone: its state may be behind.
            enable_leader_restore: Some(false),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.keep_entries,
            purge_batch_size: (self.keep_entries / 4).max(1),
            replication_lag_threshold: 1_000,
            install_snapshot_timeout: 60_000,
            max_payload_entries: 512,
            api_channel_size: Some(8_192),
            backoff: "50ms 100ms ...500ms".to_owned(),
            ..openraft::Config::default()
        }
        .validate()
    }
}
