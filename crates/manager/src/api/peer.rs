//! What managers ask of each other beside Raft.

use std::pin::Pin;
use std::time::Duration;

use cluster_daemon::{OnError, chain};
use cluster_model::{Command, Manager, NodeId, State};
use cluster_pb::control::v1::{ChangeManagerRequest, ChangeManagerResponse, ListManagersResponse};
use cluster_pb::peer::v1 as pb;
use cluster_pb::peer::v1::peer_server::Peer;
use cluster_wire::{Code, Failure};
use futures::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::node_of;
use crate::context::Context;
use crate::dispatch::logs::{QUEUE, Wanted, collect};
use crate::managers::{change, survey};

/// A follower tells whom it hears four times a second. One that told nothing for so long, or for a third of
/// a lease, is lost to its workers, as far as the leader can see.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// So late this process itself stood still, and what followers told waits to be read.
const LATE: Duration = Duration::from_millis(500);

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
        if !self.context.raft.leadership().borrow().this_node_leads_and_caught_up {
            return Err(Failure::new(Code::NoLeader, "this manager does not lead").into());
        }
        let caller = node_of(&request)?;
        require_member(&self.context, caller)?;
        let (sender, receiver) = mpsc::channel(8);
        let listening = listen(self.context.clone(), caller, request.into_inner(), sender);
        self.context.dispatch.calls.spawn("hear", OnError::Log, listening);
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
        let (calls, context) = (&self.context.dispatch.calls, self.context.clone());
        calls.spawn("collect lines", OnError::Log, collect(context, wanted, request, lines));
        calls.spawn("pass lines on", OnError::Log, async move {
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
        let (name, address) = (request.name, request.address);
        cluster_model::validate::name("name", &name).map_err(Failure::from)?;
        if address.parse::<std::net::SocketAddr>().is_err() {
            let message = "field `address`: is not an IP address and port";
            return Err(Failure::new(Code::InvalidField, message).into());
        }
        let view = self.context.read(false).await?;
        if view.state.is_revoked(id) {
            let message = format!("manager {id} was removed from the cluster");
            return Err(Failure::new(Code::Removed, message).into());
        }
        let joined_at_ms = check_newcomer(&view.state, id, &name, &address)?
            .unwrap_or_else(|| self.context.clock.now_ms());
        let failed = |error| Failure::new(Code::NoLeader, chain(&error));
        self.context.raft.add_manager(id, &address, request.spare).await.map_err(failed)?;
        tracing::info!(node_id = %id, name, address, spare = request.spare, "manager joined");
        let manager = Manager { name, address, joined_at_ms };
        self.context.propose(Command::PutManager { id, manager }).await?;
        Ok(Response::new(pb::JoinGroupResponse {}))
    }

    async fn survey_managers(
        &self,
        _: Request<pb::SurveyManagersRequest>,
    ) -> Result<Response<ListManagersResponse>, Status> {
        let told = survey::as_leader(&self.context);
        let none = || Failure::new(Code::NoLeader, "this manager does not lead");
        Ok(Response::new(told.ok_or_else(none)?))
    }

    async fn steer_manager(
        &self,
        request: Request<ChangeManagerRequest>,
    ) -> Result<Response<ChangeManagerResponse>, Status> {
        Ok(Response::new(change::here(&self.context, &request.into_inner()).await?))
    }

    async fn standing(
        &self,
        request: Request<pb::StandingRequest>,
    ) -> Result<Response<pb::StandingResponse>, Status> {
        let caller = node_of(&request)?;
        let view = self.context.read(false).await?;
        let listed =
            view.state.cluster().is_some_and(|cluster| cluster.managers.contains_key(&caller));
        let member = listed || is_member(&self.context, caller);
        let term = self.context.raft.leadership().borrow().term;
        Ok(Response::new(pb::StandingResponse { member, term }))
    }
}

fn is_member(context: &Context, id: NodeId) -> bool {
    context.raft.members().iter().any(|member| member.id == id)
}

fn require_member(context: &Context, id: NodeId) -> Result<(), Failure> {
    if is_member(context, id) {
        return Ok(());
    }
    Err(Failure::new(Code::Removed, format!("manager {id} is not in the group")))
}

