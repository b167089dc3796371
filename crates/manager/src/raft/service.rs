//! The server side of the protocol, to be added to the manager's gRPC server.
//!
//! Decodes, hands to openraft or `RaftNode`, encodes. The caller's role was checked before.

use std::pin::Pin;
use std::time::Duration;

use cluster_model::NodeId;
use cluster_pb::raft::v1 as pb;
use futures::{Stream, StreamExt};
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use tonic::{Request, Response, Status, Streaming};

use super::codec::{self, CodecError};
use super::error::StorageError;
use super::node::RaftNode;
use super::propose::Failure;
use super::types::{Snapshot, SnapshotMeta, Types, Vote};

/// Largest snapshot that is received.
const SNAPSHOT_LIMIT: u64 = 16 << 30;

/// Serves the other managers.
#[derive(Clone)]
pub struct RaftService {
    node: RaftNode,
}

impl RaftService {
    pub(crate) fn new(node: RaftNode) -> Self {
        Self { node }
    }

    /// An address may have changed hands; what is meant for another manager is refused.
    fn check_target(&self, to: u64) -> Result<(), Status> {
        check_target(self.node.id(), to)
    }
}

fn check_target(me: NodeId, to: u64) -> Result<(), Status> {
    if to == me.0 {
        return Ok(());
    }
    Err(Status::failed_precondition(format!("this is manager {me}, not {}", NodeId(to))))
}

fn malformed(error: CodecError) -> Status {
    let fix = match error {
        CodecError::Newer(_) => "; this manager runs an older program: upgrade it",
        _ => "",
    };
    Status::invalid_argument(format!("cannot read the message of a manager: {error}{fix}"))
}

fn unencodable(error: CodecError) -> Status {
    Status::internal(format!("cannot answer a manager: {error}"))
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("consensus of this manager has stopped: {error}"))
}

