//! Reading linearizably, from any manager: the leader tells an index that is safe to read at, and
//! the read waits until that is applied here.

use std::time::Duration;

use cluster_model::NodeId;
use cluster_pb::raft::v1 as pb;
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};

use super::machine::View;
use super::node::RaftNode;
use super::peers::Lane;
use super::propose::{Failure, member};

/// Why a linearizable read did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read: {reason}")]
pub struct ReadError {
    /// What stood in the way.
    pub reason: String,
    /// Who leads, as far as is known.
    pub leader: Option<(NodeId, String)>,
}

impl RaftNode {
    /// A view that shows every write acknowledged anywhere before the call.
    pub async fn read_index(&self) -> Result<View, ReadError> {
        let asked = self
            .with_leader(self.timing().majority, |leader| async move {
                match leader {
                    None => self.read_index_here(self.timing().majority).await,
                    Some((id, address)) => self.read_index_there(id, &address).await,
                }
            })
            .await;
        let index = match asked {
            Ok(index) => index,
            Err(
                Failure::NotDone(reason)
                | Failure::NotUnderstood(reason)
                | Failure::Unknown(reason),
            ) => {
                return Err(ReadError { reason, leader: self.leader() });
            }
            Err(Failure::NotLeader(leader)) => {
                return Err(ReadError { reason: "no manager leads".into(), leader });
            }
        };
        if !self.wait_applied(index, self.timing().majority).await {
            let reason = format!("this manager is behind: it has not applied index {index} yet");
            return Err(ReadError { reason, leader: self.leader() });
        }
        Ok(self.view())
    }

    /// An index that is safe to read at, as the leader.
    pub(crate) async fn read_index_here(&self, patience: Duration) -> Result<u64, Failure> {
        let asking = self.raft().get_read_log_id(ReadPolicy::ReadIndex);
        match tokio::time::timeout(patience.min(self.timing().majority), asking).await {
            Ok(Ok((read, _))) => Ok(read.index()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(forward.into())
            }
            // Others may have elected a new leader meanwhile: worth another look.
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) => {
                Err(Failure::NotLeader(None))
            }
            Ok(Err(RaftError::Fatal(fatal))) => {
                Err(Failure::NotDone(format!("the leader has stopped: {fatal}")))
            }
            Err(_) => {
                Err(Failure::NotDone("no majority of the managers answered the leader".into()))
            }
        }
    }

    async fn read_index_there(&self, to: NodeId, address: &str) -> Result<u64, Failure> {
        use pb::read_index_response::Outcome;
        let patience = self.timing().majority;
        let timeout_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let mut client = self.leader_client(address)?;
        let asking = client.read_index(pb::ReadIndexRequest { to: to.0, timeout_ms });
        // Reading twice does no harm, so silence is answered by asking again.
        match tokio::time::timeout(self.timing().election_max * 2, asking).await {
            Ok(Ok(answer)) => match answer.into_inner().outcome {
                Some(Outcome::Index(index)) => Ok(index),
                Some(Outcome::NotLeader(leader)) => Err(member(leader)),
                Some(Outcome::NotDone(not)) => Err(Failure::NotDone(not.reason)),
                None => Err(Failure::NotDone("the leader's answer is empty".into())),
            },
            Ok(Err(_)) => Err(Failure::NotLeader(None)),
            Err(_) => {
                self.peers().give_up(address, Lane::Forwarded);
                Err(Failure::NotLeader(None))
            }
        }
    }
}
