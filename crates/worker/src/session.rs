//! The one stream to a manager: says what this machine is and what becomes of its tasks, hears what
//! to run.
//!
//! *Flow*: hello; then heartbeats, reports and acknowledgements out, assignments, endpoints and
//! requests in. Any manager will do; when one is lost, or says something older than what is known
//! here, the next one is dialled, with back-off and jitter.
//!
//! *Guarantees*: assignments are on disk before anybody acts on them. Nothing here ends a container
//! because a manager is silent: the supervisors of tasks that want that do (see
//! [`crate::contact`]).
//!
//! *On failure*: a manager that is gone closes the connection or stops answering pings; both end
//! the session within two seconds, and later where sessions keep ending that way: the managers may
//! be alive and slow. Only removal from the cluster ends the loop.

pub mod managers;

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use cluster_daemon::{Backoff, Scope, chain};
use cluster_identity::{
    ChannelOptions, ConnectError, Patience, TlsClient, TlsIdentity, connect, find_connect_error,
};
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::dispatcher::v1::dispatcher_client::DispatcherClient;
use cluster_pb::dispatcher::v1::manager_message::Item as Heard;
use cluster_pb::dispatcher::v1::worker_message::Item as Said;
use cluster_pb::types::v1::NodeDescription;
use cluster_wire::Code;
use cluster_wire::error::code_of;
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::assignments::{self, Intake, Table, store};
use crate::contact::{Beats, Moment};
use crate::endpoints::{self, Following, Told};
use crate::logs::Requests;
use crate::node::Node;
use crate::pulse;
use crate::report::Reporting;
use crate::task::Tasks;
use crate::trust::Trust;
pub use managers::Managers;

