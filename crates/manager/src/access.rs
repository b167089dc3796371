//! Who may call what: one table, keyed by the RPC's path, enforced for every request before any
//! handler runs. A test holds the table against the descriptors: an RPC without a row fails it.
//!
//! Also here: how many requests of users are worked on at a time. What is beyond is refused at once
//! and may be repeated; sessions of workers and what managers ask of each other are never kept
//! waiting by it.

use std::sync::Arc;
use std::task::{Context, Poll};

use cluster_identity::{PeerInfo, Role, TlsIdentity};
use cluster_wire::{Code, Failure};
use futures::future::{BoxFuture, Either, FutureExt as _, Ready, ready};
use http::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// Requests of users under way on one manager. Each takes a few milliseconds where there is no load,
/// so this is more than the managers get through in the time that a user waits.
pub const REQUESTS_MAX: usize = 512;
const USERS: &str = "/cluster.control.v1.Control/";

/// Callers an RPC admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// No certificate needed: the request itself proves the right.
    Anyone,
    Roles(&'static [Role]),
}

const ADMIN: Admit = Admit::Roles(&[Role::Admin]);
const WORKER: Admit = Admit::Roles(&[Role::Worker]);
const MANAGER: Admit = Admit::Roles(&[Role::Manager]);
const NODE: Admit = Admit::Roles(&[Role::Worker, Role::Manager]);
const MEMBER: Admit = Admit::Roles(&[Role::Worker, Role::Manager, Role::Admin]);

/// Every RPC we serve.
pub const TABLE: &[(&str, Admit)] = &[
    ("/cluster.ca.v1.Ca/ConfirmTrust", NODE),
    ("/cluster.ca.v1.Ca/Join", Admit::Anyone),
    ("/cluster.ca.v1.Ca/Recover", Admit::Anyone),
    ("/cluster.ca.v1.Ca/Renew", MEMBER),
    ("/cluster.control.v1.Control/ChangeManager", ADMIN),
    ("/cluster.control.v1.Control/CreateService", ADMIN),
    ("/cluster.control.v1.Control/Explain", ADMIN),
    ("/cluster.control.v1.Control/Forecast", ADMIN),
    ("/cluster.control.v1.Control/GetCluster", ADMIN),
    ("/cluster.control.v1.Control/GetNode", ADMIN),
    ("/cluster.control.v1.Control/GetSecurity", ADMIN),
    ("/cluster.control.v1.Control/GetService", ADMIN),
    ("/cluster.control.v1.Control/GetToken", ADMIN),
    ("/cluster.control.v1.Control/GetUnlockKey", ADMIN),
    ("/cluster.control.v1.Control/ListManagers", ADMIN),
    ("/cluster.control.v1.Control/ListNodes", ADMIN),
    ("/cluster.control.v1.Control/ListRevisions", ADMIN),
    ("/cluster.control.v1.Control/ListServices", ADMIN),
    ("/cluster.control.v1.Control/ListTasks", ADMIN),
    ("/cluster.control.v1.Control/Logs", ADMIN),
    ("/cluster.control.v1.Control/RemoveNode", ADMIN),
    ("/cluster.control.v1.Control/RemoveService", ADMIN),
    ("/cluster.control.v1.Control/RollBackService", ADMIN),
    ("/cluster.control.v1.Control/RotateCa", ADMIN),
    ("/cluster.control.v1.Control/SaveSnapshot", ADMIN),
    ("/cluster.control.v1.Control/SteerRollout", ADMIN),
    ("/cluster.control.v1.Control/UpdateCluster", ADMIN),
    ("/cluster.control.v1.Control/UpdateNode", ADMIN),
    ("/cluster.control.v1.Control/UpdateSecurity", ADMIN),
    ("/cluster.control.v1.Control/UpdateService", ADMIN),
    ("/cluster.control.v1.Control/WatchService", ADMIN),
    ("/cluster.dispatcher.v1.Dispatcher/PublishLogs", WORKER),
    ("/cluster.dispatcher.v1.Dispatcher/Session", WORKER),
    ("/cluster.peer.v1.Peer/CollectLogs", MANAGER),
    ("/cluster.peer.v1.Peer/Hear", MANAGER),
    ("/cluster.peer.v1.Peer/JoinGroup", MANAGER),
    ("/cluster.peer.v1.Peer/Standing", MANAGER),
    ("/cluster.peer.v1.Peer/SteerManager", MANAGER),
    ("/cluster.peer.v1.Peer/SurveyManagers", MANAGER),
    ("/cluster.raft.v1.Raft/AddManager", MANAGER),
    ("/cluster.raft.v1.Raft/Append", MANAGER),
    ("/cluster.raft.v1.Raft/Propose", MANAGER),
    ("/cluster.raft.v1.Raft/ReadIndex", MANAGER),
    ("/cluster.raft.v1.Raft/RemoveManager", MANAGER),
    ("/cluster.raft.v1.Raft/Snapshot", MANAGER),
    ("/cluster.raft.v1.Raft/TransferLeader", MANAGER),
    ("/cluster.raft.v1.Raft/Vote", MANAGER),
];