type Answers = Pin<Box<dyn Stream<Item = Result<pb::AppendResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::raft_server::Raft for RaftService {
    type AppendStream = Answers;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let me = self.node.id();
        let requests = request.into_inner().scan((), move |(), message| {
            let decoded = message.and_then(|message| {
                check_target(me, message.to)?;
                codec::decode::<AppendEntriesRequest<Types>>(&message.body).map_err(malformed)
            });
            // The sender sees the stream end; it starts over.
            let usable = decoded
                .inspect_err(|status| tracing::debug!(error = %status, "an append stream ended"))
                .ok();
            std::future::ready(usable)
        });
        let commands = u32::from(self.node.understood().own());
        let answers = self.node.raft().stream_append(requests.fuse()).map(move |answer| {
            let answer = answer.map_err(stopped)?;
            let body = codec::encode(&answer).map_err(unencodable)?;
            Ok(pb::AppendResponse { body, commands })
        });
        Ok(Response::new(Box::pin(answers.fuse())))
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        let request = request.into_inner();
        self.check_target(request.to)?;
        let rpc: VoteRequest<Types> = codec::decode(&request.body).map_err(malformed)?;
        let raft = self.node.raft();
        let answer = if request.pre_vote { raft.pre_vote(rpc).await } else { raft.vote(rpc).await };
        let body = codec::encode(&answer.map_err(stopped)?).map_err(unencodable)?;
        Ok(Response::new(pb::VoteResponse { body }))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotPart>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        use pb::snapshot_part::Part;
        let mut parts = request.into_inner();
        let first = parts.message().await?.and_then(|part| part.part);
        let Some(Part::Header(header)) = first else {
            return Err(Status::invalid_argument("a snapshot starts with its header"));
        };
        self.check_target(header.to)?;
        if header.length > SNAPSHOT_LIMIT {
            return Err(Status::resource_exhausted("the snapshot is larger than any may be"));
        }
        let (vote, meta): (Vote, SnapshotMeta) = codec::decode(&header.body).map_err(malformed)?;
        let mut incoming =
            self.node.snapshots().receive().map_err(|e| Status::internal(e.chain()))?;
        while let Some(part) = parts.message().await? {
            let Some(Part::Chunk(chunk)) = part.part else {
                return Err(Status::invalid_argument("a snapshot has one header"));
            };
            if incoming.len() + chunk.len() as u64 > header.length {
                return Err(Status::invalid_argument("the snapshot is longer than announced"));
            }
            // Not here: a slow disk must not keep votes waiting.
            let writing = cluster_daemon::blocking(move || {
                incoming.write(&chunk)?;
                Ok::<_, StorageError>(incoming)
            });
            incoming = writing
                .await
                .map_err(|e| Status::internal(format!("writing the snapshot failed: {e}")))?
                .map_err(|e| Status::internal(e.chain()))?;
        }
        if incoming.len() != header.length {
            return Err(Status::data_loss("the snapshot is shorter than announced"));
        }
        let checked = cluster_daemon::blocking(move || incoming.finish()).await;
        let snapshot = checked
            .map_err(|e| Status::internal(format!("checking the snapshot failed: {e}")))?
            .map_err(|e| Status::data_loss(e.chain()))?;
        let installed =
            self.node.raft().install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
        let body = codec::encode(&installed.map_err(stopped)?).map_err(unencodable)?;
        Ok(Response::new(pb::SnapshotResponse { body }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        self.check_target(request.to)?;
        let rpc: TransferLeaderRequest<Types> = codec::decode(&request.body).map_err(malformed)?;
        let answer = self.node.raft().handle_transfer_leader(rpc).await.map_err(stopped)?;
        let body = codec::encode(&answer).map_err(unencodable)?;
        Ok(Response::new(pb::TransferLeaderResponse { body }))
    }

    async fn propose(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Response<pb::ProposeResponse>, Status> {
        use pb::propose_response::Outcome;
        let request = request.into_inner();
        self.check_target(request.to)?;
        let patience = Duration::from_millis(request.timeout_ms);
        let outcome = match self.node.propose_here(request.body, patience).await {
            Ok((index, response)) => {
                let body = codec::encode(&response).map_err(unencodable)?;
                Outcome::Applied(pb::Applied { index, body })
            }
            Err(Failure::NotLeader(leader)) => Outcome::NotLeader(not_leader(leader)),
            Err(Failure::NotDone(reason)) => Outcome::NotDone(pb::NotDone { reason }),
            Err(Failure::NotUnderstood(reason)) => Outcome::NotUnderstood(pb::NotDone { reason }),
            Err(Failure::Unknown(reason)) => Outcome::Unknown(pb::Unknown { reason }),
        };
        Ok(Response::new(pb::ProposeResponse { outcome: Some(outcome) }))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        use pb::read_index_response::Outcome;
        let request = request.into_inner();
        self.check_target(request.to)?;
        let patience = Duration::from_millis(request.timeout_ms);
        let outcome = match self.node.read_index_here(patience).await {
            Ok(index) => Outcome::Index(index),
            Err(Failure::NotLeader(leader)) => Outcome::NotLeader(not_leader(leader)),
            Err(
                Failure::NotDone(reason)
                | Failure::NotUnderstood(reason)
                | Failure::Unknown(reason),
            ) => Outcome::NotDone(pb::NotDone { reason }),
        };
        Ok(Response::new(pb::ReadIndexResponse { outcome: Some(outcome) }))
    }

    async fn add_manager(
        &self,
        request: Request<pb::AddManagerRequest>,
    ) -> Result<Response<pb::ChangeManagersResponse>, Status> {
        let request = request.into_inner();
        self.check_target(request.to)?;
        let member =
            request.member.ok_or_else(|| Status::invalid_argument("no member is named"))?;
        let changed =
            self.node.add_manager_here(NodeId(member.id), &member.address, request.learner).await;
        Ok(Response::new(changed_managers(changed)))
    }

    async fn remove_manager(
        &self,
        request: Request<pb::RemoveManagerRequest>,
    ) -> Result<Response<pb::ChangeManagersResponse>, Status> {
        let request = request.into_inner();
        self.check_target(request.to)?;
        let changed = self.node.remove_manager_here(NodeId(request.id)).await;
        Ok(Response::new(changed_managers(changed)))
    }
}

fn not_leader(leader: Option<(NodeId, String)>) -> pb::NotLeader {
    pb::NotLeader { leader: leader.map(|(id, address)| pb::Member { id: id.0, address }) }
}

fn changed_managers(changed: Result<u64, Failure>) -> pb::ChangeManagersResponse {
    use pb::change_managers_response::Outcome;
    let outcome = match changed {
        Ok(index) => Outcome::Index(index),
        Err(Failure::NotLeader(leader)) => Outcome::NotLeader(not_leader(leader)),
        Err(Failure::NotDone(reason) | Failure::NotUnderstood(reason)) => {
            Outcome::NotDone(pb::NotDone { reason })
        }
        Err(Failure::Unknown(reason)) => Outcome::Unknown(pb::Unknown { reason }),
    };
    pb::ChangeManagersResponse { outcome: Some(outcome) }
}
