//! Connections to the other managers: made by the injected connector, kept per address and lane,
//! given up when they stop answering.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster_pb::raft::v1::raft_client::RaftClient;
use tokio::runtime::Handle;
use tonic::transport::Channel;

/// Makes a channel to a manager's address. It must not block: a channel that connects when first
/// used is right. TLS and the check of who answers are its business.
pub type Connector = Arc<dyn Fn(&str) -> Result<Channel, ConnectorError> + Send + Sync>;

/// Why a connector refused.
pub type ConnectorError = Box<dyn Error + Send + Sync>;

/// Largest message between managers: a page of entries, or one large command.
pub(crate) const MESSAGE_LIMIT: usize = 32 << 20;
/// Calls in a row that may go unanswered before a connection is given up.
const PATIENCE: u32 = 8;

/// Traffic that must not wait for other traffic has a connection of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Heartbeats and votes.
    Urgent,
    /// What others ask the leader for through this manager. There may be much of it, and who gives it
    /// up must not give up the votes.
    Forwarded,
    /// Entries and snapshots.
    Bulk,
}

struct Link {
    channel: Channel,
    unanswered: u32,
}

/// The connections; clones share them.
#[derive(Clone)]
pub(crate) struct Peers {
    connector: Connector,
    /// Whose threads the connections live on, whoever asks for them first: a user's request comes on
    /// threads that step back for others.
    runtime: Handle,
    links: Arc<Mutex<BTreeMap<(String, Lane), Link>>>,
}

impl Peers {
    pub(crate) fn new(connector: Connector, runtime: Handle) -> Self {
        Self { connector, runtime, links: Arc::default() }
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<(String, Lane), Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client for the manager at `address`.
    pub(crate) fn client(
        &self,
        address: &str,
        lane: Lane,
    ) -> Result<RaftClient<Channel>, ConnectorError> {
        let key = (address.to_owned(), lane);
        let mut links = self.links();
        let channel = match links.get(&key) {
            Some(link) => link.channel.clone(),
            None => {
                let _there = self.runtime.enter();
                let channel = (self.connector)(address)?;
                links.insert(key, Link { channel: channel.clone(), unanswered: 0 });
                channel
            }
        };
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT))
    }

    /// Gives a connection up: the next call makes a new one. A cut network leaves connections
    /// that look alive for minutes.
    pub(crate) fn give_up(&self, address: &str, lane: Lane) {
        self.links().remove(&(address.to_owned(), lane));
    }

    /// Watches one call; unless it is told that an answer came, it counts as unanswered, also
    /// when its caller just stopped waiting.
    pub(crate) fn watch(&self, address: &str, lane: Lane) -> Watched {
        Watched { peers: self.clone(), key: Some((address.to_owned(), lane)) }
    }
}

pub(crate) struct Watched {
    peers: Peers,
    key: Option<(String, Lane)>,
}

impl Watched {
    pub(crate) fn answered(mut self) {
        if let Some(key) = self.key.take()
            && let Some(link) = self.peers.links().get_mut(&key)
        {
            link.unanswered = 0;
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut links = self.peers.links();
        if let Some(link) = links.get_mut(&key) {
            link.unanswered += 1;
            if link.unanswered >= PATIENCE {
                links.remove(&key);
            }
        }
    }
}
