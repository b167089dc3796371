//! What a worker is told: who the managers are, what to run, where published ports lead, which of
//! its reports are recorded, whose output is wanted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use cluster_model::spec::Disconnect;
use cluster_model::{Desired, ServiceId, State, Task, TaskId};
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::dispatcher::v1::manager_message::Item as Out;
use cluster_wire::{Code, Failure, dispatch as wire};
use prost::Message as _;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::receipts::Receipts;
use super::{SEND_TIMEOUT, Sender, Who};
use crate::context::Context;
use crate::dispatch::table::Mailbox;
use crate::raft::View;

/// Assignments in one message.
const ASSIGNMENTS_MAX: usize = 500;
/// Bytes of one message, give or take one assignment.
const MESSAGE_BYTES: usize = 1024 * 1024;

type Revision = (ServiceId, u32);

pub(super) struct Outbound<'a> {
    context: &'a Context,
    who: Who,
    mailbox: Arc<Mailbox>,
    out: Sender,
    /// Of the last assignments message.
    sequence: u64,
    receipts: Receipts,
    /// Managers' addresses as last told.
    managers: Vec<String>,
    /// What was told of certificates last.
    trust: Option<u64>,
    /// The withdrawn version that was told last.
    withdrawn: u64,
    /// Later ones that tasks here wait for.
    awaited: BTreeSet<u64>,
    /// What the worker knows of its tasks.
    told: BTreeMap<TaskId, Told>,
    /// Specs the worker holds: those of tasks it knows.
    specs: HashSet<Revision>,
}

/// What may change in an assignment.
#[derive(PartialEq, Eq)]
struct Told {
    revision: Revision,
    desired: Desired,
    withdrawn: u64,
    ports: Vec<u16>,
    stop_after_ms: u64,
}

impl<'a> Outbound<'a> {
    pub fn new(context: &'a Context, who: Who, mailbox: Arc<Mailbox>, out: Sender) -> Self {
        Self {
            context,
            who,
            mailbox,
            out,
            sequence: 0,
            receipts: Receipts::new(),
            managers: Vec::new(),
            trust: None,
            withdrawn: 0,
            awaited: BTreeSet::new(),
            told: BTreeMap::new(),
            specs: HashSet::new(),
        }
    }

    pub async fn run(
        mut self,
        mut endpoints: broadcast::Receiver<Arc<Vec<pb::Endpoints>>>,
        mut recorded: watch::Receiver<u64>,
        mut log_requests: mpsc::Receiver<pb::LogRequest>,
    ) -> Result<(), Failure> {
        let mut withdrawn = self.context.dispatch.withdrawn.subscribe();
        Box::pin(self.begin()).await?;
        loop {
            tokio::select! {
                () = self.mailbox.wake.notified() => Box::pin(self.changed()).await?,
                delta = endpoints.recv() => match delta {
                    Ok(delta) => self.endpoints((*delta).clone()).await?,
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        let all = self.context.dispatch.full_endpoints();
                        self.endpoints(all).await?;
                    }
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
                changed = withdrawn.changed() => {
                    if changed.is_err() { return Ok(()) }
                    withdrawn.mark_unchanged();
                    self.withdrawn().await?;
                }
                changed = recorded.changed() => {
                    if changed.is_err() { return Ok(()) }
                    let sequence = *recorded.borrow_and_update();
                    let sessions = self.context.dispatch.endpoints.receiver_count();
                    if self.receipts.recorded(sequence, Instant::now(), sessions) {
                        self.acknowledge().await?;
                    }
                }
                () = sleep_until(self.receipts.at()), if self.receipts.are_owed() => {
                    self.acknowledge().await?;
                }
                Some(request) = log_requests.recv() => self.send(Out::LogRequest(request)).await?,
            }
        }
    }

    /// All that the worker has to know first.
    async fn begin(&mut self) -> Result<(), Failure> {
        let stopping = |_| Failure::new(Code::Stopping, "this manager is stopping");
        let _turn = self.context.dispatch.openings.acquire().await.map_err(stopping)?;
        // Taken now: one that is kept keeps alive what changes after it.
        let view = self.context.raft.view();
        self.welcome(&view.state).await?;
        self.managers(&view.state).await?;
        self.trust(&view.state).await?;
        self.full_set(&view).await?;
        self.endpoints(self.context.dispatch.full_endpoints()).await?;
        // What was reached before this session is news to its worker.
        let version = *self.context.dispatch.withdrawn.borrow();
        self.tell_withdrawn(version).await
    }

    async fn acknowledge(&mut self) -> Result<(), Failure> {
        let sequence = self.receipts.take();
        self.push(Out::Reported(pb::Reported { sequence })).await
    }

    /// Says that versions of endpoints are followed everywhere, as far as a task here waits for that.
    async fn withdrawn(&mut self) -> Result<(), Failure> {
        let version = *self.context.dispatch.withdrawn.borrow();
        if self.awaited.first().is_none_or(|awaited| *awaited > version) {
            return Ok(());
        }
        self.tell_withdrawn(version).await
    }

    async fn tell_withdrawn(&mut self, version: u64) -> Result<(), Failure> {
        self.awaited.retain(|awaited| *awaited > version);
        self.withdrawn = version;
        self.send(Out::Withdrawn(pb::Withdrawn { version })).await
    }

    async fn welcome(&mut self, state: &State) -> Result<(), Failure> {
        let Some(cluster) = state.cluster() else {
            return Err(Failure::new(Code::Bootstrapped, "the cluster is not bootstrapped yet"));
        };
        let name = state.node(self.who.node).map(|node| node.name.clone()).unwrap_or_default();
        self.send(Out::Welcome(pb::Welcome {
            heartbeat_period_ms: cluster.heartbeat_period_ms,
            lease_ms: cluster.lease_ms,
            node_name: name,
            session_id: TaskId(self.mailbox.session).to_string(),
        }))
        .await
    }

