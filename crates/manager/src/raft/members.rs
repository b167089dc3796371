//! Who the managers are: adding, removing, listing.
//!
//! A new manager first learns the log and only then votes, so that adding one never costs the
//! group its majority. All steps are safe to repeat.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_model::NodeId;
use cluster_pb::raft::v1 as pb;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use tokio::time::Instant;

use super::node::RaftNode;
use super::propose::{Failure, call_failure};
use super::types::{Node, Types};

/// Pause while another change of the members is under way.
const PAUSE: Duration = Duration::from_millis(100);

/// A manager of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Where the others reach it.
    pub address: String,
    /// It votes; otherwise it is still learning.
    pub voter: bool,
    /// Last log index it is known to hold; only the leader knows, and of itself always.
    pub matched: Option<u64>,
}

/// Why the managers were not changed.
#[derive(Debug, thiserror::Error)]
pub enum MembersError {
    /// Nothing was done.
    #[error("the managers were not changed: {reason}")]
    NotDone {
        /// What stood in the way.
        reason: String,
    },
    /// It may have been done; safe to repeat.
    #[error("it is unknown whether the managers were changed: {reason}")]
    Unknown {
        /// Why there is no answer.
        reason: String,
    },
}

impl From<Failure> for MembersError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotLeader(_) => Self::NotDone { reason: "no manager leads".into() },
            Failure::NotDone(reason) | Failure::NotUnderstood(reason) => Self::NotDone { reason },
            Failure::Unknown(reason) => Self::Unknown { reason },
        }
    }
}

pub(super) type Change = ChangeMembers<u64, Node>;

