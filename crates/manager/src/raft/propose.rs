//! Proposing commands and reading linearizably, from any manager.
//!
//! *Flow:* if this manager leads, openraft takes the command; otherwise it goes to the leader over
//! the network. Proposals overlap freely: consensus batches whatever is in flight.
//! *Guarantees:* `Ok` means committed, applied by the leader and by this manager.
//! *On failure:* `NotCommitted` means that nothing happened and nothing will; `Unknown` that it
//! may have, or may yet.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use cluster_model::{Command, NodeId, Refusal, Reply};
use cluster_pb::raft::v1 as pb;
use openraft::ReadPolicy;
use openraft::errors::{
    ClientWriteError, ForwardReason, ForwardToLeader, LinearizableReadError, RaftError,
};
use tokio::time::Instant;

use super::codec;
use super::machine::View;
use super::node::RaftNode;
use super::peers::Lane;
use super::types::{Proposal, Response, Types};

/// Largest encoded command.
pub const COMMAND_LIMIT: usize = 8 << 20;
/// Pause before asking again who leads.
const PAUSE: Duration = Duration::from_millis(25);

/// A command that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its log index.
    pub index: u64,
    /// What apply answered.
    pub reply: Reply,
}

/// Why a proposal did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// Apply refused it: it is in the log, and changed nothing.
    #[error("{0}")]
    Refused(Refusal),
    /// It was not appended, or not kept.
    #[error("the command was not committed: {reason}")]
    NotCommitted {
        /// What stood in the way.
        reason: String,
        /// Who leads, as far as is known.
        leader: Option<(NodeId, String)>,
    },
    /// It was sent, and no answer came.
    #[error("it is unknown whether the command was committed: {reason}")]
    Unknown {
        /// Why there is no answer.
        reason: String,
    },
    /// It is larger than any command may be.
    #[error("the command takes {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Its encoded size.
        size: usize,
        /// The bound.
        limit: usize,
    },
    /// It does not encode.
    #[error("the command cannot be encoded")]
    Encode(#[source] codec::CodecError),
}

/// Why a linearizable read did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read: {reason}")]
pub struct ReadError {
    /// What stood in the way.
    pub reason: String,
    /// Who leads, as far as is known.
    pub leader: Option<(NodeId, String)>,
}

/// Why one attempt at one manager failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Ask the other one.
    NotLeader(Option<(NodeId, String)>),
    NotDone(String),
    Unknown(String),
}

impl From<ForwardToLeader<Types>> for Failure {
    fn from(forward: ForwardToLeader<Types>) -> Self {
        match forward.reason {
            // It leads no more, and does not know who does.
            ForwardReason::LeaseExpired => Self::NotLeader(None),
            ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => Self::NotLeader(
                forward
                    .leader_id
                    .zip(forward.leader_node)
                    .map(|(id, node)| (NodeId(id), node.addr)),
            ),
        }
    }
}

/// A failed call: whether the request can have reached the other side.
pub(crate) fn call_failure(status: &tonic::Status) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return Failure::NotLeader(None);
        }
        cause = error.source();
    }
    match status.code() {
        // Refused before it was looked at: the address serves another manager now.
        tonic::Code::FailedPrecondition
        | tonic::Code::Unauthenticated
        | tonic::Code::PermissionDenied => Failure::NotLeader(None),
        _ => Failure::Unknown(format!("the leader did not answer: {}", status.message())),
    }
}

fn member(leader: pb::NotLeader) -> Failure {
    Failure::NotLeader(leader.leader.map(|leader| (NodeId(leader.id), leader.address)))
}

