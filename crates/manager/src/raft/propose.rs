//! Proposing commands, from any manager.
//!
//! *Flow:* if this manager leads, openraft takes the command; otherwise it goes to the leader over
//! the network. Proposals overlap freely: consensus batches whatever is in flight.
//! *Guarantees:* `Ok` means committed, applied by the leader and by this manager.
//! *On failure:* a leader that dies or is replaced before it answers is not the caller's problem:
//! the command goes to the next one, and `recent` tells which of the two counted. `NotCommitted`
//! means that nothing happened and nothing will; `Unknown` that it may have, or may yet.
//! *Assumes:* a command that is applied twice is refused the second time, or changes nothing: each
//! carries the id it makes, or the version it was made from.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cluster_model::{Command, NodeId, Refusal, Reply};
use cluster_pb::raft::v1 as pb;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader, RaftError};
use tokio::time::Instant;

use super::codec;
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
    /// A manager of the group runs an older program, which does not understand it. Nothing was done.
    #[error("not every manager understands this command yet: {reason}")]
    NotUnderstood {
        /// Which one.
        reason: String,
    },
    /// It does not encode.
    #[error("the command cannot be encoded")]
    Encode(#[source] codec::CodecError),
}

/// Why one attempt at one manager failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Ask the other one.
    NotLeader(Option<(NodeId, String)>),
    NotDone(String),
    /// A manager of the group runs a program that does not know the command.
    NotUnderstood(String),
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

pub(super) fn member(leader: pb::NotLeader) -> Failure {
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
        let body = codec::encode_command(command).map_err(ProposeError::Encode)?;
        if body.len() > COMMAND_LIMIT {
            return Err(ProposeError::TooLarge { size: body.len(), limit: COMMAND_LIMIT });
        }
        let since = self.view().applied_index;
        // Why a leader that may have taken the command did not answer.
        let doubt: Mutex<Option<String>> = Mutex::new(None);
        let sent = self
            .with_leader(patience, |leader| {
                let (body, doubt) = (body.clone(), &doubt);
                async move {
                    let tried = match leader {
                        None => self.propose_here(body, self.timing().majority).await,
                        Some((id, address)) => self.propose_there(id, &address, body).await,
                    };
                    tried.map_err(|failure| match failure {
                        Failure::Unknown(reason) => {
                            *doubt.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                            Failure::NotLeader(None)
                        }
                        certain => certain,
                    })
                }
            })
            .await;
        let doubt = doubt.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (index, response) = match (sent, doubt) {
            (Ok(applied), None) => {
                // The write is done either way; a manager that cannot follow is not the writer's
                // problem.
                let _ = self.wait_applied(applied.0, self.timing().majority).await;
                applied
            }
            (Ok(applied), Some(reason)) => self.first_fate(applied, since, &body, reason).await?,
            (Err(Failure::Unknown(reason)), _) | (Err(_), Some(reason)) => {
                return Err(ProposeError::Unknown { reason });
            }
            (Err(Failure::NotDone(reason)), None) => {
                return Err(ProposeError::NotCommitted { reason, leader: self.leader() });
            }
            (Err(Failure::NotUnderstood(reason)), None) => {
                return Err(ProposeError::NotUnderstood { reason });
            }
            (Err(Failure::NotLeader(leader)), None) => {
                let reason = "no manager leads".into();
                return Err(ProposeError::NotCommitted { reason, leader });
            }
        };
        match response.0 {
            Some(Ok(reply)) => Ok(Applied { index, reply }),
            Some(Err(refusal)) => Err(ProposeError::Refused(refusal)),
            None => Ok(Applied { index, reply: Reply::Done }),
        }
    }

    /// The answer to a command that was sent more than once: that of the first that was applied.
    async fn first_fate(
        &self,
        (index, response): (u64, Response),
        since: u64,
        body: &[u8],
        doubt: String,
    ) -> Result<(u64, Response), ProposeError> {
        let is_here = self.wait_applied(index, self.timing().majority).await;
        match self.recent().first(since, body).filter(|_| is_here) {
            Some(first) => Ok(first),
            // It was accepted, whatever became of the first.
            None if !matches!(response.0, Some(Err(_))) => Ok((index, response)),
            None => Err(ProposeError::Unknown { reason: doubt }),
        }
    }

    /// Waits until another manager leads, in a later term than the present one.
    async fn replaced(&self, leader: NodeId) {
        let mut leadership = self.leadership();
        let present = leadership.borrow().term;
        let gone = leadership.wait_for(|known| {
            known.term > present && known.leader.as_ref().is_some_and(|(id, _)| *id != leader)
        });
        if gone.await.is_err() {
            std::future::pending::<()>().await;
        }
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
        self.check_understood(&body).map_err(Failure::NotUnderstood)?;
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
        let mut client = self.leader_client(address)?;
        let asking = client.propose(pb::ProposeRequest { to: to.0, body, timeout_ms });
        let answer = tokio::select! {
            answer = tokio::time::timeout(patience + PAUSE * 4, asking) => answer.ok(),
            // A leader that lost power says nothing, for ever.
            () = self.replaced(to) => None,
        };
        let answer = match answer {
            Some(Ok(answer)) => answer.into_inner().outcome,
            Some(Err(status)) => return Err(call_failure(&status)),
            None => {
                self.peers().give_up(address, Lane::Forwarded);
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
            Some(Outcome::NotUnderstood(not)) => Err(Failure::NotUnderstood(not.reason)),
            Some(Outcome::Unknown(unknown)) => Err(Failure::Unknown(unknown.reason)),
            None => Err(Failure::Unknown("the leader's answer is empty".into())),
        }
    }
}
