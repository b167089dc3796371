//! A manager that says what the test wants: CA, join and sessions are real, decisions are not.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_identity::{
    Ca, DEFAULT_VALIDITY, Identity, JoinSecret, JoinToken, KeyAndCsr, Leaf, PeerInfo, Protocol,
    Role, Subject, TlsIdentity, TlsServer, now_unix, serve_tls,
};
use cluster_pb::ca::v1 as ca;
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::dispatcher::v1::manager_message::Item as Says;
use cluster_pb::dispatcher::v1::worker_message::Item as Told;
use futures::{Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub const SOON: Duration = Duration::from_secs(20);
pub const CLUSTER: &str = "0000000000001";

/// One session as the test sees it.
pub struct Session {
    pub told: mpsc::Receiver<Told>,
    says: mpsc::Sender<Result<pb::ManagerMessage, Status>>,
    assignments: u64,
    /// Reports that came in the same messages as others the test waited for.
    heard: Vec<pb::TaskReport>,
    /// Sequence of the last message with reports, 0 if it was answered.
    unanswered: u64,
}

impl Session {
    pub async fn say(&self, item: Says) {
        self.says.send(Ok(pb::ManagerMessage { item: Some(item) })).await.unwrap();
    }

    /// Ends the session with an error.
    pub async fn refuse(&self, status: Status) {
        self.says.send(Err(status)).await.unwrap();
    }

    /// Next message that `pick` wants; others are passed over.
    pub async fn expect<T>(&mut self, mut pick: impl FnMut(Told) -> Option<T>) -> T {
        let next = async {
            loop {
                let told = self.told.recv().await.expect("the worker closed the session");
                if let Some(found) = pick(told) {
                    return found;
                }
            }
        };
        tokio::time::timeout(SOON, next).await.expect("the worker did not say it in time")
    }

    /// Waits for a report of `state` and leaves it unanswered.
    pub async fn report(&mut self, task: &str, state: &str) -> pb::TaskReport {
        self.hear(task, state, false).await
    }

    /// Waits for a report of `state` and answers all that come.
    pub async fn recorded(&mut self, task: &str, state: &str) -> pb::TaskReport {
        self.hear(task, state, true).await
    }

    async fn hear(&mut self, task: &str, state: &str, answer: bool) -> pb::TaskReport {
        loop {
            if answer && self.unanswered > 0 {
                let sequence = std::mem::take(&mut self.unanswered);
                self.say(Says::Reported(pb::Reported { sequence })).await;
            }
            let wanted = |report: &pb::TaskReport| report.task_id == task && report.state == state;
            if let Some(place) = self.heard.iter().position(wanted) {
                return self.heard.remove(place);
            }
            let message = self
                .expect(|told| match told {
                    Told::Report(report) => Some(report),
                    _ => None,
                })
                .await;
            self.unanswered = message.sequence;
            self.heard.extend(message.tasks);
        }
    }

    pub async fn acknowledged(&mut self, version: u64) {
        self.expect(|told| match told {
            Told::Acknowledge(ack) if ack.endpoints_version >= version => Some(()),
            _ => None,
        })
        .await
    }

    pub async fn assign(&mut self, version: u64, full: bool, tasks: Vec<pb::Assignment>) {
        self.change(version, full, tasks, Vec::new()).await;
    }

    pub async fn change(
        &mut self,
        version: u64,
        full: bool,
        tasks: Vec<pb::Assignment>,
        removed: Vec<String>,
    ) {
        self.assignments += 1;
        let sequence = self.assignments;
        let message =
            pb::Assignments { term: 1, version, sequence, full, more: false, tasks, removed };
        self.say(Says::Assignments(message)).await;
    }

    /// Until the worker has closed the session.
    pub async fn closed(&mut self) {
        let drained = async { while self.told.recv().await.is_some() {} };
        tokio::time::timeout(SOON, drained).await.expect("the worker kept the session");
    }
}

struct Shared {
    ca: Ca,
    worker_secret: JoinSecret,
    address: SocketAddr,
    sessions: mpsc::Sender<Session>,
    /// Heartbeats are answered.
    hears: AtomicBool,
    lines: Mutex<Vec<pb::LogLine>>,
    published: tokio::sync::Notify,
    taken_back: AtomicUsize,
    confirmed: Mutex<Vec<Vec<String>>>,
    /// The CA that takes the place of `ca`, and what leads from it to that one.
    next: Mutex<Option<(Ca, String)>>,
}

pub struct Manager {
    shared: Arc<Shared>,
    sessions: mpsc::Receiver<Session>,
    server: tokio::task::JoinHandle<()>,
}

impl Manager {
    pub async fn start() -> Self {
        let ca = Ca::create(CLUSTER, now_unix()).unwrap();
        let tls =
            TlsIdentity::new(issue(&ca, Role::Manager, "00000000000m1", DEFAULT_VALIDITY)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sender, sessions) = mpsc::channel(8);
        let shared = Arc::new(Shared {
            ca,
            worker_secret: JoinSecret::generate().unwrap(),
            address: listener.local_addr().unwrap(),
            sessions: sender,
            hears: AtomicBool::new(true),
            lines: Mutex::default(),
            published: tokio::sync::Notify::new(),
            taken_back: AtomicUsize::new(0),
            confirmed: Mutex::default(),
            next: Mutex::default(),
        });
        let incoming = serve_tls(listener, TlsServer::new(&tls, Protocol::Grpc));
        let service = Service(shared.clone());
        let server = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(pb::dispatcher_server::DispatcherServer::new(service.clone()))
                .add_service(ca::ca_server::CaServer::new(service))
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self { shared, sessions, server }
    }

    pub fn address(&self) -> String {
        self.shared.address.to_string()
    }

    pub fn token(&self, role: Role) -> String {
        let secret = self.shared.worker_secret.clone();
        JoinToken { role, ca_digest: self.shared.ca.digest(), secret }.to_string()
    }

    /// One that was signed a while ago.
    pub fn identity_signed(&self, node_id: &str, ago: Duration, validity: Duration) -> Identity {
        let at = now_unix() - ago.as_secs();
        issue_at(&self.shared.ca, Role::Worker, node_id, at, validity)
    }

    /// How often a node with an expired certificate was taken back, and with which CAs a node said
    /// it trusts.
    pub fn taken_back(&self) -> usize {
        self.shared.taken_back.load(Ordering::SeqCst)
    }

    pub fn confirmed(&self) -> Vec<Vec<String>> {
        self.shared.confirmed.lock().unwrap().clone()
    }

    /// What a worker is told of certificates when the CA is being replaced; both CAs count.
    pub fn replace_ca(&self) -> pb::Trust {
        let next = Ca::create(CLUSTER, now_unix()).unwrap();
        let old = &self.shared.ca;
        let cas = format!("{}{}", next.cert_pem(), old.cert_pem());
        let cross = old.cross_sign(&next, now_unix()).unwrap();
        *self.shared.next.lock().unwrap() = Some((next, format!("{cross}{}", old.cert_pem())));
        pb::Trust { cas, cert_validity_s: 90 * 86_400, confirm: true, ..Default::default() }
    }

    /// The next session, after its hello.
    pub async fn session(&mut self) -> (Session, pb::Hello) {
        let next = tokio::time::timeout(SOON, self.sessions.recv());
        let mut session = next.await.expect("no session in time").unwrap();
        let hello = session
            .expect(|told| match told {
                Told::Hello(hello) => Some(hello),
                other => panic!("hello is not first: {other:?}"),
            })
            .await;
        session
            .say(Says::Welcome(pb::Welcome {
                heartbeat_period_ms: 100,
                lease_ms: 300,
                node_name: "w".into(),
                session_id: "s".into(),
            }))
            .await;
        (session, hello)
    }

    /// From now on heartbeats are answered, or not.
    pub fn set_hears(&self, hears: bool) {
        self.shared.hears.store(hears, Ordering::SeqCst);
    }

    /// Lines that workers have published, once there are `count`.
    pub async fn lines(&self, count: usize) -> Vec<pb::LogLine> {
        let enough = async {
            loop {
                let published = self.shared.published.notified();
                if self.shared.lines.lock().unwrap().len() >= count {
                    return self.shared.lines.lock().unwrap().clone();
                }
                published.await;
            }
        };
        tokio::time::timeout(SOON, enough).await.expect("lines are missing")
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn issue(ca: &Ca, role: Role, node_id: &str, validity: Duration) -> Identity {
    issue_at(ca, role, node_id, now_unix(), validity)
}

fn issue_at(ca: &Ca, role: Role, node_id: &str, at: u64, validity: Duration) -> Identity {
    let key = KeyAndCsr::generate().unwrap();
    let subject = Subject { role, node_id: node_id.into(), cluster_id: CLUSTER.into() };
    let chain = ca.sign(key.csr_pem.as_bytes(), &subject, at, validity).unwrap();
    Identity::new(chain, key.key_pem, ca.cert_pem().to_owned()).unwrap()
}

#[derive(Clone)]
struct Service(Arc<Shared>);

type Messages = Pin<Box<dyn Stream<Item = Result<pb::ManagerMessage, Status>> + Send>>;

#[tonic::async_trait]
impl pb::dispatcher_server::Dispatcher for Service {
    type SessionStream = Messages;

    async fn session(
        &self,
        request: Request<Streaming<pb::WorkerMessage>>,
    ) -> Result<Response<Messages>, Status> {
        let peer = request.extensions().get::<PeerInfo>().and_then(|info| info.peer.clone());
        assert_eq!(peer.map(|peer| peer.role), Some(Role::Worker));
        let mut inbound = request.into_inner();
        let (tell, told) = mpsc::channel(1024);
        let (says, outbound) = mpsc::channel(64);
        let ending = says.clone();
        let shared = self.0.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = inbound.next().await {
                if let Some(Told::Heartbeat(beat)) = &message.item
                    && shared.hears.load(Ordering::SeqCst)
                {
                    let heard = pb::Heard { sequence: beat.sequence };
                    let _ = ending
                        .send(Ok(pb::ManagerMessage { item: Some(Says::Heard(heard)) }))
                        .await;
                }
                if let Some(item) = message.item
                    && tell.send(item).await.is_err()
                {
                    // The test has dropped its end: so does a manager that goes away.
                    let _ = ending.send(Err(Status::unavailable("going away"))).await;
                    return;
                }
            }
        });
        let session = Session { told, says, assignments: 0, heard: Vec::new(), unanswered: 0 };
        self.0.sessions.send(session).await.map_err(|_| Status::unavailable("over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<pb::PublishLogsRequest>>,
    ) -> Result<Response<pb::PublishLogsResponse>, Status> {
        let mut stream = request.into_inner();
        while let Some(message) = stream.message().await? {
            self.0.lines.lock().unwrap().extend(message.lines);
            self.0.published.notify_waiters();
        }
        Ok(Response::new(pb::PublishLogsResponse {}))
    }
}

#[tonic::async_trait]
impl ca::ca_server::Ca for Service {
    async fn join(
        &self,
        request: Request<ca::JoinRequest>,
    ) -> Result<Response<ca::JoinResponse>, Status> {
        let request = request.into_inner();
        let token: JoinToken =
            request.token.parse().map_err(|_| Status::invalid_argument("token"))?;
        if !token.secret.matches(&self.0.worker_secret) {
            return Err(Status::unauthenticated("the token was rotated"));
        }
        let node_id = "00000000000w9".to_owned();
        let subject =
            Subject { role: Role::Worker, node_id: node_id.clone(), cluster_id: CLUSTER.into() };
        let chain = self
            .0
            .ca
            .sign(&request.csr_der, &subject, now_unix(), DEFAULT_VALIDITY)
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(ca::JoinResponse {
            node_id,
            cluster_id: CLUSTER.into(),
            chain,
            ca: self.0.ca.cert_pem().to_owned(),
            managers: vec![self.0.address.to_string()],
        }))
    }

    async fn renew(
        &self,
        request: Request<ca::RenewRequest>,
    ) -> Result<Response<ca::RenewResponse>, Status> {
        let peer = request.extensions().get::<PeerInfo>().and_then(|info| info.peer.clone());
        let peer = peer.ok_or_else(|| Status::unauthenticated("no certificate"))?;
        let subject =
            Subject { role: peer.role, node_id: peer.node_id, cluster_id: peer.cluster_id };
        let csr = request.into_inner().csr_der;
        Ok(Response::new(self.sign(&csr, &subject)?))
    }

    async fn recover(
        &self,
        request: Request<ca::RecoverRequest>,
    ) -> Result<Response<ca::RenewResponse>, Status> {
        let shown = request.extensions().get::<PeerInfo>().and_then(|info| info.peer.clone());
        assert!(shown.is_none(), "an expired certificate was shown");
        let request = request.into_inner();
        let message = [b"cluster recover", &request.csr_der[..]].concat();
        let ours = self.0.ca.cert_pem();
        let leaf = Leaf::verify(&request.certificate, ours, &message, &request.signature)
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        self.0.taken_back.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(self.sign(&request.csr_der, &leaf.subject)?))
    }

    async fn confirm_trust(
        &self,
        request: Request<ca::ConfirmTrustRequest>,
    ) -> Result<Response<ca::ConfirmTrustResponse>, Status> {
        self.0.confirmed.lock().unwrap().push(request.into_inner().ca_digests);
        Ok(Response::new(ca::ConfirmTrustResponse {}))
    }
}

impl Service {
    fn sign(&self, csr: &[u8], subject: &Subject) -> Result<ca::RenewResponse, Status> {
        let failed = |error: cluster_identity::CaError| Status::internal(error.to_string());
        let old = &self.0.ca;
        if let Some((next, to_old)) = &*self.0.next.lock().unwrap() {
            let chain = next.sign(csr, subject, now_unix(), DEFAULT_VALIDITY).map_err(failed)?;
            let ca = format!("{}{}", next.cert_pem(), old.cert_pem());
            return Ok(ca::RenewResponse { chain: format!("{chain}{to_old}"), ca });
        }
        let chain = old.sign(csr, subject, now_unix(), DEFAULT_VALIDITY).map_err(failed)?;
        Ok(ca::RenewResponse { chain, ca: old.cert_pem().to_owned() })
    }
}
