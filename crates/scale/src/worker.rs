//! One simulated worker: a real session, containers that only pretend.
//!
//! It speaks as `cluster-worker` does (hello, heartbeats, reports repeated until acknowledged,
//! acknowledged endpoints, the next manager when one is lost) and accepts what that accepts. It
//! keeps nothing on disk, and follows endpoints by counting them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cluster_identity::{ChannelOptions, ConnectError, Patience, TlsClient, TlsIdentity, connect};
use cluster_model::{Observed, StatusReport, TaskId};
use cluster_pb::dispatcher::v1 as pb;
use cluster_pb::dispatcher::v1::dispatcher_client::DispatcherClient;
use cluster_pb::dispatcher::v1::manager_message::Item as Heard;
use cluster_pb::dispatcher::v1::worker_message::Item as Said;
use cluster_pb::types::v1::NodeDescription;
use cluster_wire::dispatch::report_to_pb;
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::fleet::Shared;

const OUTGOING_MAX: usize = 64;
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// All limits are the worker's, and grow as its do.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
const OPEN_TIMEOUT_MAX: Duration = Duration::from_secs(10);
const PING_PERIOD: Duration = Duration::from_millis(1100);
const PING_TIMEOUT: Duration = Duration::from_millis(600);
const SILENT_AFTER: Duration = Duration::from_millis(1500);
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
const REPORTS_IN_FLIGHT_MAX: usize = 4;
const REPORTED_AT_ONCE_MAX: usize = 256;

/// What simulated containers do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// From the assignment until the container runs.
    pub start: Duration,
    /// Of a thousand starts so many fail.
    pub fail_per_mille: u32,
    pub cpu_nanos: u64,
}

/// What a shape tells a worker.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// This task's container ends with exit code 1.
    Exit(TaskId),
    /// As if the machine lost power: the connection stays and says nothing more.
    Freeze,
}

struct Run {
    state: Observed,
    /// Ends when it was asked to, else by itself.
    asked: bool,
}

pub struct Worker {
    pub number: u32,
    pub tls: TlsIdentity,
    pub description: NodeDescription,
    pub shared: Arc<Shared>,
    pub orders: mpsc::Receiver<Order>,
    tasks: HashMap<TaskId, Run>,
    starting: VecDeque<(Instant, TaskId)>,
    /// To be reported, in order, the latest state of each.
    unsaid: Vec<TaskId>,
    in_flight: VecDeque<(u64, Vec<TaskId>)>,
    random: StdRng,
    last_word: Instant,
}

