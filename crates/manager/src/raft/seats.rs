//! The leader's knowledge of the other managers, the changes of their votes, and handing over.
//!
//! What is safe is decided elsewhere (`cluster_planner::managers`); nothing here asks again.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_model::NodeId;
use openraft::async_runtime::WatchReceiver as _;
use openraft::{ChangeMembers, Instant as _};

use super::members::{Member, MembersError};
use super::node::RaftNode;

/// A follower that lacks more would keep the group without a leader while it catches up.
const HAND_OVER_LAG: u64 = 10_000;

/// A manager as the leader knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Who and where, and what it holds.
    pub member: Member,
    /// How long ago it last answered; `None` when it has not since this manager leads.
    pub silent: Option<Duration>,
    /// Entries it does not hold yet, as far as is known.
    pub lag: u64,
}

impl RaftNode {
    /// Everyone's seat, in the order of their ids; `None` unless this manager leads.
    pub fn seats(&self) -> Option<Vec<Seat>> {
        let members = self.members();
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let heard = metrics.heartbeat.as_ref()?;
        let last = metrics.last_log_index.unwrap_or(0);
        let seat = |member: Member| {
            let silent = match member.id.0 == metrics.id {
                true => Some(Duration::ZERO),
                false => heard.get(&member.id.0).and_then(Option::as_ref).map(|at| at.elapsed()),
            };
            let lag = last.saturating_sub(member.matched.unwrap_or(0));
            Seat { member, silent, lag }
        };
        Some(members.into_iter().map(seat).collect())
    }

    /// Lets a learner vote, as the leader.
    pub async fn promote_here(&self, id: NodeId) -> Result<u64, MembersError> {
        self.check_newcomer(id).map_err(|reason| MembersError::NotDone { reason })?;
        let add = ChangeMembers::AddVoterIds(BTreeSet::from([id.0]));
        Ok(self.change(add, false, self.timing().propose).await?)
    }

    /// Takes a voter's vote, as the leader; it goes on learning.
    pub async fn demote_here(&self, id: NodeId) -> Result<u64, MembersError> {
        let remove = ChangeMembers::RemoveVoters(BTreeSet::from([id.0]));
        Ok(self.change(remove, true, self.timing().propose).await?)
    }

    /// Gives one manager's vote to another in one step, as the leader.
    pub async fn swap_here(&self, promote: NodeId, demote: NodeId) -> Result<u64, MembersError> {
        self.check_newcomer(promote).map_err(|reason| MembersError::NotDone { reason })?;
        let voters = self.members().into_iter().filter(|member| member.voter);
        let mut after: BTreeSet<u64> = voters.map(|member| member.id.0).collect();
        after.remove(&demote.0);
        after.insert(promote.0);
        let replace = ChangeMembers::ReplaceAllVoters(after);
        Ok(self.change(replace, true, self.timing().propose).await?)
    }

    /// Lets the voter that holds most lead instead of this manager, and waits until it does; `None`
    /// when this manager does not lead, or nobody could take over in time. Writes go on: those
    /// under way are answered, later ones go to the new leader.
    pub async fn hand_over(&self) -> Option<NodeId> {
        let heard_within = self.timing().election_max * 2;
        let fit = |seat: &Seat| {
            seat.member.voter
                && seat.member.id != self.id()
                && seat.lag <= HAND_OVER_LAG
                && seat.silent.is_some_and(|silent| silent <= heard_within)
        };
        let mut seats = self.seats()?;
        seats.retain(fit);
        seats.sort_by_key(|seat| (seat.lag, seat.silent));
        for seat in seats {
            let to = seat.member.id;
            if self.transfer_leadership(to).await.is_err() {
                return None;
            }
            if let Some(leader) = self.led_by_another().await {
                return Some(leader);
            }
        }
        None
    }

    /// Waits until another manager leads, no longer than an election may take.
    async fn led_by_another(&self) -> Option<NodeId> {
        let mut metrics = self.raft().metrics();
        let waiting = async {
            loop {
                let leader = metrics.borrow_watched().current_leader.map(NodeId);
                if let Some(leader) = leader.filter(|leader| *leader != self.id()) {
                    return Some(leader);
                }
                metrics.changed().await.ok()?;
            }
        };
        tokio::time::timeout(self.timing().majority, waiting).await.ok().flatten()
    }
}
