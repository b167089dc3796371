//! The gRPC services. Every handler does the same five steps: decode, authorize, admit, propose or
//! read, encode. Authorization by role has happened before (`access`); forwarding to the leader
//! happens below (`raft`), so handlers are the same on every manager.

pub mod ca;
pub mod control;
pub mod lookup;
pub mod peer;

use cluster_identity::{Peer, PeerInfo};
use cluster_model::NodeId;
use cluster_wire::{Code, Failure};
use tonic::Request;

/// Largest request a manager reads. A service spec is far smaller; a report batch is bounded.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Who calls.
fn peer_of<T>(request: &Request<T>) -> Result<Peer, Failure> {
    request
        .extensions()
        .get::<PeerInfo>()
        .and_then(|info| info.peer.clone())
        .ok_or_else(|| Failure::new(Code::NoCertificate, "this call needs a client certificate"))
}

/// The node that calls.
pub(crate) fn node_of<T>(request: &Request<T>) -> Result<NodeId, Failure> {
    let peer = peer_of(request)?;
    peer.node_id.parse().map_err(|_| {
        Failure::new(Code::NoCertificate, "the certificate's common name is not a node id")
    })
}
