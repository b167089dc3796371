//! Users: they create, change, scale, remove, drain, read and watch, through any manager, and write
//! down what they asked and what they were told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster_identity::net::Net;
use cluster_identity::{ChannelOptions, Context, TlsClient, TlsIdentity, connect_lazy};
use cluster_pb::control::v1 as pb;
use cluster_pb::control::v1::control_client::ControlClient;
use cluster_pb::types::v1 as types;
use cluster_wire::Code;
use cluster_wire::error::code_of;
use futures::future::BoxFuture;
use tonic::Status;
use tonic::transport::Channel;

use crate::os;
use crate::rng::Rng;

/// Names that services have.
pub const NAMES: [&str; 5] = ["api", "cache", "mail", "shop", "web"];
const PATIENCE: Duration = Duration::from_secs(6);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    Done(T),
    /// It did not happen and will not.
    Refused,
    /// It may have happened, or may yet.
    Unknown,
}

/// One request of a user.
#[derive(Clone, Debug)]
pub struct Call {
    pub begun: u64,
    pub over: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// Answers id and version.
    Create {
        name: String,
        replicas: u32,
        outcome: Outcome<(String, u64)>,
    },
    /// Answers the new version.
    Update {
        id: String,
        base: u64,
        outcome: Outcome<u64>,
    },
    /// Told when the request is sent: from then on the service may be gone.
    RemovalAsked {
        id: String,
    },
    Remove {
        id: String,
        outcome: Outcome<()>,
    },
    /// A linearizable read: the version, or that there is no such service.
    Read {
        id: String,
        outcome: Outcome<Option<u64>>,
    },
    /// What one watch saw of a service, in order: index and version.
    Watch {
        id: String,
        seen: Vec<(u64, u64)>,
    },
}

/// Everything users did; clones share it.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Vec<Call>>>);

impl History {
    fn add(&self, begun: u64, what: What) {
        let call = Call { begun, over: os::elapsed(), what };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    /// Runs something on what happened since the `from`th call.
    pub fn since<T>(&self, from: usize, look: impl FnOnce(&[Call]) -> T) -> T {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        look(calls.get(from..).unwrap_or_default())
    }
}

/// Ways to the managers as an administrator.
#[derive(Clone)]
pub struct Access {
    addresses: Vec<String>,
    tls: TlsClient,
}

impl Access {
    pub fn new(context: &Context, addresses: Vec<String>, net: &Net) -> anyhow::Result<Self> {
        let identity = TlsIdentity::new(context.identity()?)?.over(net);
        Ok(Self { addresses, tls: TlsClient::manager(&identity) })
    }

    pub fn control(&self, manager: usize) -> anyhow::Result<ControlClient<Channel>> {
        let address = &self.addresses[manager % self.addresses.len()];
        let channel = connect_lazy(address, &self.tls, &ChannelOptions::default())?;
        Ok(ControlClient::new(channel))
    }

