//! What managers say of certificates: which CAs count, how long certificates live, who was removed.
//!
//! The session takes it in; the renewal acts on it.

use std::collections::HashSet;
use std::sync::Arc;

use cluster_identity::TlsIdentity;
use cluster_pb::dispatcher::v1 as pb;
use tokio::sync::watch;

use crate::node::Balancers;

/// What the managers want of this node's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// PEM; the CA that signs first.
    pub cas: String,
    pub cert_validity_s: u64,
    /// A change of the CA waits for this node.
    pub confirm: bool,
}

/// Takes in what a session hears.
pub struct Trust {
    tls: TlsIdentity,
    balancers: Arc<dyn Balancers>,
    wanted: watch::Sender<Option<Wanted>>,
    removed: HashSet<String>,
}

impl Trust {
    pub fn new(tls: TlsIdentity, balancers: Arc<dyn Balancers>) -> Self {
        Self { tls, balancers, wanted: watch::Sender::new(None), removed: HashSet::new() }
    }

    /// Becomes what was heard last.
    pub fn wanted(&self) -> watch::Receiver<Option<Wanted>> {
        self.wanted.subscribe()
    }

    pub fn take(&mut self, heard: pb::Trust) {
        let removed: HashSet<String> = heard.revoked.into_iter().collect();
        self.tls.deny(removed.clone());
        for node in removed.difference(&self.removed) {
            tracing::info!(node_id = node, "a node was removed; its connections are cut");
            self.balancers.node_gone(node);
        }
        self.removed = removed;
        let pb::Trust { cas, cert_validity_s, confirm, .. } = heard;
        self.wanted.send_replace(Some(Wanted { cas, cert_validity_s, confirm }));
    }
}