impl RaftNode {
    /// Proposes a command and waits until it is applied here.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        self.propose_within(&command, self.timing().propose).await
    }

    /// As `propose`, looking for a leader no longer than `patience`.
    pub async fn propose_within(
        &self,
        command: &Command,
        patience: Duration,
    ) -> Result<Applied, ProposeError> {
        let body = codec::encode(command).map_err(ProposeError::Encode)?;
        if body.len() > COMMAND_LIMIT {
            return Err(ProposeError::TooLarge { size: body.len(), limit: COMMAND_LIMIT });
        }
        let sent = self
            .with_leader(patience, |leader| {
                let body = body.clone();
                async move {
                    match leader {
                        None => self.propose_here(body, self.timing().majority).await,
                        Some((id, address)) => self.propose_there(id, &address, body).await,
                    }
                }
            })
            .await;
        let (index, response) = match sent {
            Ok(applied) => applied,
            Err(Failure::NotDone(reason)) => {
                return Err(ProposeError::NotCommitted { reason, leader: self.leader() });
            }
            Err(Failure::NotLeader(leader)) => {
                return Err(ProposeError::NotCommitted {
                    reason: "no manager leads".into(),
                    leader,
                });
            }
            Err(Failure::Unknown(reason)) => return Err(ProposeError::Unknown { reason }),
        };
        // The write is done either way; a manager that cannot follow is not the writer's problem.
        let _ = self.wait_applied(index, self.timing().majority).await;
        match response.0 {
            Some(Ok(reply)) => Ok(Applied { index, reply }),
            Some(Err(refusal)) => Err(ProposeError::Refused(refusal)),
            None => Ok(Applied { index, reply: Reply::Done }),
        }
    }

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
            Err(Failure::NotDone(reason) | Failure::Unknown(reason)) => {
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

    /// Runs `attempt` against the leader, `None` meaning this manager, until one takes it or
    /// patience or the group's majority is gone.
    pub(crate) async fn with_leader<T, F>(
        &self,
        patience: Duration,
        mut attempt: impl FnMut(Option<(NodeId, String)>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let start = Instant::now();
        let patience = patience.min(self.timing().majority);
        let mut hint = None;
        loop {
            if let Some(reason) = self.fatal().borrow().clone() {
                return Err(Failure::NotDone(format!("this manager has stopped: {reason}")));
            }
            let leader = hint.take().or_else(|| self.leader());
            let failure = match &leader {
                Some((id, _)) if *id == self.id() => attempt(None).await,
                Some(leader) => attempt(Some(leader.clone())).await,
                None => Err(Failure::NotLeader(None)),
            };
            match failure {
                Err(Failure::NotLeader(other)) => {
                    // A hint is followed at once unless it leads back to whom we asked.
                    let follow = other.is_some() && other != leader;
                    if start.elapsed() >= patience {
                        let reason = match leader {
                            None => {
                                "no leader: no majority of the managers can be reached".to_owned()
                            }
                            Some((id, address)) => format!(
                                "manager {id} at {address} led last and does not lead or answer now: \
                                 no majority of the managers can be reached"
                            ),
                        };
                        return Err(Failure::NotDone(reason));
                    }
                    if follow {
                        hint = other;
                    } else {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                done => return done,
            }
        }
    }

    /// Proposes as the leader.
    pub(crate) async fn propose_here(
        &self,
        body: Bytes,
        patience: Duration,
    ) -> Result<(u64, Response), Failure> {
        let writing = self.raft().client_write(Proposal(body));
        match tokio::time::timeout(patience.min(self.timing().majority), writing).await {
            Ok(Ok(done)) => Ok((done.log_id.index, done.data)),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(forward.into())
            }
            Ok(Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)))) => Err(
                Failure::Unknown("the leader was replaced before the command was committed".into()),
            ),
            Ok(Err(RaftError::APIError(other))) => Err(Failure::NotDone(other.to_string())),
            Ok(Err(RaftError::Fatal(fatal))) => {
                Err(Failure::Unknown(format!("the leader has stopped: {fatal}")))
            }
            Err(_) => {
                Err(Failure::Unknown("no majority of the managers confirmed it in time".into()))
            }
        }
    }

    async fn propose_there(
        &self,
        to: NodeId,
        address: &str,
        body: Bytes,
    ) -> Result<(u64, Response), Failure> {
        use pb::propose_response::Outcome;
        let patience = self.timing().majority;
        let timeout_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let mut client = self.urgent_client(address)?;
        let asking = client.propose(pb::ProposeRequest { to: to.0, body, timeout_ms });
        let answer = match tokio::time::timeout(patience + PAUSE * 4, asking).await {
            Ok(Ok(answer)) => answer.into_inner().outcome,
            Ok(Err(status)) => return Err(call_failure(&status)),
            Err(_) => {
                self.peers().give_up(address, Lane::Urgent);
                return Err(Failure::Unknown("the leader did not answer in time".into()));
            }
        };
        match answer {
            Some(Outcome::Applied(applied)) => {
                let response = codec::decode(&applied.body).map_err(|error| {
                    Failure::Unknown(format!("cannot read the leader's answer: {error}"))
                })?;
                Ok((applied.index, response))
            }
            Some(Outcome::NotLeader(leader)) => Err(member(leader)),
            Some(Outcome::NotDone(not)) => Err(Failure::NotDone(not.reason)),
            Some(Outcome::Unknown(unknown)) => Err(Failure::Unknown(unknown.reason)),
            None => Err(Failure::Unknown("the leader's answer is empty".into())),
        }
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
        let mut client = self.urgent_client(address)?;
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
                self.peers().give_up(address, Lane::Urgent);
                Err(Failure::NotLeader(None))
            }
        }
    }
}