    pub async fn token(&self, role: &str) -> anyhow::Result<String> {
        let request = pb::GetTokenRequest { role: role.into(), rotate: false };
        Ok(self.control(0)?.get_token(request).await?.into_inner().token)
    }
}

/// A spec as the simulation's users write it: short times, so that a run sees much.
pub fn spec(name: &str, replicas: u32, rng: &mut Rng) -> types::ServiceSpec {
    let container = types::ContainerSpec {
        image: format!("{name}:{}", rng.below(1..9)),
        stop_grace_period_ms: Some(500),
        ..Default::default()
    };
    let start_first = rng.chance(30);
    let order = match start_first {
        true => types::update_policy::Order::StartFirst,
        false => types::update_policy::Order::StopFirst,
    };
    let update = types::UpdatePolicy {
        parallelism: rng.below(1..3).to_string(),
        monitor_ms: Some(200),
        order: order.into(),
        failure_action: types::update_policy::FailureAction::Continue.into(),
        ..Default::default()
    };
    let memory_bytes = *rng.pick(&[0, 64 << 20, 128 << 20]);
    types::ServiceSpec {
        name: name.into(),
        replicas,
        task: Some(types::TaskSpec {
            container: Some(container),
            reservations: Some(types::Resources { cpu_nanos: 0, memory_bytes }),
            restart: Some(types::RestartPolicy { max_delay_ms: Some(1_000), ..Default::default() }),
            ..Default::default()
        }),
        update: Some(update.clone()),
        rollback: Some(update),
        ..Default::default()
    }
}

/// One user, acting until the simulation ends the client's machine or `until` comes.
pub async fn user(
    access: Access,
    history: History,
    mut rng: Rng,
    until: u64,
) -> anyhow::Result<()> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let controls: Vec<ControlClient<Channel>> = (0..access.addresses.len())
        .map(|manager| access.control(manager))
        .collect::<Result<_, _>>()?;
    while os::elapsed() < until {
        let control = rng.pick(&controls).clone();
        let mut user = User { control, history: &history, rng: &mut rng, known: &mut known };
        user.act().await;
        let pause = rng.below(20..300);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}

struct User<'a> {
    control: ControlClient<Channel>,
    history: &'a History,
    rng: &'a mut Rng,
    /// Ids by name, as far as this user knows.
    known: &'a mut BTreeMap<String, String>,
}

impl User<'_> {
    async fn act(&mut self) {
        let name = (*self.rng.pick(&NAMES)).to_owned();
        let known = self.known.get(&name).cloned();
        match (self.rng.below(0..100), known) {
            (0..12, Some(id)) => self.remove(&name, id).await,
            (12..50, Some(id)) => self.change(id).await,
            (50..70, Some(id)) => self.read(id).await,
            (70..80, Some(id)) => self.watch(id).await,
            (80..90, _) => self.node().await,
            (_, Some(id)) => self.read(id).await,
            (_, None) => self.create(name).await,
        }
    }

    async fn create(&mut self, name: String) {
        let begun = os::elapsed();
        let replicas = u32::try_from(self.rng.below(1..5)).unwrap_or(1);
        let request = pb::CreateServiceRequest { spec: Some(spec(&name, replicas, self.rng)) };
        let outcome = outcome(within(self.control.create_service(request)).await);
        let outcome = match outcome {
            Ok(response) => {
                self.known.insert(name.clone(), response.id.clone());
                Outcome::Done((response.id, response.version))
            }
            Err(status) => {
                if status.as_ref().and_then(code_of) == Some(Code::NameTaken) {
                    self.look_up(&name).await;
                }
                failed(status.as_ref())
            }
        };
        self.history.add(begun, What::Create { name, replicas, outcome });
    }

    /// Learns the id of a service that another user made.
    async fn look_up(&mut self, name: &str) {
        let request = pb::GetServiceRequest { service: name.into(), stale: false };
        if let Ok(response) = within(self.control.get_service(request)).await
            && let Some(service) = response.into_inner().service
        {
            self.known.insert(name.to_owned(), service.id);
        }
    }

    async fn get(&mut self, id: &str) -> Result<Option<types::Service>, Outcome<Option<u64>>> {
        let request = pb::GetServiceRequest { service: id.into(), stale: false };
        match outcome(within(self.control.get_service(request)).await) {
            Ok(response) => Ok(response.service),
            Err(Some(status)) if code_of(&status) == Some(Code::NotFound) => Ok(None),
            Err(status) => Err(failed(status.as_ref())),
        }
    }

    async fn read(&mut self, id: String) {
        let begun = os::elapsed();
        let outcome = match self.get(&id).await {
            Ok(service) => Outcome::Done(service.map(|service| service.version)),
            Err(outcome) => outcome,
        };
        self.history.add(begun, What::Read { id, outcome });
    }

    /// Compare and set: scale, a new image, or both.
    async fn change(&mut self, id: String) {
        let Ok(Some(service)) = self.get(&id).await else { return };
        let Some(mut wanted) = service.spec else { return };
        let begun = os::elapsed();
        match self.rng.below(0..3) {
            0 => wanted.replicas = u32::try_from(self.rng.below(0..6)).unwrap_or(1),
            _ => {
                let replicas = wanted.replicas;
                wanted = spec(&wanted.name, replicas, self.rng);
            }
        }
        let base = service.version;
        let request = pb::UpdateServiceRequest {
            id: id.clone(),
            version: base,
            spec: Some(wanted),
            remove_tasks: Vec::new(),
        };
        let outcome = match outcome(within(self.control.update_service(request)).await) {
            Ok(response) => Outcome::Done(response.version),
            Err(status) => failed(status.as_ref()),
        };
        self.history.add(begun, What::Update { id, base, outcome });
    }

    async fn remove(&mut self, name: &str, id: String) {
        let begun = os::elapsed();
        self.history.add(begun, What::RemovalAsked { id: id.clone() });
        let request = pb::RemoveServiceRequest { service: id.clone(), version: None };
        let outcome = match outcome(within(self.control.remove_service(request)).await) {
            Ok(_) => Outcome::Done(()),
            Err(status) => failed(status.as_ref()),
        };
        if outcome != Outcome::Refused {
            self.known.remove(name);
        }
        self.history.add(begun, What::Remove { id, outcome });
    }

    async fn watch(&mut self, id: String) {
        let begun = os::elapsed();
        let mut seen = Vec::new();
        let request = pb::WatchServiceRequest { service: id.clone() };
        if let Ok(stream) = within(self.control.watch_service(request)).await {
            let mut stream = stream.into_inner();
            let enough = tokio::time::Instant::now() + Duration::from_secs(1);
            while let Ok(Ok(Some(item))) = tokio::time::timeout_at(enough, stream.message()).await {
                let version = item.service.map_or(0, |service| service.version);
                seen.push((item.index, version));
            }
        }
        self.history.add(begun, What::Watch { id, seen });
    }

    /// Drains a node, or takes it back.
    async fn node(&mut self) {
        let Ok(listed) = within(self.control.list_nodes(pb::ListNodesRequest::default())).await
        else {
            return;
        };
        let nodes = listed.into_inner().nodes;
        if nodes.is_empty() {
            return;
        }
        let node = self.rng.pick(&nodes).clone();
        let availability = match self.rng.below(0..4) {
            0 => "drain",
            1 => "pause",
            _ => "active",
        };
        let request = pb::UpdateNodeRequest {
            id: node.id,
            version: node.version,
            availability: availability.into(),
            ..Default::default()
        };
        // Whatever becomes of it: the end of the run makes all nodes active.
        let _ = within(self.control.update_node(request)).await;
    }
}

