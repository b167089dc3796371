//! One run: a cluster comes up, is used and plagued for a while, and must then find peace.
//!
//! Two phases. While faults fall, every invariant is checked at every step (safety). Then everything
//! heals, and within a bound what is desired must run, and nothing else (liveness).

mod converge;
mod strike;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use cluster_identity::Context as ContextFile;
use cluster_identity::net::Net;
use cluster_mutants::Mutant;
use serde::{Deserialize, Serialize};

use crate::client::{Access, History, activate_all, user};
use crate::faults::Plague;
use crate::host::Host;
use crate::invariants::{Invariants, Look, Seen, Violation};
use crate::manager::ManagerHost;
use crate::net::{Counts, MILLI, Wires};
use crate::os;
use crate::rng::Rng;
use crate::trace::{Trace, seconds};
use crate::worker::WorkerHost;
use strike::Healing;

/// How far all machines get before anything passes between them.
const TICK: u64 = 2 * MILLI;
const SECOND: u64 = 1_000 * MILLI;
/// How often it is looked what workers have written down.
const WRITTEN: u64 = 10 * MILLI;
/// A cluster without faults comes up within this.
const SETUP: u64 = 40 * SECOND;
/// After the last fault healed, what is desired runs within this.
pub const CONVERGE: u64 = 45 * SECOND;
/// Users that act at the same time.
const USERS: usize = 3;
/// A process that ended by itself is started again after this, as systemd does.
const RESTART_MS: u64 = 1_000;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub managers: usize,
    pub workers: usize,
    /// Keep every event as a line.
    pub keep_trace: bool,
    /// Nothing goes wrong.
    pub calm: bool,
    /// The programs have this bug.
    pub mutant: Option<Mutant>,
}

impl Options {
    pub fn seed(seed: u64) -> Self {
        Self { seed, managers: 3, workers: 3, keep_trace: false, calm: false, mutant: None }
    }
}

/// What came of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub seed: u64,
    /// Fingerprint of everything that happened.
    pub hash: u64,
    /// What went wrong, if anything did.
    pub failure: Option<String>,
    /// A line for each event worth telling.
    pub story: Vec<String>,
    pub trace: Vec<String>,
    /// How often each kind of fault struck.
    pub faults: BTreeMap<String, u64>,
    /// How often interesting states were reached.
    pub states: BTreeMap<String, u64>,
    /// Nanoseconds of simulated time.
    pub simulated: u64,
}

/// Runs one simulation in a process of its own, which `program` (this crate's) becomes. Libraries
/// keep counters for their process; a run must not depend on those before it.
pub fn run_apart(program: &Path, options: Options) -> anyhow::Result<Report> {
    let mut command = Command::new(program);
    command.args(["--one", "--seed", &options.seed.to_string()]);
    if options.calm {
        command.arg("--calm");
    }
    if options.keep_trace {
        command.arg("--trace");
    }
    if let Some(mutant) = options.mutant {
        command.args(["--mutant", mutant.name()]);
    }
    let ran = command.stderr(Stdio::inherit()).output().context("starting a run")?;
    serde_json::from_slice(&ran.stdout)
        .with_context(|| format!("seed {} ended without a report: {}", options.seed, ran.status))
}

/// Runs one simulation on a thread of its own: thread-local randomness begins anew.
pub fn run(options: Options) -> Report {
    let running = std::thread::Builder::new().name(format!("seed {}", options.seed)).spawn(
        move || -> anyhow::Result<Report> {
            let dir = scratch()?;
            os::watch_panics();
            os::simulate(options.seed);
            cluster_mutants::switch(options.mutant);
            let mut sim = Sim::new(options, dir.path())?;
            let outcome = sim.live();
            Ok(sim.report(outcome))
        },
    );
    let ended = running.map_err(anyhow::Error::from).and_then(|thread| {
        thread.join().unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(anyhow::anyhow!("the simulation panicked: {}", text.unwrap_or("no message")))
        })
    });
    ended.unwrap_or_else(|error| failed(options.seed, &error))
}