impl RaftNode {
    /// The managers, in the order of their ids.
    pub fn members(&self) -> Vec<Member> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let matched = |id: &u64| {
            if *id == metrics.id {
                return metrics.last_log_index;
            }
            Some(metrics.replication.as_ref()?.get(id)?.as_ref()?.index)
        };
        let nodes = metrics.membership_config.nodes();
        nodes
            .map(|(id, node)| Member {
                id: NodeId(*id),
                address: node.addr.clone(),
                voter: voters.contains(id),
                matched: matched(id),
            })
            .collect()
    }

    /// Makes a running manager a voter, or a learner only; also tells the group a member's new
    /// address.
    pub async fn add_manager(
        &self,
        id: NodeId,
        address: &str,
        learner: bool,
    ) -> Result<u64, MembersError> {
        let changed = self
            .with_leader(self.timing().majority, |leader| async move {
                let Some((to, at)) = leader else {
                    return self.add_manager_here(id, address, learner).await;
                };
                let member = pb::Member { id: id.0, address: address.to_owned() };
                let request = pb::AddManagerRequest { to: to.0, member: Some(member), learner };
                let mut client = self.leader_client(&at)?;
                self.change_there(client.add_manager(request)).await
            })
            .await;
        Ok(changed?)
    }

    /// Takes a manager out of the group. One that leads hands over first.
    pub async fn remove_manager(&self, id: NodeId) -> Result<u64, MembersError> {
        let changed = self
            .with_leader(self.timing().majority, |leader| async move {
                let Some((to, at)) = leader else { return self.remove_manager_here(id).await };
                let request = pb::RemoveManagerRequest { to: to.0, id: id.0 };
                let mut client = self.leader_client(&at)?;
                self.change_there(client.remove_manager(request)).await
            })
            .await;
        Ok(changed?)
    }

    /// Asks another voter to take over, if this manager leads.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), MembersError> {
        let asked = self.raft().trigger().transfer_leader(to.0).await;
        asked.map_err(|error| MembersError::NotDone { reason: error.to_string() })
    }

    async fn change_there(
        &self,
        asking: impl Future<Output = Result<tonic::Response<pb::ChangeManagersResponse>, tonic::Status>>,
    ) -> Result<u64, Failure> {
        use pb::change_managers_response::Outcome;
        let patience = self.timing().learn + self.timing().propose;
        let answer = match tokio::time::timeout(patience, asking).await {
            Ok(Ok(answer)) => answer.into_inner().outcome,
            Ok(Err(status)) => return Err(call_failure(&status)),
            Err(_) => return Err(Failure::Unknown("the leader did not answer in time".into())),
        };
        match answer {
            Some(Outcome::Index(index)) => Ok(index),
            Some(Outcome::NotLeader(not)) => Err(Failure::NotLeader(
                not.leader.map(|leader| (NodeId(leader.id), leader.address)),
            )),
            Some(Outcome::NotDone(not)) => Err(Failure::NotDone(not.reason)),
            Some(Outcome::Unknown(unknown)) => Err(Failure::Unknown(unknown.reason)),
            None => Err(Failure::Unknown("the leader's answer is empty".into())),
        }
    }

    /// Adds a manager as the leader.
    pub(crate) async fn add_manager_here(
        &self,
        id: NodeId,
        address: &str,
        learner: bool,
    ) -> Result<u64, Failure> {
        let known = self.members().into_iter().find(|member| member.id == id);
        if let Some(member) = &known
            && member.address != address
        {
            let nodes = BTreeMap::from([(id.0, Node::new(address))]);
            self.change(ChangeMembers::SetNodes(nodes), false, self.timing().propose).await?;
        }
        if known.is_some_and(|member| member.voter) {
            return Ok(self.view().applied_index);
        }
        self.teach(id, address).await?;
        if let Err(reason) = self.check_newcomer(id) {
            // It stays no member, not even one that only listens.
            let forget = ChangeMembers::RemoveNodes(BTreeSet::from([id.0]));
            let _ = self.change(forget, false, self.timing().majority).await;
            return Err(Failure::NotDone(reason));
        }
        if learner {
            return Ok(self.view().applied_index);
        }
        let add = ChangeMembers::AddVoterIds(BTreeSet::from([id.0]));
        self.change(add, false, self.timing().propose).await
    }

    /// Makes a manager a learner and waits until it holds the log as it was then. openraft's own
    /// wait counts a manager that never answered as close enough while the log is short.
    async fn teach(&self, id: NodeId, address: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + self.timing().learn;
        let upto = loop {
            let learning = self.raft().add_learner(id.0, Node::new(address), false);
            let error = match tokio::time::timeout_at(deadline, learning).await {
                Ok(Ok(added)) => break added.log_id.index,
                Ok(Err(error)) => error,
                Err(_) => {
                    return Err(Failure::Unknown(
                        "no majority of the managers confirmed it".into(),
                    ));
                }
            };
            match change_failure(error) {
                Some(failure) => return Err(failure),
                None if Instant::now() >= deadline => return Err(busy()),
                None => tokio::time::sleep(PAUSE).await,
            }
        };
        let mut metrics = self.raft().metrics();
        while Instant::now() < deadline {
            let learnt = {
                let now = metrics.borrow_watched();
                // Losing the lead ends the wait: whoever leads now is asked again.
                let Some(replication) = &now.replication else {
                    return Err(Failure::NotLeader(self.leader()));
                };
                let matched = replication.get(&id.0).and_then(Option::as_ref);
                matched.is_some_and(|matched| matched.index >= upto)
            };
            if learnt {
                return Ok(());
            }
            if let Ok(Err(_)) = tokio::time::timeout_at(deadline, metrics.changed()).await {
                return Err(Failure::NotDone("consensus of this manager has stopped".into()));
            }
        }
        // Left behind it would only be one more to send to in vain.
        let forget = ChangeMembers::RemoveNodes(BTreeSet::from([id.0]));
        let forgotten = self.change(forget, false, self.timing().majority).await;
        let cleanup = if forgotten.is_ok() { "" } else { "; it stays as a learner for now" };
        Err(Failure::NotDone(format!(
            "manager {id} at {address} did not take over the log in time{cleanup}"
        )))
    }

    /// Removes a manager as the leader.
    pub(crate) async fn remove_manager_here(&self, id: NodeId) -> Result<u64, Failure> {
        let members = self.members();
        let Some(member) = members.iter().find(|member| member.id == id) else {
            return Ok(self.view().applied_index);
        };
        let others = members.iter().filter(|other| other.voter && other.id != id).count();
        if others == 0 {
            return Err(Failure::NotDone(format!(
                "manager {id} is the last one; a cluster needs a manager"
            )));
        }
        let ids = BTreeSet::from([id.0]);
        let change = if member.voter {
            ChangeMembers::RemoveVoters(ids)
        } else {
            ChangeMembers::RemoveNodes(ids)
        };
        self.change(change, false, self.timing().propose).await
    }

    /// Commits one change, waiting for others under way. With `retain`, who no longer votes goes on
    /// learning.
    pub(super) async fn change(
        &self,
        change: Change,
        retain: bool,
        patience: Duration,
    ) -> Result<u64, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            let changing = self.raft().change_membership(change.clone(), retain);
            let error = match tokio::time::timeout_at(deadline, changing).await {
                Ok(Ok(done)) => return Ok(done.log_id.index),
                Ok(Err(error)) => error,
                Err(_) => {
                    return Err(Failure::Unknown(
                        "no majority of the managers confirmed the change in time".into(),
                    ));
                }
            };
            match change_failure(error) {
                Some(failure) => return Err(failure),
                None if Instant::now() >= deadline => return Err(busy()),
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

fn busy() -> Failure {
    Failure::NotDone("another change of the managers is under way; try again".into())
}

/// `None` means: try again in a moment.
fn change_failure(error: RaftError<Types, ClientWriteError<Types>>) -> Option<Failure> {
    Some(match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => forward.into(),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
        )) => return None,
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            Failure::Unknown("the leader was replaced meanwhile".into())
        }
        RaftError::APIError(other) => Failure::NotDone(other.to_string()),
        RaftError::Fatal(fatal) => Failure::Unknown(format!("the leader has stopped: {fatal}")),
    })
}
