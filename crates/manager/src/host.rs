//! What a manager takes from its machine, so that a simulation can give it another one.

use std::sync::Arc;

use cluster_daemon::Background;
use cluster_identity::net::Net;
use tokio::runtime::Handle;

use crate::raft::RaftConfig;
use crate::raft::disk::{Disk, OsDisk};

/// Changes the settings of consensus before it starts.
pub type Adapt = Arc<dyn Fn(&mut RaftConfig) + Send + Sync>;

/// The machine under a manager. The default is the real one.
#[derive(Clone)]
pub struct Host {
    pub net: Net,
    /// Where the log and the snapshots are.
    pub disk: Arc<dyn Disk>,
    pub adapt: Option<Adapt>,
    /// Where users are served, plans are made and snapshots written: threads that step back for
    /// everything else. With none all of it shares the manager's own.
    pub users: Option<Handle>,
}

impl Default for Host {
    fn default() -> Self {
        Self { net: Net::default(), disk: Arc::new(OsDisk), adapt: None, users: None }
    }
}

impl Host {
    pub(crate) fn background(&self) -> Background {
        self.users.clone().map(Background::on).unwrap_or_default()
    }

    pub(crate) fn adapted(&self, mut config: RaftConfig) -> RaftConfig {
        config.disk = self.disk.clone();
        config.background = self.background();
        if let Some(adapt) = &self.adapt {
            adapt(&mut config);
        }
        config
    }
}
