//! One run: a cluster comes up, is used and plagued for a while, and must then find peace.
//!
//! Two phases. While faults fall, every invariant is checked at every step (safety). Then everything
//! heals, and within a bound what is desired must run, and nothing else (liveness).

mod converge;
mod judge;
mod run;
mod setup;
mod strike;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::client::{Access, History, activate_all, user};
use crate::faults::Plague;
use crate::host::Host;
use crate::invariants::Invariants;
use crate::manager::ManagerHost;
use crate::net::{Counts, MILLI, Wires};
use crate::os;
use crate::rng::Rng;
use crate::trace::{Trace, seconds};
use crate::worker::WorkerHost;
pub use run::{Options, Report, failed, run, run_apart};
use strike::Healing;

/// How far all machines get before anything passes between them.
const TICK: u64 = 2 * MILLI;
const SECOND: u64 = 1_000 * MILLI;
/// How often it is looked what workers have written down.
const WRITTEN: u64 = 10 * MILLI;
/// How long a leader that was killed at a given index stays away.
const SIEVE_DOWN_MS: u64 = 300;
/// A cluster without faults comes up within this.
const SETUP: u64 = 40 * SECOND;
/// After the last fault healed, what is desired runs within this.
pub const CONVERGE: u64 = 45 * SECOND;
/// Users that act at the same time.
const USERS: usize = 3;
/// A process that ended by itself is started again after this, as systemd does.
const RESTART_MS: u64 = 1_000;

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
        self.trap = self.options.kill_at.map(|index| (index.saturating_sub(1), SIEVE_DOWN_MS));
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
        self.states
            .insert("last-index".into(), self.judged_at.iter().map(|at| at.0).max().unwrap_or(0));
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
}
