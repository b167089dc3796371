//! A worker played by a test: speaks the dispatcher's protocol and runs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_identity::TlsIdentity;
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::dispatcher::v1::dispatcher_client::DispatcherClient;
use cluster_pb::dispatcher::v1::manager_message::Item as Heard;
use cluster_pb::dispatcher::v1::worker_message::Item as Said;
use cluster_pb::types::v1 as types;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{Manager, PATIENCE, channel};

pub struct Worker {
    pub id: String,
    pub identity: TlsIdentity,
    pub boot: u64,
}

impl Worker {
    pub fn new(identity: TlsIdentity) -> Self {
        Self { id: identity.identity().node_id.clone(), identity, boot: 1 }
    }

    fn hello(&self) -> pb::Hello {
        let description = types::NodeDescription {
            address: "127.0.0.1".into(),
            mesh_port: 7101,
            os: "linux".into(),
            arch: "x86_64".into(),
            boot: self.boot,
            capacity: Some(types::Resources { cpu_nanos: 4_000_000_000, memory_bytes: 1 << 32 }),
            healthy: true,
            ..Default::default()
        };
        pb::Hello { description: Some(description) }
    }

    /// Opens a session that has said hello and whose heart beats.
    pub async fn open(&self, manager: &Manager) -> Session {
        let channel = channel(&manager.address, &self.identity);
        let (out, receiver) = mpsc::channel(64);
        out.send(say(Said::Hello(self.hello()))).await.unwrap();
        let inbound = DispatcherClient::new(channel.clone())
            .session(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        Session {
            channel,
            beat: tokio::spawn(beat(out.clone())),
            out,
            inbound,
            sequence: 0,
            said: Vec::new(),
            heard: Known::default(),
        }
    }

    /// Opens a session and waits for its first full sets.
    pub async fn ready(&self, manager: &Manager) -> Session {
        let mut session = self.open(manager).await;
        session.until("the full sets", |known| known.full && known.endpoints.is_some()).await;
        session
    }
}

fn say(item: Said) -> pb::WorkerMessage {
    pb::WorkerMessage { item: Some(item) }
}

async fn beat(out: mpsc::Sender<pb::WorkerMessage>) {
    let mut period = tokio::time::interval(Duration::from_millis(200));
    loop {
        period.tick().await;
        if out.send(say(Said::Heartbeat(pb::Heartbeat::default()))).await.is_err() {
            return;
        }
    }
}

/// What a session has heard so far.
#[derive(Debug, Default)]
pub struct Known {
    pub welcome: Option<pb::Welcome>,
    pub managers: Vec<String>,
    pub full: bool,
    pub stamp: (u64, u64),
    pub sequence: u64,
    pub assignments: BTreeMap<String, pb::Assignment>,
    /// Version, and backends by service.
    pub endpoints: Option<u64>,
    pub backends: BTreeMap<String, BTreeSet<String>>,
    pub withdrawn: u64,
    pub reported: u64,
    pub log_requests: Vec<pb::LogRequest>,
    pub trust: Option<pb::Trust>,
}

impl Known {
    pub fn desired(&self, task: &str) -> Option<&str> {
        self.assignments.get(task).map(|assignment| assignment.desired_state.as_str())
    }

    fn learn(&mut self, item: Heard) {
        match item {
            Heard::Welcome(welcome) => self.welcome = Some(welcome),
            Heard::Managers(managers) => self.managers = managers.addresses,
            Heard::Assignments(message) => self.assigned(message),
            Heard::Endpoints(message) => {
                if message.full {
                    self.backends.clear();
                }
                for service in message.services {
                    let known = self.backends.entry(service.service_id).or_default();
                    if !service.delta {
                        known.clear();
                    }
                    known.extend(service.backends.into_iter().map(|backend| backend.task_id));
                    known.retain(|task| !service.gone.contains(task));
                }
                for gone in message.gone {
                    self.backends.remove(&gone);
                }
                self.endpoints = Some(message.version);
            }
            Heard::Withdrawn(withdrawn) => {
                assert!(withdrawn.version >= self.withdrawn, "withdrawn goes back");
                self.withdrawn = withdrawn.version;
            }
            Heard::Heard(_) => {}
            Heard::Trust(trust) => self.trust = Some(trust),
            Heard::Reported(reported) => self.reported = reported.sequence,
            Heard::LogRequest(request) => self.log_requests.push(request),
        }
    }