/// The report of a run that did not come to an end.
pub fn failed(seed: u64, error: &anyhow::Error) -> Report {
    Report {
        seed,
        hash: 0,
        failure: Some(format!("{error:#}")),
        story: Vec::new(),
        trace: Vec::new(),
        faults: BTreeMap::new(),
        states: BTreeMap::new(),
        simulated: 0,
    }
}

/// In memory where there is such a folder: hundreds of small files are synced in each run.
fn scratch() -> anyhow::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.context("making a folder for the run")
}

struct Sim {
    options: Options,
    now: u64,
    rng: Rng,
    wires: Wires,
    trace: Trace,
    managers: Vec<ManagerHost>,
    workers: Vec<WorkerHost>,
    /// The users' machine.
    client: Host,
    access: Option<Access>,
    history: History,
    judged: usize,
    /// Of each manager: applied index, term and whether it leads, as last judged.
    judged_at: Vec<(u64, u64, bool)>,
    invariants: Invariants,
    healing: Healing,
    /// The leader's applied index at which it is to be killed, and for how long.
    trap: Option<(u64, u64)>,
    /// Managers that may end by themselves: their disk failed.
    excused: Vec<bool>,
    story: Vec<String>,
    faults: BTreeMap<String, u64>,
    states: BTreeMap<String, u64>,
}

impl Sim {
    fn new(options: Options, dir: &Path) -> anyhow::Result<Self> {
        let Options { seed, managers, workers, keep_trace, .. } = options;
        let mut rng = Rng::new(seed);
        let trace = Trace::new(keep_trace);
        let wires = Wires::new(managers + workers + 1, rng.split(), trace.clone());
        let folder = |number: usize| -> anyhow::Result<_> {
            let path = dir.join(number.to_string());
            std::fs::create_dir_all(&path)?;
            Ok(path)
        };
        let all: Vec<usize> = (0..managers + workers).collect();
        Ok(Self {
            options,
            now: 0,
            rng,
            managers: all[..managers]
                .iter()
                .map(|number| Ok(ManagerHost::new(*number, &wires, folder(*number)?)))
                .collect::<anyhow::Result<_>>()?,
            workers: all[managers..]
                .iter()
                .map(|number| Ok(WorkerHost::new(*number, &wires, folder(*number)?)))
                .collect::<anyhow::Result<_>>()?,
            wires,
            trace,
            client: Host::default(),
            access: None,
            history: History::default(),
            judged: 0,
            judged_at: vec![(0, 0, false); managers],
            invariants: Invariants::default(),
            healing: Healing::default(),
            trap: None,
            excused: vec![false; managers],
            story: Vec::new(),
            faults: BTreeMap::new(),
            states: BTreeMap::new(),
        })
    }

    fn report(self, outcome: anyhow::Result<()>) -> Report {
        let mut states = self.states;
        let Counts { connections, segments, late, held_back, resets } = self.wires.counts();
        for (name, count) in [
            ("connections", connections),
            ("segments", segments),
            ("segments-late", late),
            ("segments-held-back", held_back),
            ("connections-reset", resets),
        ] {
            states.insert(name.to_owned(), count);
        }
        Report {
            seed: self.options.seed,
            hash: self.trace.hash(),
            failure: outcome.err().map(|error| format!("{error:#}")),
            story: self.story,
            trace: self.trace.lines(),
            faults: self.faults,
            states,
            simulated: self.now,
        }
    }

    fn tell(&mut self, text: impl fmt::Display) {
        let line = format!("{:8.3} s  {text}", seconds(self.now));
        self.trace.event(self.now, &line);
        self.story.push(line);
    }

    fn count(&mut self, state: &str) {
        *self.states.entry(state.to_owned()).or_default() += 1;
    }