/// Makes every node active, however long that takes.
pub async fn activate_all(access: Access) -> anyhow::Result<()> {
    let mut manager = 0;
    loop {
        manager += 1;
        let mut control = access.control(manager)?;
        let Ok(listed) = within(control.list_nodes(pb::ListNodesRequest::default())).await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let nodes = listed.into_inner().nodes;
        let others: Vec<_> = nodes.iter().filter(|node| node.availability != "active").collect();
        if others.is_empty() {
            return Ok(());
        }
        for node in others {
            let request = pb::UpdateNodeRequest {
                id: node.id.clone(),
                version: node.version,
                availability: "active".into(),
                ..Default::default()
            };
            let _ = within(control.update_node(request)).await;
        }
    }
}

/// On the heap: clients' futures are large.
fn within<'a, T: 'a>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>> + Send + 'a,
) -> BoxFuture<'a, Result<tonic::Response<T>, Option<Status>>> {
    Box::pin(async move {
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(answer) => answer.map_err(Some),
            Err(_) => Err(None),
        }
    })
}

fn outcome<T>(answer: Result<tonic::Response<T>, Option<Status>>) -> Result<T, Option<Status>> {
    answer.map(tonic::Response::into_inner)
}

/// A refusal carries one of our codes; anything else may have happened.
fn failed<T>(status: Option<&Status>) -> Outcome<T> {
    match status.and_then(code_of) {
        Some(Code::UnknownOutcome) | None => Outcome::Unknown,
        Some(_) => Outcome::Refused,
    }
}
