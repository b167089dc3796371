//! One client: any manager that answers, and a record of every request.
//!
//! A request goes to one manager, chosen by chance; a manager that cannot be connected to was asked
//! nothing, so the next one is. Nothing is ever sent twice; what may be, is in `insist`.

mod insist;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cluster_identity::{ChannelOptions, connect, find_connect_error};
use cluster_pb::control::v1 as pb;
use cluster_pb::control::v1::control_client::ControlClient;
use cluster_pb::types::v1 as types;
use cluster_wire::Code;
use cluster_wire::error::code_of;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::Shared;
use crate::error::Result;
use crate::history::{Call, Kind, Op, Outcome, Refusal, Seen};

pub(crate) type Control = ControlClient<Channel>;

/// Longer than a manager takes to say that it cannot.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);
const CONNECT_WITHIN: Duration = Duration::from_millis(1500);
pub(crate) const MARK: &str = "chaos-mark";

pub(crate) struct Client {
    pub shared: std::sync::Arc<Shared>,
    pub number: u32,
    pub random: StdRng,
    channels: HashMap<usize, Control>,
}

/// A service or node as read, with what is needed to write it again.
#[derive(Clone, Debug)]
pub(crate) struct Read<T> {
    pub seen: Seen,
    pub object: T,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    NeverSent,
    Status(Box<Status>),
    Silence,
}

impl Client {
    pub fn new(shared: std::sync::Arc<Shared>, number: u32, random: StdRng) -> Self {
        Self { shared, number, random, channels: HashMap::new() }
    }

    /// A manager that can be connected to, and its place in the list.
    pub async fn control(&mut self) -> Option<(usize, Control)> {
        let mut places: Vec<usize> = (0..self.shared.managers.len()).collect();
        places.shuffle(&mut self.random);
        for place in places {
            if let Some(control) = self.channels.get(&place) {
                return Some((place, control.clone()));
            }
            let options =
                ChannelOptions { connect_timeout: CONNECT_WITHIN, ..ChannelOptions::default() };
            let address = &self.shared.managers[place];
            if let Ok(channel) = connect(address, &self.shared.tls, &options).await {
                let control = ControlClient::new(channel);
                self.channels.insert(place, control.clone());
                return Some((place, control));
            }
        }
        None
    }

    pub fn forget(&mut self, place: usize) {
        self.channels.remove(&place);
    }