    /// Says where the managers are, when that is news.
    async fn managers(&mut self, state: &State) -> Result<(), Failure> {
        let Some(cluster) = state.cluster() else { return Ok(()) };
        let addresses: Vec<String> =
            cluster.managers.values().map(|manager| manager.address.clone()).collect();
        if addresses == self.managers {
            return Ok(());
        }
        self.managers.clone_from(&addresses);
        self.send(Out::Managers(pb::Managers { addresses })).await
    }

    /// Says what the worker must know of certificates, when that is news.
    async fn trust(&mut self, state: &State) -> Result<(), Failure> {
        let version = state.security().map_or(0, |security| security.trust_version);
        if self.trust.is_some_and(|told| told >= version) {
            return Ok(());
        }
        self.trust = Some(version);
        let revoked = state.security().into_iter().flat_map(|security| security.revoked.keys());
        let confirm = state.ca_missing().any(|id| id == self.who.node);
        self.send(Out::Trust(pb::Trust {
            confirm,
            cas: state.trusted_cas(),
            cert_validity_s: state.cert_validity_s(),
            revoked: revoked.map(ToString::to_string).collect(),
        }))
        .await
    }

    /// Something of this node or of the cluster changed: sends what is new.
    async fn changed(&mut self) -> Result<(), Failure> {
        // Taken first and looked at second: what changes in between is looked at twice.
        let dirty = self.mailbox.take_dirty();
        let view = self.context.raft.view();
        self.who.standing(&view.state)?;
        self.managers(&view.state).await?;
        self.trust(&view.state).await?;
        let mut tasks = Vec::new();
        let mut removed = Vec::new();
        for id in dirty {
            match view.state.task(id).filter(|task| task.node == Some(self.who.node)) {
                Some(task) => tasks.extend(self.assignment(&view.state, task)),
                None => {
                    if let Some(told) = self.told.remove(&id) {
                        self.forget_spec(told.revision);
                        removed.push(id.to_string());
                    }
                }
            }
        }
        if tasks.is_empty() && removed.is_empty() {
            return Ok(());
        }
        self.assignments(&view, false, tasks, removed).await?;
        self.withdrawn().await
    }

    async fn full_set(&mut self, view: &View) -> Result<(), Failure> {
        let tasks = view.state.tasks_of_node(self.who.node);
        let tasks = tasks.filter_map(|task| self.assignment(&view.state, task)).collect();
        self.assignments(view, true, tasks, Vec::new()).await
    }

    /// A task as the worker has to see it; none when that is what it was told before.
    fn assignment(&mut self, state: &State, task: &Task) -> Option<pb::Assignment> {
        let service = state.service(task.service)?;
        // What is over for the managers must not run: a node that was given up may still run it.
        let over = task.status.state.is_terminal();
        let desired = if over { task.desired.max(Desired::Shutdown) } else { task.desired };
        let told = Told {
            revision: (task.service, task.revision),
            desired,
            withdrawn: task.withdrawn,
            ports: service.ports.iter().map(|port| port.target).collect(),
            stop_after_ms: match service.spec.disconnect {
                Disconnect::StopAfter { after_ms } => after_ms,
                Disconnect::Replace | Disconnect::Wait => 0,
            },
        };
        if self.told.get(&task.id) == Some(&told) {
            return None;
        }
        if told.withdrawn > self.withdrawn {
            self.awaited.insert(told.withdrawn);
        }
        let with_spec = self.specs.insert(told.revision);
        self.told.insert(task.id, told);
        let mut assignment = wire::assignment(service, task, with_spec);
        assignment.desired_state = desired.to_string();
        Some(assignment)
    }

    /// The worker keeps the specs of tasks it knows, and so do we.
    fn forget_spec(&mut self, revision: Revision) {
        if !self.told.values().any(|told| told.revision == revision) {
            self.specs.remove(&revision);
        }
    }

    async fn assignments(
        &mut self,
        view: &View,
        full: bool,
        tasks: Vec<pb::Assignment>,
        removed: Vec<String>,
    ) -> Result<(), Failure> {
        let mut tasks = tasks.into_iter().peekable();
        let mut removed = Some(removed);
        loop {
            let (mut part, mut bytes) = (Vec::new(), 0);
            while part.len() < ASSIGNMENTS_MAX && bytes < MESSAGE_BYTES {
                let Some(task) = tasks.next() else { break };
                bytes += task.encoded_len();
                part.push(task);
            }
            let more = tasks.peek().is_some();
            self.sequence += 1;
            let message = pb::Assignments {
                term: view.term,
                version: view.applied_index,
                sequence: self.sequence,
                full,
                more,
                tasks: part,
                removed: removed.take().unwrap_or_default(),
            };
            self.send(Out::Assignments(message)).await?;
            if !more {
                return Ok(());
            }
        }
    }

    async fn endpoints(&mut self, messages: Vec<pb::Endpoints>) -> Result<(), Failure> {
        for message in messages {
            self.send(Out::Endpoints(message)).await?;
        }
        Ok(())
    }

    async fn send(&mut self, item: Out) -> Result<(), Failure> {
        self.push(item).await?;
        if self.receipts.are_owed() {
            self.acknowledge().await?;
        }
        Ok(())
    }

    async fn push(&self, item: Out) -> Result<(), Failure> {
        let message = Ok(pb::ManagerMessage { item: Some(item) });
        match timeout(SEND_TIMEOUT, self.out.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Failure::new(Code::Stopping, "the worker closed the session")),
            Err(_) => Err(Failure::new(Code::Busy, "the worker does not read its messages")),
        }
    }
}
