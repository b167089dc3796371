//! The one place that names openraft's generics, and the conversions between its positions and
//! those of our log.
//!
//! Everything else of the manager sees plain numbers and `RaftNode`.

use std::fmt;

use bytes::Bytes;
use cluster_model::{Refusal, Reply};
use serde::{Deserialize, Serialize};

use super::log::{Ballot, Position};

openraft::declare_raft_types!(
    /// How our group is typed: one leader a term, commands as encoded bytes.
    pub Types:
        D = Proposal,
        R = Response,
        NodeId = u64,
        Node = openraft::impls::BasicNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        Vote = openraft::impls::Vote<Self::LeaderId>,
        Payload = openraft::EntryPayload<Self::D, Self::NodeId, Self::Node>,
        Entry = openraft::impls::Entry<
            <Self::LeaderId as openraft::vote::RaftLeaderId>::Committed,
            Self::Payload,
        >,
);

pub(crate) type Raft = openraft::Raft<Types, super::machine::Machine>;
pub(crate) type Node = openraft::impls::BasicNode;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
pub(crate) type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type Payload = openraft::type_config::alias::PayloadOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, Node>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot =
    openraft::type_config::alias::SnapshotOf<Types, super::snapshot::SnapshotFile>;
pub(crate) type Metrics = openraft::RaftMetrics<Types>;
pub(crate) type StreamAppendResult = openraft::raft::StreamAppendResult<Types>;

/// A command as it travels and is stored: encoded once by whoever proposes it, decoded once by
/// each manager that applies it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal(#[serde(with = "raw")] pub(crate) Bytes);

/// Bytes as one byte string, not as a list of numbers.
mod raw {
    use std::fmt;

    use bytes::Bytes;
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        struct Raw;
        impl Visitor<'_> for Raw {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes::copy_from_slice(bytes))
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(bytes.into())
            }
        }
        from.deserialize_byte_buf(Raw)
    }
}

// Commands hold secrets, and logs of consensus print what they carry.
impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What `apply` answered; nothing for entries that carry no command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response(pub(crate) Option<Result<Reply, Refusal>>);

pub(crate) fn position(id: LogId) -> Position {
    Position { term: id.leader_id.term, index: id.index }
}

pub(crate) fn log_id(at: Position) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(at.term), index: at.index }
}

pub(crate) fn ballot(vote: &Vote) -> Ballot {
    Ballot { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn vote(ballot: Ballot) -> Vote {
    let leader_id = LeaderId { term: ballot.term, voted_for: ballot.node };
    Vote { leader_id, committed: ballot.committed }
}
