//! openraft's own suite for storage, on our log and machine with real files.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use cluster_daemon::Background;
use cluster_model::command::COMMANDS;

use crate::raft::config::Threads;
use crate::raft::disk::{Disk, OsDisk};
use crate::raft::log::{Log, LogSettings, Owner};
use crate::raft::machine::{Machine, Published};
use crate::raft::snapshot::SnapshotStore;
use crate::raft::storage::LogStore;
use crate::raft::types::Types;

struct OnDisk;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<Types>> {
        let dir = TempDir::new().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let snapshots =
            SnapshotStore::open(disk.clone(), &dir.path().join("snapshots"), 1).unwrap();
        let machine =
            Machine::open(snapshots, Published::new(), COMMANDS, Background::default()).unwrap();
        let owner = Owner { cluster_id: 1, node_id: 1 };
        let settings = LogSettings { segment_bytes: 8192, cache_bytes: 2048 };
        let (log, _thread) =
            Log::open(disk, &dir.path().join("log"), owner, settings, Threads::Own).unwrap();
        Ok((dir, LogStore(log), machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_openrafts_contract() {
    Suite::test_all(OnDisk).await.unwrap();
}
