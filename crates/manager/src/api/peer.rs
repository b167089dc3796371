//! What managers ask of each other beside Raft.

use std::pin::Pin;

use cluster_model::{Command, Manager, NodeId};
use cluster_pb::peer::v1 as pb;
use cluster_pb::peer::v1::peer_server::Peer;
use cluster_wire::{Code, Failure};
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::node_of;
use crate::context::{Context, chain};
use crate::dispatch::logs::{QUEUE, Wanted, collect};

pub struct PeerService {
    pub context: Context,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type HearStream = Streamed<pb::Heard>;
    type CollectLogsStream = Streamed<cluster_pb::control::v1::LogsResponse>;

    async fn hear(
        &self,
        request: Request<Streaming<pb::HeardNodes>>,
    ) -> Result<Response<Self::HearStream>, Status> {
        let context = self.context.clone();
        let mut leadership = context.raft.leadership();
        if leadership.borrow_and_update().leader.as_ref().map(|(id, _)| *id) != Some(context.node_id) {
            return Err(Failure::new(Code::NoLeader, "this manager does not lead").into());
        }
        let mut inbound = request.into_inner();
        let (sender, receiver) = mpsc::channel(8);
        let mut withdrawn = context.dispatch.withdrawn.subscribe();
        withdrawn.mark_changed();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = inbound.message() => match message {
                        Ok(Some(heard)) => context.dispatch.hearing.told(&heard.nodes),
                        Ok(None) | Err(_) => return,
                    },
                    changed = withdrawn.changed() => {
                        let withdrawn_version = *withdrawn.borrow_and_update();
                        let message = Ok(pb::Heard { withdrawn_version });
                        if changed.is_err() || sender.send(message).await.is_err() {
                            return;
                        }
                    }
                    changed = leadership.changed() => {
                        let leader = leadership.borrow_and_update().leader.as_ref().map(|(id, _)| *id);
                        if changed.is_err() || leader != Some(context.node_id) {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn collect_logs(
        &self,
        request: Request<pb::CollectLogsRequest>,
    ) -> Result<Response<Self::CollectLogsStream>, Status> {
        let missing = || Failure::new(Code::InvalidField, "field `request`: is missing");
        let request = request.into_inner().request.ok_or_else(missing)?;
        let unknown = |_| Failure::new(Code::InvalidField, "field `request.service`: is not an id");
        let wanted = match request.task.as_str() {
            "" => Wanted::Service(request.service.parse().map_err(unknown)?),
            text => Wanted::Task(text.parse().map_err(unknown)?),
        };
        let (lines, mut gathered) = mpsc::channel(QUEUE);
        let (out, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(collect(self.context.clone(), wanted, request, lines));
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = gathered.recv() => next,
                    () = out.closed() => return,
                };
                let Some(response) = next else { return };
                if out.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn join_group(
        &self,
        request: Request<pb::JoinGroupRequest>,
    ) -> Result<Response<pb::JoinGroupResponse>, Status> {
        let caller = node_of(&request)?;
        let request = request.into_inner();
        let id: NodeId = request
            .node_id
            .parse()
            .map_err(|_| Failure::new(Code::InvalidField, "field `node_id`: is not an id"))?;
        if caller != id {
            return Err(Failure::new(Code::WrongRole, "a manager may only join as itself").into());
        }
        cluster_model::validate::name("name", &request.name).map_err(Failure::from)?;
        let failed = |error| Failure::new(Code::NoLeader, chain(&error));
        self.context.raft.add_manager(id, &request.address).await.map_err(failed)?;
        let joined_at_ms = self.context.clock.now_ms();
        let (name, address) = (request.name, request.address);
        tracing::info!(node_id = %id, name, address, "manager joined");
        let manager = Manager { name, address, joined_at_ms };
        self.context.propose(Command::PutManager { id, manager }).await?;
        Ok(Response::new(pb::JoinGroupResponse {}))
    }
}
