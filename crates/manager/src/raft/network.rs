//! The client side of the protocol: what openraft sends to another manager.
//!
//! Entries go over one long, pipelined stream a follower; heartbeats and votes go over a connection
//! of their own, so that a large batch or a snapshot never delays them. What a manager asks the leader
//! for on behalf of others goes over a third (`propose`, `read`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster_pb::raft::v1 as pb;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};
use tonic::transport::Channel;

use super::codec;
use super::peers::{Lane, Peers};
use super::snapshot::SnapshotFile;
use super::types::{Node, Snapshot, StreamAppendResult, Types, Vote};
use super::understood::Understood;

/// A stream must open, and an append be answered, within this; otherwise the connection is dead.
const STALL: Duration = Duration::from_secs(3);
/// Pause after a stream that did not open. Openraft's own back-off is in the stream of requests, which is
/// not polled then: it asks for the next stream at once, and a manager whose own certificate is not
/// valid, or whose peer refuses connections, would do nothing else.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a snapshot in one message.
const CHUNK: u64 = 1 << 20;

type RpcError = RPCError<Types>;

/// Makes the clients that openraft asks for.
pub(crate) struct Network {
    pub(crate) peers: Peers,
    /// Hears what the others say of themselves.
    pub(crate) understood: Understood,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Node) -> Peer {
        let (peers, understood) = (self.peers.clone(), self.understood.clone());
        Peer { peers, understood, to: target, address: node.addr.clone(), lane: Lane::Bulk }
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Peer {
        Peer { lane: Lane::Urgent, ..self.new_client(target, node).await }
    }
}

/// One manager as seen from this one.
pub(crate) struct Peer {
    peers: Peers,
    understood: Understood,
    to: u64,
    address: String,
    lane: Lane,
}

fn unreachable(text: impl std::fmt::Display) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(text))
}

fn broken(text: impl std::fmt::Display) -> RpcError {
    RPCError::Network(NetworkError::from_string(text))
}

fn rpc_error(status: &tonic::Status) -> RpcError {
    match status.code() {
        tonic::Code::Unavailable => unreachable(status),
        _ => broken(status),
    }
}

impl Peer {
    fn client(&self, lane: Lane) -> Result<pb::raft_client::RaftClient<Channel>, RpcError> {
        self.peers.client(&self.address, lane).map_err(unreachable)
    }

    /// Runs one short call on the urgent lane.
    async fn call<T>(
        &self,
        option: &RPCOption,
        call: impl AsyncFnOnce(pb::raft_client::RaftClient<Channel>) -> Result<T, tonic::Status>,
    ) -> Result<T, RpcError> {
        let client = self.client(Lane::Urgent)?;
        let watched = self.peers.watch(&self.address, Lane::Urgent);
        match tokio::time::timeout(option.soft_ttl(), call(client)).await {
            Ok(Ok(answer)) => {
                watched.answered();
                Ok(answer)
            }
            Ok(Err(status)) => Err(rpc_error(&status)),
            Err(_) => Err(broken("no answer in time")),
        }
    }

    async fn open(
        &self,
        requests: impl Stream<Item = pb::AppendRequest> + Send + 'static,
    ) -> Result<tonic::Streaming<pb::AppendResponse>, RpcError> {
        let mut client = self.client(self.lane)?;
        match tokio::time::timeout(STALL, client.append(requests)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(rpc_error(&status)),
            Err(_) => {
                self.peers.give_up(&self.address, self.lane);
                Err(unreachable("the stream did not open in time"))
            }
        }
    }

    async fn ask_vote(
        &self,
        rpc: &VoteRequest<Types>,
        option: &RPCOption,
        pre_vote: bool,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let body = codec::encode(rpc).map_err(broken)?;
        let request = pb::VoteRequest { to: self.to, body, pre_vote };
        let answer = self
            .call(option, async move |mut client| Ok(client.vote(request).await?.into_inner()))
            .await?;
        codec::decode(&answer.body).map_err(broken)
    }
}

impl NetBackoff<Types> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl NetVote<Types> for Peer {
    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        self.ask_vote(&rpc, &option, false).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        self.ask_vote(&rpc, &option, true).await
    }
}

impl NetTransferLeader<Types> for Peer {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        let body = codec::encode(&req).map_err(broken)?;
        let request = pb::TransferLeaderRequest { to: self.to, body };
        let answer = self
            .call(&option, async move |mut client| {
                Ok(client.transfer_leader(request).await?.into_inner())
            })
            .await?;
        codec::decode(&answer.body).map_err(broken)
    }
}