/// Refuses a caller that the table does not admit, or whose node was removed.
fn check(
    path: &str,
    info: Option<&PeerInfo>,
    is_removed: impl FnOnce(&str) -> bool,
) -> Result<(), Failure> {
    let Some((_, admit)) = TABLE.iter().find(|(row, _)| *row == path) else {
        let shown: String = path.chars().take(120).collect();
        return Err(Failure::new(Code::NotFound, format!("there is no RPC `{shown}` here")));
    };
    let Admit::Roles(roles) = admit else { return Ok(()) };
    let Some(peer) = info.and_then(|info| info.peer.as_ref()) else {
        let message = "this call needs a client certificate of the cluster";
        return Err(Failure::new(Code::NoCertificate, message));
    };
    if is_removed(&peer.node_id) {
        let message = format!("node `{}` was removed from the cluster", peer.node_id);
        return Err(Failure::new(Code::Removed, message));
    }
    if roles.contains(&peer.role) {
        return Ok(());
    }
    let wanted: Vec<String> = roles.iter().map(ToString::to_string).collect();
    let message = format!(
        "a {} certificate may not call {path}; it is for: {}",
        peer.role,
        wanted.join(", ")
    );
    Err(Failure::new(Code::WrongRole, message))
}

/// Puts the check in front of all services.
#[derive(Clone, Debug)]
pub struct AccessLayer {
    /// Knows the nodes that were removed.
    identity: TlsIdentity,
    /// Requests of users that may still begin.
    room: Arc<Semaphore>,
}

impl AccessLayer {
    pub fn new(identity: &TlsIdentity) -> Self {
        Self { identity: identity.clone(), room: Arc::new(Semaphore::new(REQUESTS_MAX)) }
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access { inner, identity: self.identity.clone(), room: self.room.clone() }
    }
}

#[derive(Clone, Debug)]
pub struct Access<S> {
    inner: S,
    identity: TlsIdentity,
    room: Arc<Semaphore>,
}

/// A place among the requests of users, for a path that needs one. It is given back with the answer;
/// an answer that is a stream is bounded by what reads it.
fn place(path: &str, room: &Arc<Semaphore>) -> Result<Option<OwnedSemaphorePermit>, Failure> {
    if !path.starts_with(USERS) {
        return Ok(None);
    }
    let full = |_| {
        let message = format!(
            "overloaded: this manager works on {REQUESTS_MAX} requests already; retry after 200 ms, and \
             wait longer each time"
        );
        Failure::new(Code::Busy, message)
    };
    room.clone().try_acquire_owned().map(Some).map_err(full)
}

impl<S, B> Service<Request<B>> for Access<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<
        BoxFuture<'static, Result<Response<Body>, S::Error>>,
        Ready<Result<Response<Body>, S::Error>>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let is_removed = |node: &str| self.identity.is_denied(node);
        let admitted = check(path, request.extensions().get::<PeerInfo>(), is_removed);
        match admitted.and_then(|()| place(path, &self.room)) {
            Ok(place) => {
                let answer = self.inner.call(request);
                Either::Left(answer.inspect(move |_| drop(place)).boxed())
            }
            Err(failure) => {
                // A flood must not become one of log lines.
                match failure.code {
                    Code::Busy => tracing::debug!(path, "put off a call"),
                    _ => tracing::info!(path, reason = %failure, "refused a call"),
                }
                Either::Right(ready(Ok(Status::from(failure).into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_rpc_has_a_row_and_every_row_an_rpc() {
        let set = FileDescriptorSet::decode(cluster_pb::DESCRIPTORS).expect("descriptors decode");
        let mut served = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let (package, service) = (file.package(), service.name());
                    served.insert(format!("/{package}.{service}/{}", method.name()));
                }
            }
        }
        let rows: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(rows.len(), TABLE.len(), "a row stands twice");
        assert_eq!(rows, served);
    }

    #[test]
    fn users_share_a_bounded_room_and_nobody_else_needs_one() {
        let room = Arc::new(Semaphore::new(1));
        let write = format!("{USERS}CreateService");
        let held = place(&write, &room).unwrap();
        assert!(held.is_some());
        assert_eq!(place(&write, &room).map(drop).unwrap_err().code, Code::Busy);
        assert!(place("/cluster.dispatcher.v1.Dispatcher/Session", &room).unwrap().is_none());
        drop(held);
        assert!(place(&write, &room).unwrap().is_some());
    }

    #[test]
    fn only_joining_and_coming_back_need_no_certificate() {
        let open: Vec<&str> = TABLE
            .iter()
            .filter(|(_, admit)| *admit == Admit::Anyone)
            .map(|(path, _)| *path)
            .collect();
        assert_eq!(open, ["/cluster.ca.v1.Ca/Join", "/cluster.ca.v1.Ca/Recover"]);
        for (path, admit) in TABLE {
            let anonymous = check(path, None, |_| false).map_err(|failure| failure.code);
            match admit {
                Admit::Anyone => assert_eq!(anonymous, Ok(())),
                Admit::Roles(_) => assert_eq!(anonymous, Err(Code::NoCertificate)),
            }
        }
    }
}
