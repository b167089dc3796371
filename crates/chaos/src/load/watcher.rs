//! Watchers: one stream after the other on one service, each message judged as it comes.

use std::sync::Arc;
use std::time::Duration;

use cluster_pb::control::v1 as pb;
use tonic::Streaming;

use super::Shared;
use super::client::Client;
use crate::check::Objection;
use crate::check::slots::Wanted;
use crate::check::watches::{Frame, Judge};
use crate::history::{Call, Kind, Outcome, Seen, Sighting};

const OPEN_WITHIN: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn run(mut client: Client, name: String) {
    let mut follower = Follower {
        judge: Judge::new(name.as_str()),
        shared: client.shared.clone(),
        name: name.clone(),
        previous: None,
        count: 0,
    };
    while !client.shared.is_over() {
        follower.judge.reopened();
        if let Some((place, mut control)) = client.control().await {
            let request = pb::WatchServiceRequest { service: name.clone() };
            let opened = tokio::time::timeout(OPEN_WITHIN, control.watch_service(request)).await;
            match opened {
                Ok(Ok(stream)) => follower.follow(&client, stream.into_inner()).await,
                // No such service is a good answer too, but leaves the manager alone as well.
                Ok(Err(_)) => {}
                Err(_) => client.forget(place),
            }
            if !client.shared.is_over() {
                client.forget(place);
            }
        }
        client.shared.lock().watched.insert(name.clone(), None);
        tokio::time::sleep(PAUSE).await;
    }
}

struct Follower {
    judge: Judge,
    shared: Arc<Shared>,
    name: String,
    previous: Option<pb::WatchServiceResponse>,
    /// Of different views; stands for a view's content.
    count: u64,
}

impl Follower {
    async fn follow(&mut self, client: &Client, mut stream: Streaming<pb::WatchServiceResponse>) {
        while !self.shared.is_over() {
            match tokio::time::timeout(LOOK, stream.message()).await {
                Ok(Ok(Some(message))) => self.take(client, message),
                Ok(Ok(None) | Err(_)) => return,
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, client: &Client, message: pb::WatchServiceResponse) {
        let Some(service) = message.service.clone() else { return };
        let (at, index) = (self.shared.now(), message.index);
        let mark = client.mark_of(&service);
        let content = pb::WatchServiceResponse { index: 0, ..message };
        if self.previous.as_ref() != Some(&content) {
            self.count += 1;
        }
        let tasks = content.tasks.iter();
        let frame = Frame {
            index,
            id: service.id.clone(),
            version: service.version,
            tasks: tasks
                .map(|task| (task.id.clone(), task.version, task.observed_state.clone()))
                .collect(),
            digest: self.count,
        };
        self.previous = Some(content);
        let objections = self.judge.feed(frame);
        let seen = Seen { id: service.id.clone(), version: service.version, mark, index };
        let mut inner = self.shared.lock();
        inner.objections.extend(objections);
        inner.history.sightings.push(Sighting { at, seen });
        inner.watched.insert(self.name.clone(), Some((service.id, service.version)));
    }
}

/// Watchers of services that there are, and do not hold what was read of them last.
pub(super) fn gaps(shared: &Shared, wanted: &[Wanted]) -> Vec<Objection> {
    let inner = shared.lock();
    let mut gaps = Vec::new();
    let there = |name: &str| wanted.iter().any(|service| service.service == name);
    for (name, held) in inner.watched.iter().filter(|(name, _)| there(name)) {
        let last = inner.history.ops.iter().rev().find_map(|op| match (&op.call, &op.outcome) {
            (Call::Read { kind: Kind::Service, name: read }, Outcome::Found(seen))
                if read == name =>
            {
                Some(seen)
            }
            _ => None,
        });
        let Some(seen) = last else { continue };
        if held.as_ref() != Some(&(seen.id.clone(), seen.version)) {
            let detail = format!("watch of {name}: it holds {held:?}, the last state is {seen:?}");
            gaps.push(Objection::new("watch", detail));
        }
    }
    gaps
}