    /// The whole run.
    fn live(&mut self) -> anyhow::Result<()> {
        self.set_up()?;
        self.tell("the cluster is up");
        let plagued = self.rng.below(6..13) * SECOND;
        let end = self.now + plagued;
        let mut users = Vec::new();
        for _ in 0..USERS {
            let access = self.access.clone().context("the cluster is not up")?;
            let acting = user(access, self.history.clone(), self.rng.split(), end);
            users.extend(self.client.beside(acting));
        }
        let seeds = self.rng.split();
        let mut plague = Plague::draw(seeds, self.managers.len(), self.workers.len());
        let mut next = self.now + plague.pause_ms() * MILLI;
        while self.now < end {
            if self.now >= next && !self.options.calm {
                let fault = plague.strike();
                self.strike(fault);
                next = self.now + plague.pause_ms() * MILLI;
            }
            self.step()?;
        }
        self.heal_all();
        self.tell("everything heals");
        let access = self.access.clone().context("the cluster is not up")?;
        let activating = self.client.beside(async move {
            // A drain that is still under way would undo it.
            for user in users {
                user.await??;
            }
            activate_all(access).await
        });
        self.settle(activating)?;
        self.invariants.at_the_end()?;
        Ok(())
    }

    /// Three managers, three workers, and a client with a context file.
    fn set_up(&mut self) -> anyhow::Result<()> {
        let deadline = self.now + SETUP;
        self.managers[0].start(self.now)?;
        self.until(deadline, "the first manager founds the cluster", |sim| {
            let known = |context: &cluster_manager::context::Context| {
                context.raft.view().state.cluster().is_some()
            };
            sim.leader() == Some(0) && sim.managers[0].context().is_some_and(|c| known(&c))
        })?;
        let client = self.managers.len() + self.workers.len();
        let net = Net::over(self.wires.of(client));
        let context = ContextFile::load(&self.managers[0].admin_context())?;
        let addresses: Vec<String> = self.managers.iter().map(ManagerHost::address).collect();
        let access = Access::new(&context, addresses.clone(), &net)?;
        self.access = Some(access.clone());
        self.client.start(self.now, std::future::pending())?;
        let manager_token = self.ask(deadline, {
            let access = access.clone();
            async move { access.token("manager").await }
        })?;
        let worker_token = self.ask(deadline, async move { access.token("worker").await })?;
        for number in 1..self.managers.len() {
            let first = vec![addresses[0].clone()];
            self.managers[number].join_with(first, manager_token.clone());
            self.managers[number].start(self.now)?;
        }
        for worker in &mut self.workers {
            worker.join_with(addresses.clone(), worker_token.clone());
            worker.start(self.now)?;
        }
        let (managers, workers) = (self.managers.len(), self.workers.len());
        self.until(deadline, "all managers and workers are members", |sim| {
            sim.managers.iter().all(|manager| {
                let Some(context) = manager.context() else { return false };
                let voters = context.raft.status().members.iter().filter(|m| m.voter).count();
                let state = context.raft.view().state;
                let ready = state.nodes().filter(|node| node.accepts_tasks()).count();
                voters == managers && ready == workers
            })
        })
    }