/// Messages that may wait for the connection; more means that the manager does not read.
const OUTGOING_MAX: usize = 64;
const MESSAGE_BYTES_MAX: usize = 16 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// However patient: an address that leads nowhere must not keep the node from the next one.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
const OPEN_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// Together they bound how long a manager may be gone unnoticed. While heartbeats are answered, once
/// a second, no ping is sent.
const PING_PERIOD: Duration = Duration::from_millis(1100);
const PING_TIMEOUT: Duration = Duration::from_millis(600);
/// A session that ends so long after the last word of the manager ended because of its silence: while
/// it is well it answers a heartbeat each second.
const SILENT_AFTER: Duration = Duration::from_millis(1500);
/// Until the manager says otherwise.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(1);
/// How long containers may take to stop when the node was removed.
const LEAVE_MAX: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long after assignments could not be written down it is tried again.
const WRITE_RETRY: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("connecting failed")]
    Connect(#[source] ConnectError),
    #[error("the manager did not open the session in time")]
    Silent,
    #[error("the manager refused or broke the session")]
    Status(#[source] Box<Status>),
    #[error("the manager closed the session")]
    Closed,
    #[error("the manager does not read what is sent")]
    Stuck,
    #[error("its assignments were refused")]
    Assignments(#[source] assignments::Refused),
    #[error("its endpoints were refused")]
    Endpoints(#[source] endpoints::Refused),
    #[error("the assignments could not be written down: the write was interrupted")]
    Interrupted,
}

impl Ended {
    /// Nothing came in time; the last word of the manager is so old.
    fn is_silence(&self, silent_for: Duration) -> bool {
        match self {
            Ended::Connect(error) => matches!(error, ConnectError::Timeout { .. }),
            Ended::Silent => true,
            // One with a code is the manager's word.
            Ended::Status(status) => code_of(status).is_none() && silent_for >= SILENT_AFTER,
            _ => false,
        }
    }
}

/// This node is no longer a member.
#[derive(Debug, thiserror::Error)]
#[error(
    "this node was removed from the cluster, and its containers were told to stop; to join again, start \
     the worker with an empty data folder and a join token"
)]
pub struct Removed;

/// Everything a session works on; outlives sessions.
pub struct Agent {
    pub node: Arc<Node>,
    pub tls: TlsIdentity,
    pub trust: Trust,
    pub managers: Arc<Managers>,
    pub description: NodeDescription,
    pub table: Table,
    pub tasks: Tasks,
    pub following: Arc<Following>,
    pub scope: Scope,
    /// When a manager said something last in the present session, or that session began.
    pub last_word: Instant,
}

impl Agent {
    /// Keeps a session open for ever.
    pub async fn run(mut self) -> Result<std::convert::Infallible, Removed> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let mut patience = Patience::default();
        let mut failures = 0u32;
        loop {
            self.node.pulse.beat();
            let address = self.managers.next();
            let begun = Instant::now();
            self.last_word = begun;
            let ended = self.session(&address, patience, &mut failures).await;
            let was_connected = self.node.hearing.borrow().connected;
            self.node.hearing.send_modify(|hearing| {
                hearing.connected = false;
                hearing.present = false;
            });
            if let Ended::Status(status) = &ended
                && code_of(status) == Some(Code::Removed)
            {
                self.leave().await;
                return Err(Removed);
            }
            let timed_out = ended.is_silence(self.last_word.elapsed());
            let steady = patience.ended(begun.elapsed(), timed_out);
            if steady || (was_connected && !timed_out) {
                backoff.reset();
            }
            failures += 1;
            complain(&address, failures, &ended);
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// The managers have let go of everything here.
    async fn leave(&mut self) {
        tracing::warn!("this node was removed from the cluster; stopping its containers");
        self.tasks.follow(&Table::default()).await;
        let begun = Instant::now();
        while self.tasks.count() > 0 && begun.elapsed() < LEAVE_MAX {
            self.node.pulse.beat();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn session(&mut self, address: &str, patience: Patience, failures: &mut u32) -> Ended {
        let options = ChannelOptions {
            connect_timeout: patience.stretch(CONNECT_TIMEOUT).min(CONNECT_TIMEOUT_MAX),
            keep_alive_interval: PING_PERIOD,
            keep_alive_timeout: patience.stretch(PING_TIMEOUT),
            ..Default::default()
        };
        let tls = TlsClient::manager(&self.tls);
        let channel = match connect(address, &tls, &options).await {
            Ok(channel) => channel,
            Err(error) => return Ended::Connect(error),
        };
        let (sender, receiver) = mpsc::channel(OUTGOING_MAX);
        let out = Outgoing(sender);
        let hello = pb::Hello { description: Some(self.description.clone()) };
        if let Err(ended) = out.say(Said::Hello(hello)) {
            return ended;
        }
        let mut client =
            DispatcherClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let opened = client.session(ReceiverStream::new(receiver));
        let limit = patience.stretch(OPEN_TIMEOUT).min(OPEN_TIMEOUT_MAX);
        let inbound = match tokio::time::timeout(limit, opened).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return from_status(status),
            Err(_) => return Ended::Silent,
        };
        tracing::info!(address, attempts = *failures, "session open");
        *failures = 0;
        let scope = self.scope.child("session");
        let requests = Requests::new(self.node.clone(), channel, scope);
        match self.talk(inbound, out, requests).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn talk(
        &mut self,
        mut inbound: Streaming<pb::ManagerMessage>,
        out: Outgoing,
        mut requests: Requests,
    ) -> Result<std::convert::Infallible, Ended> {
        let node = self.node.clone();
        let mut reporting = Reporting::begin(&node.outbox);
        let mut followed = self.following.followed();
        followed.mark_changed();
        let mut intake = Intake::default();
        // What could not be written down yet, and when it is tried again.
        let mut unwritten: Option<Table> = None;
        let mut write_at = Instant::now();
        let mut told = Told::default();
        let mut beats = Beats::default();
        let mut period = HEARTBEAT_PERIOD;
        // At once: a welcome says only that the manager listens, an answered heartbeat that it is
        // in touch with the leader.
        let mut beat = Instant::now();
        let mut pulse = tokio::time::interval(pulse::PERIOD);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            node.pulse.beat();
            tokio::select! {
                _ = pulse.tick() => {}
                heard = inbound.message() => {
                    let heard = heard.map_err(from_status)?.ok_or(Ended::Closed)?;
                    self.last_word = Instant::now();
                    match heard.item {
                        Some(Heard::Welcome(welcome)) => {
                            period = Duration::from_millis(welcome.heartbeat_period_ms)
                                .clamp(Duration::from_millis(50), Duration::from_secs(60));
                            beat = beat.min(Instant::now() + jittered(period));
                            tracing::debug!(session_id = welcome.session_id, ?period, "welcome");
                        }
                        Some(Heard::Assignments(message)) => {
                            let base = unwritten.as_ref().unwrap_or(&self.table);
                            let accepted = intake.accept(base, message);
                            if let Some(table) = accepted.map_err(Ended::Assignments)? {
                                unwritten = self.take_assignments(table).await?;
                                write_at = Instant::now() + WRITE_RETRY;
                                if unwritten.is_some() {
                                    // The managers shall know at once.
                                    beat = Instant::now();
                                }
                            }
                        }
                        Some(Heard::Reported(reported)) => {
                            reporting.acknowledged(reported.sequence);
                        }
                        Some(Heard::Endpoints(message)) => {
                            let whole = told.accept(message).map_err(Ended::Endpoints)?;
                            if let Some(endpoints) = whole {
                                self.following.want(endpoints);
                            }
                        }
                        Some(Heard::Withdrawn(withdrawn)) => {
                            node.hearing.send_modify(|hearing| {
                                hearing.withdrawn = hearing.withdrawn.max(withdrawn.version);
                            });
                        }
                        Some(Heard::LogRequest(request)) => requests.take(request),
                        Some(Heard::Trust(trust)) => self.trust.take(trust),
                        Some(Heard::Managers(managers)) => self.managers.learn(managers.addresses),
                        Some(Heard::Heard(answer)) => {
                            self.take_answer(beats.answered(answer.sequence));
                        }
                        // A newer manager may say what we do not know.
                        None => {}
                    }
                }
                () = tokio::time::sleep_until(write_at), if unwritten.is_some() => {
                    if let Some(table) = unwritten.take() {
                        unwritten = self.take_assignments(table).await?;
                    }
                    write_at = Instant::now() + WRITE_RETRY;
                }
                report = reporting.next() => out.say(Said::Report(report))?,
                () = tokio::time::sleep_until(beat) => {
                    let sequence = beats.next(Moment::now());
                    out.say(heartbeat(&node, sequence))?;
                    beat = Instant::now() + jittered(period);
                }
                changed = followed.changed() => {
                    changed.map_err(|_| Ended::Interrupted)?;
                    let endpoints_version = *followed.borrow_and_update();
                    if endpoints_version > 0 {
                        out.say(Said::Acknowledge(pb::Acknowledge { endpoints_version }))?;
                    }
                }
            }
        }
    }

    /// Writes them down, then acts on them. Gives them back when they cannot be written: nobody acts on
    /// what a restart would forget, and until then the node is no place for more.
    async fn take_assignments(&mut self, table: Table) -> Result<Option<Table>, Ended> {
        tracing::debug!(
            term = table.stamp.term,
            version = table.stamp.version,
            tasks = table.tasks.len(),
            "assignments accepted"
        );
        if table.tasks != self.table.tasks {
            let path = self.node.data.assignments();
            let written = table.clone();
            let saved = cluster_daemon::blocking(move || store::save(&path, &written));
            if let Err(error) = saved.await.map_err(|_| Ended::Interrupted)? {
                let reason = format!("its assignments cannot be written down: {}", chain(&error));
                if self.node.health.fails(&reason) {
                    tracing::warn!(reason, "nothing new is begun or ended here; trying again");
                }
                return Ok(Some(table));
            }
        }
        if self.node.health.works() {
            tracing::info!("assignments can be written down again");
        }
        self.table = table;
        // Whoever is told to end a task now shall wait for the balancers.
        self.node
            .hearing
            .send_if_modified(|hearing| !std::mem::replace(&mut hearing.connected, true));
        self.tasks.follow(&self.table).await;
        // And nobody begins anything before he was told.
        self.node.hearing.send_if_modified(|hearing| {
            let news = !hearing.synced || !hearing.present;
            hearing.synced = true;
            hearing.present = true;
            news
        });
        Ok(None)
    }

    /// A manager has heard what was sent at this moment. Written down beside the session, which
    /// shall not wait for a disk, and only where it may matter: for a task that ends by itself.
    fn take_answer(&self, sent: Option<Moment>) {
        let Some(sent) = sent else { return };
        self.node.contact.heard(sent);
        let matters = || self.table.tasks.values().any(|task| task.stop_after_ms > 0);
        if self.node.contact.is_unkept() && matters() {
            let node = self.node.clone();
            tokio::spawn(cluster_daemon::blocking(move || node.contact.keep()));
        }
    }
}

/// Says it, but not twice a second for as long as the managers are away.
fn complain(address: &str, failures: u32, ended: &Ended) {
    let error = ended as &dyn StdError;
    if failures.is_power_of_two() {
        tracing::warn!(address, failures, error, "no session; trying the next manager");
    } else {
        tracing::debug!(address, failures, error, "no session; trying the next manager");
    }
}

fn heartbeat(node: &Node, sequence: u64) -> Said {
    let trouble = node.health.trouble().unwrap_or_default();
    Said::Heartbeat(pb::Heartbeat { trouble, sequence })
}

struct Outgoing(mpsc::Sender<pb::WorkerMessage>);

impl Outgoing {
    fn say(&self, item: Said) -> Result<(), Ended> {
        let sent = self.0.try_send(pb::WorkerMessage { item: Some(item) });
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Ended::Stuck,
            mpsc::error::TrySendError::Closed(_) => Ended::Closed,
        })
    }
}

/// A failure to connect may hide in a status.
fn from_status(status: Status) -> Ended {
    match find_connect_error(&status) {
        Some(error) => Ended::Connect(error.clone()),
        None => Ended::Status(Box::new(status)),
    }
}

/// Up to a tenth early, so that workers that began together spread out.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(rand::rng().random_range(0.9..=1.0))
}

#[cfg(test)]
mod tests;