/// Hears one follower for as long as this manager leads. Each message is answered, so that the
/// follower knows that it is heard; answers it does not read hold nothing up and run together.
async fn listen(
    context: Context,
    caller: NodeId,
    mut inbound: Streaming<pb::HeardNodes>,
    sender: mpsc::Sender<Result<pb::Heard, Status>>,
) {
    let mut leadership = context.raft.leadership();
    let mut withdrawn = context.dispatch.withdrawn.subscribe();
    let mut owed = true;
    let mut telling = Telling::begin(&context, caller);
    loop {
        if !leadership.borrow_and_update().this_node_leads_and_caught_up {
            return;
        }
        tokio::select! {
            biased;
            message = inbound.message() => match message {
                Ok(Some(heard)) => {
                    if let Err(failure) = require_member(&context, caller) {
                        // Whoever stopped reading needs no answer.
                        let _ = sender.try_send(Err(failure.into()));
                        return;
                    }
                    context.dispatch.hearing.told(caller, &heard.nodes);
                    telling.told();
                    if let Some(manager) = heard.manager {
                        context.dispatch.wellbeing.told(caller, manager);
                    }
                    owed = true;
                }
                Ok(None) | Err(_) => return,
            },
            permit = sender.reserve(), if owed => {
                let Ok(permit) = permit else { return };
                let withdrawn_version = *withdrawn.borrow_and_update();
                permit.send(Ok(pb::Heard { withdrawn_version }));
                owed = false;
            }
            changed = withdrawn.changed(), if !owed => {
                if changed.is_err() {
                    return;
                }
                owed = true;
            }
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(telling.silent_at) => telling.silent(),
        }
    }
}

/// A manager that tells whom it hears, until this is dropped.
struct Telling<'a> {
    context: &'a Context,
    manager: NodeId,
    stream: u64,
    told: std::time::Instant,
    silent_at: Instant,
}

impl<'a> Telling<'a> {
    fn begin(context: &'a Context, manager: NodeId) -> Self {
        let stream = context.dispatch.hearing.begins(manager);
        let (told, silent_at) = (std::time::Instant::now(), Instant::now());
        let mut telling = Self { context, manager, stream, told, silent_at };
        telling.told();
        telling
    }

    fn lease(&self) -> Duration {
        let state = self.context.raft.view().state;
        Duration::from_millis(state.cluster().map_or(0, |cluster| cluster.lease_ms))
    }

    fn told(&mut self) {
        self.told = std::time::Instant::now();
        self.silent_at = Instant::now() + LOST_AFTER.min(self.lease() / 3);
    }

    fn silent(&mut self) {
        if self.silent_at.elapsed() < LATE {
            self.lost();
        }
        self.silent_at = Instant::now() + LOST_AFTER.min(self.lease() / 3);
    }

    fn lost(&self) {
        let hearing = &self.context.dispatch.hearing;
        let workers = hearing.lost(self.manager, self.stream, self.told, self.lease());
        if workers > 0 {
            tracing::info!(manager = %self.manager, workers, "a manager is lost to its workers");
        }
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        // Whoever leads next begins anew.
        if self.context.raft.leadership().borrow().this_node_leads_and_caught_up {
            self.lost();
        }
    }
}

/// Refuses a manager that would take another's name or address; answers when it joined, if it has
/// before.
fn check_newcomer(
    state: &State,
    id: NodeId,
    name: &str,
    address: &str,
) -> Result<Option<u64>, Failure> {
    let Some(cluster) = state.cluster() else { return Ok(None) };
    for (_, other) in cluster.managers.iter().filter(|(other, _)| **other != id) {
        if other.name == name {
            let message = format!("manager name `{name}` is already taken");
            return Err(Failure::new(Code::NameTaken, message));
        }
        if other.address == address {
            let message = format!("address {address} is that of manager `{}`", other.name);
            return Err(Failure::new(Code::NameTaken, message));
        }
    }
    Ok(cluster.managers.get(&id).map(|known| known.joined_at_ms))
}