    fn ask<T: Send + 'static>(
        &mut self,
        deadline: u64,
        question: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    ) -> anyhow::Result<T> {
        let asked = self.client.beside(question).context("the client's machine is off")?;
        let mut asked = Some(asked);
        self.until(deadline, "the managers answer", |_| {
            asked.as_ref().is_some_and(tokio::task::JoinHandle::is_finished)
        })?;
        let answer = asked.take().and_then(futures::FutureExt::now_or_never);
        answer.context("the client did not answer")??
    }

    fn until(
        &mut self,
        deadline: u64,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        while !holds(self) {
            ensure!(self.now < deadline, "within {:.0} s: {what}", seconds(SETUP));
            self.step()?;
        }
        Ok(())
    }

    /// The manager that leads and may plan.
    fn leader(&self) -> Option<usize> {
        self.managers.iter().position(|manager| {
            !manager.host.is_frozen()
                && manager.context().is_some_and(|context| {
                    context.raft.leadership().borrow().this_node_leads_and_caught_up
                })
        })
    }

    /// One tick of everything, then judgement.
    fn step(&mut self) -> anyhow::Result<()> {
        let (now, until) = (self.now, self.now + TICK);
        os::set_now(now);
        self.wires.deliver(now);
        for manager in &mut self.managers {
            manager.host.run(now, until);
        }
        for worker in &mut self.workers {
            worker.host.run(now, until);
        }
        self.client.run(now, until);
        self.now = until;
        os::set_now(until);
        if let Some((file, line)) = os::panicked() {
            bail!("a program panicked at {file}:{line}");
        }
        self.judge()?;
        self.spring_trap();
        self.supervise()?;
        self.heal_due();
        Ok(())
    }

    /// Starts what ended by itself again; an end without a cause is a failure.
    fn supervise(&mut self) -> anyhow::Result<()> {
        for number in 0..self.managers.len() {
            let Some(ended) = self.managers[number].host.ended() else { continue };
            self.managers[number].kill();
            match ended {
                Ok(()) => self.tell(format!("manager {} has stopped", number + 1)),
                Err(error) if self.excused[number] => {
                    self.tell(format!("manager {} gave up: {error:#}", number + 1));
                }
                Err(error) => bail!("manager {} ended by itself: {error:#}", number + 1),
            }
            if !self.healing.starts(number) {
                self.healing.start_later(self.now + RESTART_MS * MILLI, number);
            }
        }
        for number in 0..self.workers.len() {
            if let Some(ended) = self.workers[number].host.ended() {
                bail!("{} ended by itself: {ended:?}", self.workers[number].name());
            }
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), Violation> {
        let mut managers = Vec::new();
        for (host, manager) in self.managers.iter().enumerate() {
            let Some(context) = manager.context() else { continue };
            let leadership = context.raft.leadership().borrow().clone();
            let leads = leadership.this_node_leads_and_caught_up;
            let index = *context.raft.feed().borrow();
            let at = (index, leadership.term, leads);
            if std::mem::replace(&mut self.judged_at[host], at) != at {
                let view = context.raft.view();
                managers.push(Seen { host, view, leadership, id: context.node_id });
            }
        }
        // Files are read now and then: what a worker wrote down stays for a while.
        let stamps = self.workers.iter().map(|worker| (worker.number, worker.stamp()));
        let workers: Vec<_> = match self.now % WRITTEN {
            0 => stamps.filter_map(|(number, stamp)| Some((number, stamp?))).collect(),
            _ => Vec::new(),
        };
        let (invariants, from) = (&mut self.invariants, self.judged);
        let (count, verdict) = self.history.since(from, |calls| {
            let look = Look { managers: &managers, workers: &workers, calls };
            (calls.len(), invariants.check(&look))
        });
        self.judged += count;
        verdict?;
        for seen in &managers {
            self.note(seen);
        }
        Ok(())
    }

    /// Interesting states, so that a run that never reached one shows.
    fn note(&mut self, seen: &Seen) {
        use cluster_model::{Desired, NodeState, Observed};
        if seen.leadership.this_node_leads_and_caught_up {
            self.count("views-of-a-leader");
        }
        let state = &seen.view.state;
        if state.nodes().any(|node| node.state == NodeState::Down) {
            self.count("views-with-a-node-down");
        }
        if state.services().any(|service| service.removed) {
            self.count("views-with-a-removal-under-way");
        }
        let moving = |service: &cluster_model::Service| {
            service.rollout.as_ref().is_some_and(|rollout| !rollout.state.is_over())
        };
        if state.services().any(moving) {
            self.count("views-with-a-rollout-under-way");
        }
        let has = |state_of: Observed| state.tasks().any(|task| task.status.state == state_of);
        for (observed, name) in [
            (Observed::Lost, "views-with-a-lost-task"),
            (Observed::Failed, "views-with-a-failed-task"),
            (Observed::Rejected, "views-with-a-rejected-task"),
            (Observed::Pending, "views-with-a-pending-task"),
        ] {
            if has(observed) {
                self.count(name);
            }
        }
        if state.tasks().any(|task| task.desired == Desired::Ready) {
            self.count("views-with-a-successor-waiting");
        }
    }
}