    fn assigned(&mut self, message: pb::Assignments) {
        assert_eq!(message.sequence, self.sequence + 1, "a gap");
        let stamp = (message.term, message.version);
        assert!(stamp >= self.stamp, "{stamp:?} is older than {:?}", self.stamp);
        (self.sequence, self.stamp) = (message.sequence, stamp);
        for mut task in message.tasks {
            let known = self.assignments.get(&task.task_id);
            let same_spec = |other: &pb::Assignment| {
                (&other.service_id, other.revision) == (&task.service_id, task.revision)
            };
            let spec = || self.assignments.values().find(|other| same_spec(other))?.spec.clone();
            task.spec = task.spec.clone().or_else(|| known?.spec.clone()).or_else(spec);
            assert!(task.spec.is_some(), "no spec for {}", task.task_id);
            self.assignments.insert(task.task_id.clone(), task);
        }
        for task in message.removed {
            self.assignments.remove(&task);
        }
        self.full |= message.full && !message.more;
    }
}

pub struct Session {
    channel: Channel,
    out: mpsc::Sender<pb::WorkerMessage>,
    inbound: Streaming<pb::ManagerMessage>,
    beat: JoinHandle<()>,
    sequence: u64,
    said: Vec<pb::Report>,
    pub heard: Known,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.beat.abort();
    }
}

impl Session {
    /// Stops speaking without closing anything.
    pub fn fall_silent(&self) {
        self.beat.abort();
    }

    pub fn speak_again(&mut self) {
        self.beat = tokio::spawn(beat(self.out.clone()));
    }

    async fn say(&self, item: Said) {
        self.out.send(say(item)).await.unwrap();
    }

    pub async fn acknowledge(&self, endpoints_version: u64) {
        self.say(Said::Acknowledge(pb::Acknowledge { endpoints_version })).await;
    }

    /// Reports states; answers the report's number.
    pub async fn report(&mut self, tasks: &[(&str, &str)]) -> u64 {
        self.sequence += 1;
        let report = |(task, state): &(&str, &str)| pb::TaskReport {
            task_id: (*task).into(),
            state: (*state).into(),
            at_ms: 1,
            ready: *state == "running",
            ..Default::default()
        };
        let report =
            pb::Report { sequence: self.sequence, tasks: tasks.iter().map(report).collect() };
        self.said.push(report.clone());
        self.say(Said::Report(report)).await;
        self.sequence
    }

    /// Reports a state and waits until it is recorded.
    pub async fn becomes(&mut self, task: &str, state: &str) {
        let sequence = self.report(&[(task, state)]).await;
        self.until("the report to be recorded", |known| known.reported >= sequence).await;
    }

    /// Takes every assignment that comes to running until there are so many.
    pub async fn run(&mut self, count: usize) -> Vec<String> {
        self.until("assignments", |known| known.assignments.len() >= count).await;
        let tasks: Vec<String> = self.heard.assignments.keys().cloned().collect();
        for task in &tasks {
            self.becomes(task, "running").await;
        }
        tasks
    }

    /// Listens until something is known.
    pub async fn until(&mut self, what: &str, done: impl Fn(&Known) -> bool) {
        let listening = async {
            while !done(&self.heard) {
                match self.inbound.message().await {
                    Ok(Some(message)) => self.heard.learn(message.item.unwrap()),
                    ended => panic!("the session ended ({ended:?}) before {what}"),
                }
            }
        };
        if tokio::time::timeout(PATIENCE, listening).await.is_err() {
            panic!("waited in vain for {what}: {:?}", self.heard);
        }
    }

    /// Listens for a while in which something must not come to be known.
    pub async fn never(&mut self, wait: Duration, what: &str, wrong: impl Fn(&Known) -> bool) {
        let listening = async {
            while let Ok(Some(message)) = self.inbound.message().await {
                self.heard.learn(message.item.unwrap());
                assert!(!wrong(&self.heard), "{what}: {:?}", self.heard);
            }
            panic!("the session ended");
        };
        let _: Result<(), _> = tokio::time::timeout(wait, listening).await;
    }

    /// Listens until the manager ends the session.
    pub async fn end(&mut self) -> Status {
        let listening = async {
            loop {
                match self.inbound.message().await {
                    Ok(Some(message)) => self.heard.learn(message.item.unwrap()),
                    Ok(None) => panic!("it ended without a word"),
                    Err(status) => return status,
                }
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("the session should end")
    }

    /// Opens the stream of lines that was asked for; it lasts as long as the sender.
    pub fn publish(&self) -> mpsc::Sender<pb::PublishLogsRequest> {
        let (lines, receiver) = mpsc::channel(8);
        let mut client = DispatcherClient::new(self.channel.clone());
        tokio::spawn(async move { client.publish_logs(ReceiverStream::new(receiver)).await });
        lines
    }
}