impl Worker {
    pub fn new(
        number: u32,
        tls: TlsIdentity,
        description: NodeDescription,
        shared: Arc<Shared>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            number,
            tls,
            description,
            shared,
            orders,
            tasks: HashMap::new(),
            starting: VecDeque::new(),
            unsaid: Vec::new(),
            in_flight: VecDeque::new(),
            random: StdRng::seed_from_u64(u64::from(number)),
            last_word: Instant::now(),
        }
    }

    /// Keeps a session open until it is told to freeze.
    pub async fn run(mut self) {
        let mut place = self.number as usize;
        let mut pause = RETRY_FIRST;
        let mut patience = Patience::default();
        loop {
            let address = self.shared.managers[place % self.shared.managers.len()].clone();
            let begun = Instant::now();
            self.last_word = begun;
            let (connected, silent) = match self.open(&address, patience).await {
                Ok((inbound, out)) => {
                    let counted = self.shared.open_session();
                    let frozen = self.talk(inbound, out).await;
                    drop(counted);
                    if frozen {
                        return;
                    }
                    (true, self.last_word.elapsed() >= SILENT_AFTER)
                }
                Err(silent) => (false, silent),
            };
            let steady = patience.ended(begun.elapsed(), silent);
            if steady || (connected && !silent) {
                pause = RETRY_FIRST;
            }
            place += 1;
            // Half of it by chance: workers of a lost manager shall not come back all at once.
            tokio::time::sleep(pause.mul_f64(self.random.random_range(0.5..=1.0))).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Otherwise answers whether it was a limit that ended the try.
    async fn open(
        &self,
        address: &str,
        patience: Patience,
    ) -> Result<(Streaming<pb::ManagerMessage>, mpsc::Sender<pb::WorkerMessage>), bool> {
        let options = ChannelOptions {
            connect_timeout: patience.stretch(CONNECT_TIMEOUT).min(CONNECT_TIMEOUT_MAX),
            keep_alive_interval: PING_PERIOD,
            keep_alive_timeout: patience.stretch(PING_TIMEOUT),
            ..Default::default()
        };
        let channel = connect(address, &TlsClient::manager(&self.tls), &options).await;
        let channel = channel.map_err(|error| matches!(error, ConnectError::Timeout { .. }))?;
        let (out, receiver) = mpsc::channel(OUTGOING_MAX);
        let hello = pb::Hello { description: Some(self.description.clone()) };
        out.try_send(pb::WorkerMessage { item: Some(Said::Hello(hello)) }).map_err(|_| false)?;
        let mut client =
            DispatcherClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let opened = client.session(ReceiverStream::new(receiver));
        let limit = patience.stretch(OPEN_TIMEOUT).min(OPEN_TIMEOUT_MAX);
        let opened = tokio::time::timeout(limit, opened).await;
        let opened = opened.map_err(|_| true)?.map_err(|_| false)?;
        Ok((opened.into_inner(), out))
    }

    /// Answers whether the worker was frozen; otherwise the session ended.
    async fn talk(
        &mut self,
        mut inbound: Streaming<pb::ManagerMessage>,
        out: mpsc::Sender<pb::WorkerMessage>,
    ) -> bool {
        // Whatever was not acknowledged is said again.
        let again: Vec<TaskId> = self.in_flight.drain(..).flat_map(|(_, tasks)| tasks).collect();
        self.unsaid.extend(again);
        let mut reports = 0;
        let mut beats = 0;
        let mut period = HEARTBEAT_PERIOD;
        let mut beat = Instant::now() + period.mul_f64(self.random.random_range(0.0..1.0));
        loop {
            let say = |item| out.try_send(pb::WorkerMessage { item: Some(item) }).is_ok();
            while !self.unsaid.is_empty() && self.in_flight.len() < REPORTS_IN_FLIGHT_MAX {
                reports += 1;
                if !say(Said::Report(self.report(reports))) {
                    return false;
                }
            }
            let next_start = self.starting.front().map(|(at, _)| *at);
            tokio::select! {
                heard = inbound.message() => {
                    let Ok(Some(message)) = heard else { return false };
                    self.last_word = Instant::now();
                    self.shared.ledger.heard(kind(&message));
                    match message.item {
                        Some(Heard::Welcome(welcome)) => {
                            period = Duration::from_millis(welcome.heartbeat_period_ms.max(50));
                        }
                        Some(Heard::Assignments(message)) => self.follow(message),
                        Some(Heard::Reported(reported)) => self.recorded(reported.sequence),
                        Some(Heard::Endpoints(message)) if !message.more => {
                            let endpoints_version = message.version;
                            if !say(Said::Acknowledge(pb::Acknowledge { endpoints_version })) {
                                return false;
                            }
                        }
                        _ => {}
                    }
                }
                Some(order) = self.orders.recv() => match order {
                    Order::Exit(task) => self.ends(task, Observed::Failed),
                    Order::Freeze => {
                        // Power is off, but nobody hears the connection break.
                        self.shared.keep((Box::new(inbound), out.clone()));
                        return true;
                    }
                },
                () = sleep_until(next_start) => self.start_due(),
                () = tokio::time::sleep_until(beat) => {
                    beats += 1;
                    let heartbeat = pb::Heartbeat { trouble: String::new(), sequence: beats };
                    if !say(Said::Heartbeat(heartbeat)) {
                        return false;
                    }
                    beat = Instant::now() + period.mul_f64(self.random.random_range(0.9..=1.0));
                }
            }
        }
    }

    fn follow(&mut self, message: pb::Assignments) {
        let mut named = message.full.then(std::collections::HashSet::new);
        for assignment in &message.tasks {
            let Ok(task) = assignment.task_id.parse::<TaskId>() else { continue };
            if let Some(named) = &mut named {
                named.insert(task);
            }
            let wanted = matches!(assignment.desired_state.as_str(), "running");
            match self.tasks.get_mut(&task) {
                None if wanted => {
                    if let Ok(service) = assignment.service_id.parse() {
                        self.shared.ledger.assigned(task, service, assignment.slot, self.number);
                    }
                    self.tasks.insert(task, Run { state: Observed::Accepted, asked: false });
                    self.starting.push_back((Instant::now() + self.shared.behaviour.start, task));
                }
                None => {
                    // Prepared and waiting, or over before it was heard of.
                    let ready = assignment.desired_state == "ready";
                    let state = if ready { Observed::Ready } else { Observed::Shutdown };
                    self.tasks.insert(task, Run { state, asked: false });
                    self.unsaid.push(task);
                }
                Some(run) if wanted && run.state == Observed::Ready => {
                    if let Ok(service) = assignment.service_id.parse() {
                        self.shared.ledger.assigned(task, service, assignment.slot, self.number);
                    }
                    run.state = Observed::Starting;
                    self.starting.push_back((Instant::now() + self.shared.behaviour.start, task));
                }
                Some(run) if !wanted && assignment.desired_state != "ready" => {
                    if !run.asked {
                        run.asked = true;
                        self.ends(task, Observed::Shutdown);
                    }
                }
                Some(_) => {}
            }
        }
        for removed in &message.removed {
            if let Ok(task) = removed.parse::<TaskId>() {
                self.tasks.remove(&task);
            }
        }
        // A full set of several parts is judged by its parts only: nothing is ever missing here.
        if let Some(named) = named.filter(|_| !message.more && message.sequence == 1) {
            self.tasks.retain(|task, _| named.contains(task));
        }
        if self.shared.behaviour.start.is_zero() {
            self.start_due();
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        while let Some((_, task)) = pop_front_if(&mut self.starting, |(at, _)| *at <= now) {
            let fails = self.shared.behaviour.fail_per_mille;
            let failed = fails > 0 && self.random.random_range(0..1000) < fails;
            let Some(run) = self.tasks.get_mut(&task).filter(|run| !run.state.is_terminal()) else {
                continue;
            };
            if failed {
                self.ends(task, Observed::Failed);
                continue;
            }
            run.state = Observed::Running;
            self.shared.ledger.running(task);
            self.unsaid.push(task);
        }
    }

    fn ends(&mut self, task: TaskId, state: Observed) {
        let Some(run) = self.tasks.get_mut(&task).filter(|run| !run.state.is_terminal()) else {
            return;
        };
        run.state = state;
        self.unsaid.push(task);
        self.shared.ledger.stopped(task);
    }

    fn report(&mut self, sequence: u64) -> pb::Report {
        let count = self.unsaid.len().min(REPORTED_AT_ONCE_MAX);
        let tasks: Vec<TaskId> = self.unsaid.drain(..count).collect();
        let at_ms = self.shared.now_ms();
        let told = tasks.iter().filter_map(|task| {
            let run = self.tasks.get(task)?;
            let mut report = StatusReport::new(*task, run.state, at_ms);
            report.exit_code = (run.state == Observed::Failed).then_some(1);
            Some(report_to_pb(&report))
        });
        let report = pb::Report { sequence, tasks: told.collect() };
        self.in_flight.push_back((sequence, tasks));
        report
    }

    fn recorded(&mut self, sequence: u64) {
        while let Some((_, tasks)) =
            pop_front_if(&mut self.in_flight, |(number, _)| *number <= sequence)
        {
            self.shared.ledger.recorded(tasks.len());
        }
    }
}

/// The message's place in [`crate::ledger::KINDS`].
fn kind(message: &pb::ManagerMessage) -> usize {
    match message.item {
        Some(Heard::Assignments(_)) => 0,
        Some(Heard::Reported(_)) => 1,
        Some(Heard::Endpoints(_)) => 2,
        Some(Heard::Withdrawn(_)) => 3,
        Some(Heard::Heard(_)) => 4,
        _ => 5,
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn pop_front_if<T>(queue: &mut VecDeque<T>, wanted: impl Fn(&T) -> bool) -> Option<T> {
    queue.front().is_some_and(wanted).then(|| queue.pop_front()).flatten()
}