    async fn ask<Q, A>(
        &mut self,
        request: Q,
        send: impl AsyncFnOnce(Control, Q) -> Result<Response<A>, Status>,
    ) -> Result<A, Failed> {
        let Some((place, control)) = self.control().await else {
            return Err(Failed::NeverSent);
        };
        let answer = tokio::time::timeout(ANSWER_WITHIN, send(control, request)).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                self.forget(place);
                Err(Failed::Status(Box::new(status)))
            }
            Err(_) => {
                self.forget(place);
                Err(Failed::Silence)
            }
        }
    }

    fn note(&self, invoked: u64, call: Call, outcome: Outcome) {
        let op = Op { client: self.number, invoked, returned: self.shared.now(), call, outcome };
        self.shared.lock().history.ops.push(op);
    }

    pub async fn create(
        &mut self,
        mut spec: types::ServiceSpec,
    ) -> Result<pb::CreateServiceResponse, Failed> {
        let (mark, label) = self.shared.mark();
        spec.labels.insert(MARK.to_owned(), label);
        let call = Call::Create { name: spec.name.clone(), mark };
        let invoked = self.shared.now();
        let request = pb::CreateServiceRequest { spec: Some(spec) };
        let answer = Box::pin(self.ask(request, async |mut control: Control, request| {
            control.create_service(request).await
        }))
        .await;
        let outcome = match &answer {
            Ok(made) => Outcome::Created { id: made.id.clone(), version: made.version },
            Err(failed) => outcome(failed),
        };
        self.note(invoked, call, outcome);
        answer
    }

    pub async fn update(&mut self, read: &Read<types::Service>, mut spec: types::ServiceSpec) {
        let (mark, label) = self.shared.mark();
        spec.labels.insert(MARK.to_owned(), label);
        let (id, version) = (read.seen.id.clone(), read.seen.version);
        let call = Call::Update { kind: Kind::Service, id: id.clone(), read: version, mark };
        let invoked = self.shared.now();
        let request =
            pb::UpdateServiceRequest { id, version, spec: Some(spec), remove_tasks: Vec::new() };
        let answer = Box::pin(self.ask(request, async |mut control: Control, request| {
            control.update_service(request).await
        }))
        .await;
        let outcome = match &answer {
            Ok(made) => Outcome::Updated { version: made.version },
            Err(failed) => outcome(failed),
        };
        self.note(invoked, call, outcome);
    }

    pub async fn remove(&mut self, read: &Read<types::Service>) {
        let (id, version) = (read.seen.id.clone(), read.seen.version);
        let call = Call::Remove { id: id.clone(), read: version };
        let invoked = self.shared.now();
        let request = pb::RemoveServiceRequest { service: id.clone(), version: Some(version) };
        let answer = Box::pin(self.ask(request, async |mut control: Control, request| {
            control.remove_service(request).await
        }))
        .await;
        let outcome = match &answer {
            Ok(_) => Outcome::Removed,
            Err(failed) => outcome(failed),
        };
        if outcome == Outcome::Removed {
            self.shared.lock().removed.insert(id, Instant::now());
        }
        self.note(invoked, call, outcome);
    }

    /// `Ok(None)`: there is none.
    pub async fn read(&mut self, name: &str) -> Result<Option<Read<types::Service>>, Failed> {
        let call = Call::Read { kind: Kind::Service, name: name.to_owned() };
        let invoked = self.shared.now();
        let request = pb::GetServiceRequest { service: name.to_owned(), stale: false };
        let answer = Box::pin(self.ask(request, async |mut control: Control, request| {
            control.get_service(request).await
        }))
        .await;
        let read = answer.and_then(|answer| {
            let index = answer.index;
            let service = answer.service.ok_or(Failed::Silence)?;
            let mark = self.mark_of(&service);
            let seen = Seen { id: service.id.clone(), version: service.version, mark, index };
            Ok(Read { seen, object: service })
        });
        self.note_read(invoked, call, read)
    }

    pub async fn read_node(&mut self, name: &str) -> Result<Option<Read<types::Node>>, Failed> {
        let call = Call::Read { kind: Kind::Node, name: name.to_owned() };
        let invoked = self.shared.now();
        let request = pb::GetNodeRequest { node: name.to_owned(), stale: false };
        let answer =
            Box::pin(self.ask(request, async |mut control: Control, request| {
                control.get_node(request).await
            }))
            .await;
        let read = answer.and_then(|answer| {
            let index = answer.index;
            let node = answer.node.ok_or(Failed::Silence)?;
            let mark = self.shared.read_mark(node.labels.get(MARK));
            let seen = Seen { id: node.id.clone(), version: node.version, mark, index };
            Ok(Read { seen, object: node })
        });
        self.note_read(invoked, call, read)
    }

    fn note_read<T>(
        &self,
        invoked: u64,
        call: Call,
        read: Result<Read<T>, Failed>,
    ) -> Result<Option<Read<T>>, Failed> {
        let (noted, read) = match read {
            Ok(read) => (Outcome::Found(read.seen.clone()), Ok(Some(read))),
            Err(failed) if outcome(&failed) == Outcome::Refused(Refusal::NotFound) => {
                (Outcome::Missing, Ok(None))
            }
            Err(failed) => (outcome(&failed), Err(failed)),
        };
        self.note(invoked, call, noted);
        read
    }

    /// Sets a node's availability, if nobody changed the node meanwhile.
    pub async fn set_availability(&mut self, read: &Read<types::Node>, availability: &str) -> bool {
        let (mark, label) = self.shared.mark();
        let (id, version) = (read.seen.id.clone(), read.seen.version);
        let call = Call::Update { kind: Kind::Node, id: id.clone(), read: version, mark };
        let mut labels = read.object.labels.clone();
        labels.insert(MARK.to_owned(), label);
        let invoked = self.shared.now();
        let request = pb::UpdateNodeRequest {
            id,
            version,
            availability: availability.to_owned(),
            labels,
            ..Default::default()
        };
        let answer = Box::pin(self.ask(request, async |mut control: Control, request| {
            control.update_node(request).await
        }))
        .await;
        let outcome = match &answer {
            Ok(made) => Outcome::Updated { version: made.version },
            Err(failed) => outcome(failed),
        };
        self.note(invoked, call, outcome);
        answer.is_ok()
    }

    pub fn mark_of(&self, service: &types::Service) -> u64 {
        let labels = service.spec.as_ref().map(|spec| &spec.labels);
        self.shared.read_mark(labels.and_then(|labels| labels.get(MARK)))
    }

    pub async fn pause(&mut self, millis: std::ops::Range<u64>) {
        let pause = self.random.random_range(millis);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// As `pause`, but ends early when the writers shall end.
    pub async fn rest(&mut self, millis: std::ops::Range<u64>) {
        let until = Instant::now() + Duration::from_millis(self.random.random_range(millis));
        while !self.shared.is_calm() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Only what certainly changed nothing is a refusal.
pub(crate) fn outcome(failed: &Failed) -> Outcome {
    let status = match failed {
        Failed::NeverSent => return Outcome::Refused(Refusal::Unavailable),
        Failed::Silence => return Outcome::Unknown,
        Failed::Status(status) => status,
    };
    if find_connect_error(status.as_ref()).is_some() {
        return Outcome::Refused(Refusal::Unavailable);
    }
    match code_of(status) {
        None | Some(Code::UnknownOutcome | Code::Internal) => Outcome::Unknown,
        Some(Code::VersionMoved) => Outcome::Refused(Refusal::VersionMoved),
        Some(Code::NotFound) => Outcome::Refused(Refusal::NotFound),
        Some(Code::NameTaken) => Outcome::Refused(Refusal::NameTaken),
        Some(Code::NoLeader | Code::Stopping | Code::Busy) => {
            Outcome::Refused(Refusal::Unavailable)
        }
        Some(code) => Outcome::Refused(Refusal::Other(code.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use cluster_wire::Failure;

    use super::*;

    fn of(status: Status) -> Outcome {
        outcome(&Failed::Status(Box::new(status)))
    }

    #[test]
    fn only_what_says_so_changed_nothing() {
        let told = |code| of(Failure::new(code, "told").into());
        assert_eq!(told(Code::VersionMoved), Outcome::Refused(Refusal::VersionMoved));
        assert_eq!(told(Code::NoLeader), Outcome::Refused(Refusal::Unavailable));
        assert_eq!(told(Code::PortTaken), Outcome::Refused(Refusal::Other("E0104")));
        assert_eq!(told(Code::UnknownOutcome), Outcome::Unknown);
        assert_eq!(told(Code::Internal), Outcome::Unknown);
        assert_eq!(of(Status::unavailable("the connection broke")), Outcome::Unknown);
        assert_eq!(outcome(&Failed::Silence), Outcome::Unknown);
        assert_eq!(outcome(&Failed::NeverSent), Outcome::Refused(Refusal::Unavailable));
    }
}