impl NetStreamAppend<Types> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let watched = self.peers.watch(&self.address, self.lane);
            let sent = Arc::new(AtomicU64::new(0));
            let requests = requests(input, self.to, sent.clone());
            let answers = match self.open(requests).await {
                Ok(answers) => answers,
                Err(error) => {
                    tokio::time::sleep(REOPEN_PAUSE).await;
                    return Err(error);
                }
            };
            let answers =
                Answers { peer: self, answers, sent, received: 0, watched: Some(watched) };
            let stream =
                stream::unfold(Some(answers), |answers| async move { answers?.next().await });
            // Polled once more after its end, openraft's and our streams would panic.
            let stream: BoxStream<'s, _> = Box::pin(stream.fuse());
            Ok(stream)
        })
    }
}

fn requests<S>(
    input: S,
    to: u64,
    sent: Arc<AtomicU64>,
) -> impl Stream<Item = pb::AppendRequest> + Send + 'static
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    let encoded = input.fuse().scan((), move |(), request| {
        let body = match codec::encode(&request) {
            Ok(body) => Some(body),
            Err(error) => {
                tracing::error!(%error, "cannot encode an append");
                None
            }
        };
        sent.fetch_add(1, Ordering::Relaxed);
        std::future::ready(body.map(|body| pb::AppendRequest { to, body }))
    });
    encoded.fuse()
}

/// The answers of one append stream.
struct Answers<'a> {
    peer: &'a Peer,
    answers: tonic::Streaming<pb::AppendResponse>,
    sent: Arc<AtomicU64>,
    received: u64,
    watched: Option<super::peers::Watched>,
}

type NextAnswer<'a> = Option<(Result<StreamAppendResult, RpcError>, Option<Answers<'a>>)>;

impl<'a> Answers<'a> {
    async fn next(mut self) -> NextAnswer<'a> {
        loop {
            // Silence is wrong only if something was asked before it began.
            let owed = self.sent.load(Ordering::Relaxed) > self.received;
            match tokio::time::timeout(STALL, self.answers.message()).await {
                Ok(Ok(Some(answer))) => {
                    self.received += 1;
                    self.peer.understood.hear(self.peer.to, answer.commands);
                    if let Some(watched) = self.watched.take() {
                        watched.answered();
                    }
                    return match codec::decode::<StreamAppendResult>(&answer.body) {
                        Ok(result) if result.is_ok() => Some((Ok(result), Some(self))),
                        Ok(result) => Some((Ok(result), None)),
                        Err(error) => Some((Err(broken(error)), None)),
                    };
                }
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => return Some((Err(rpc_error(&status)), None)),
                Err(_) if owed => {
                    self.peer.peers.give_up(&self.peer.address, self.peer.lane);
                    return Some((Err(unreachable("an append was not answered in time")), None));
                }
                Err(_) => {}
            }
        }
    }
}

impl NetSnapshot<Types> for Peer {
    type SnapshotData = SnapshotFile;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let body = codec::encode(&(vote, &snapshot.meta)).map_err(broken)?;
        let header = pb::SnapshotHeader { to: self.to, body, length: snapshot.snapshot.len };
        let mut client = self.client(Lane::Bulk)?;
        let sending = client.snapshot(parts(header, snapshot.snapshot));
        let answer = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = tokio::time::timeout(option.soft_ttl(), sending) => answer,
        };
        match answer {
            Ok(Ok(answer)) => Ok(codec::decode(&answer.into_inner().body).map_err(broken)?),
            Ok(Err(status)) => Err(rpc_error(&status).into()),
            Err(_) => {
                self.peers.give_up(&self.address, Lane::Bulk);
                Err(broken("the snapshot was not installed in time").into())
            }
        }
    }
}

fn parts(
    header: pb::SnapshotHeader,
    snapshot: SnapshotFile,
) -> impl Stream<Item = pb::SnapshotPart> + Send + 'static {
    let first = pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Header(header)) };
    let chunks = stream::unfold(0, move |at| {
        let snapshot = snapshot.clone();
        async move {
            let size = usize::try_from(CHUNK.min(snapshot.len.checked_sub(at)?)).ok()?;
            if size == 0 {
                return None;
            }
            let mut bytes = vec![0; size];
            // A part that cannot be read ends the transfer early, which the receiver refuses.
            if let Err(error) = snapshot.file.read_at(&mut bytes, at) {
                tracing::error!(path = %snapshot.path.display(), %error, "cannot read a snapshot to send it");
                return None;
            }
            let part = pb::snapshot_part::Part::Chunk(Bytes::from(bytes));
            Some((pb::SnapshotPart { part: Some(part) }, at + size as u64))
        }
    });
    stream::iter([first]).chain(chunks).fuse()
}
