//! Faults take effect, and end.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_manager::raft::disk::sim::Loss;
use cluster_runtime::{Script, State};

use super::Sim;
use crate::faults::Fault;
use crate::net::{Link, MILLI};
use crate::worker::Registry;

/// What is to be undone when.
#[derive(Default)]
pub(super) struct Healing {
    due: BTreeMap<(u64, u64), Heal>,
    number: u64,
}

enum Heal {
    Start(usize),
    Thaw(usize),
    Link(usize, usize),
    Disk(usize),
    Runtime(usize),
    Registry(usize),
}

impl Healing {
    fn add(&mut self, at: u64, heal: Heal) {
        self.number += 1;
        self.due.insert((at, self.number), heal);
    }

    pub(super) fn start_later(&mut self, at: u64, host: usize) {
        self.add(at, Heal::Start(host));
    }

    /// Somebody will start this machine's program.
    pub(super) fn starts(&self, host: usize) -> bool {
        self.due.values().any(|heal| matches!(heal, Heal::Start(other) if *other == host))
    }
}

impl Sim {
    pub(super) fn strike(&mut self, fault: Fault) {
        *self.faults.entry(fault.kind().to_owned()).or_default() += 1;
        self.tell(&fault);
        let after = |ms: u64| self.now + ms * MILLI;
        match fault {
            Fault::Kill { host, down_ms } => {
                let at = after(down_ms);
                self.kill(host);
                self.healing.start_later(at, host);
            }
            Fault::Stop { host, down_ms } => {
                let at = after(down_ms);
                self.managers[host].ask_to_stop();
                self.healing.start_later(at, host);
            }
            Fault::PowerLoss { host, down_ms } => {
                let at = after(down_ms);
                self.lose_power(host);
                self.healing.start_later(at, host);
            }
            Fault::KillLeaderAtNextWrite { down_ms } => {
                let index = self.leader().and_then(|leader| {
                    Some(self.managers[leader].context()?.raft.view().applied_index)
                });
                self.trap = index.map(|index| (index, down_ms));
            }
            Fault::Freeze { host, for_ms } => {
                let (now, at) = (self.now, after(for_ms));
                self.machine(host).freeze(now);
                self.healing.add(at, Heal::Thaw(host));
            }
            Fault::ClockJump { host, seconds } => {
                self.machine(host).skew += seconds * 1_000_000_000;
            }
            Fault::SlowDisk { manager, latency_ms, for_ms } => {
                let at = after(for_ms);
                self.managers[manager].disk.slow_down(Duration::from_millis(latency_ms));
                self.healing.add(at, Heal::Disk(manager));
            }
            Fault::SyncFails { manager, down_ms } => {
                let at = after(down_ms);
                self.excused[manager] = true;
                self.managers[manager].disk.fail_syncs_after(0);
                self.healing.add(at, Heal::Disk(manager));
            }
            Fault::DiskFull { manager, for_ms } => {
                let at = after(for_ms);
                self.excused[manager] = true;
                self.managers[manager].disk.limit_space(0);
                self.healing.add(at, Heal::Disk(manager));
            }
            network @ (Fault::CutOneWay { .. }
            | Fault::CutBoth { .. }
            | Fault::Isolate { .. }
            | Fault::Slow { .. }
            | Fault::Reset { .. }) => self.strike_network(&network),
            machine => self.strike_worker(&machine),
        }
    }

    fn strike_network(&mut self, fault: &Fault) {
        let hosts = self.managers.len() + self.workers.len();
        let cut = Link { cut: true, ..Link::default() };
        let (pairs, link, for_ms) = match *fault {
            Fault::CutOneWay { from, to, for_ms } => (vec![(from, to)], cut, for_ms),
            Fault::CutBoth { one, other, for_ms } => {
                (vec![(one, other), (other, one)], cut, for_ms)
            }
            Fault::Isolate { host, for_ms } => {
                let others = (0..hosts).filter(|other| *other != host);
                (others.flat_map(|other| [(host, other), (other, host)]).collect(), cut, for_ms)
            }
            Fault::Slow { one, other, delay_ms, loss_ppm, for_ms } => {
                let delay = (delay_ms * MILLI / 2, delay_ms * MILLI * 2);
                let slow = Link { cut: false, delay, loss_ppm };
                (vec![(one, other), (other, one)], slow, for_ms)
            }
            Fault::Reset { one, other } => return self.wires.reset(one, other),
            _ => return,
        };
        for (from, to) in pairs {
            self.wires.set(from, to, link);
            self.healing.add(self.now + for_ms * MILLI, Heal::Link(from, to));
        }
    }

    fn strike_worker(&mut self, fault: &Fault) {
        let first = self.managers.len();
        let plain = Script::default();
        let (worker, script, for_ms) = match *fault {
            Fault::Stubborn { worker, for_ms } => {
                (worker, Script { ignore_stop: true, ..plain }, for_ms)
            }
            Fault::CreatesFail { worker, per_thousand, for_ms } => {
                (worker, Script { failures_per_thousand: per_thousand, ..plain }, for_ms)
            }
            Fault::SlowRuntime { worker, create_ms, for_ms } => {
                let create_time = Duration::from_millis(create_ms);
                (worker, Script { create_time, ..plain }, for_ms)
            }
            Fault::ContainerExits { worker, code } => return self.end_one(worker, code),
            Fault::PullsFail { worker, for_ms } => {
                let registry = Registry { fails: true, ..Registry::default() };
                return self.trouble_registry(worker, registry, for_ms);
            }
            Fault::SlowPulls { worker, delay_ms, for_ms } => {
                let delay = Duration::from_millis(delay_ms);
                let registry = Registry { delay, fails: false };
                return self.trouble_registry(worker, registry, for_ms);
            }
            _ => return,
        };
        self.workers[worker - first].script(script);
        self.healing.add(self.now + for_ms * MILLI, Heal::Runtime(worker));
    }

    fn trouble_registry(&mut self, worker: usize, registry: Registry, for_ms: u64) {
        self.set_registry(worker, registry);
        self.healing.add(self.now + for_ms * MILLI, Heal::Registry(worker));
    }

    fn set_registry(&mut self, worker: usize, registry: Registry) {
        let shared = &self.workers[worker - self.managers.len()].registry;
        *shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = registry;
    }

    fn end_one(&mut self, worker: usize, code: u8) {
        let worker = &self.workers[worker - self.managers.len()];
        let mut running = worker.containers();
        running.retain(|container| container.state == State::Running);
        if !running.is_empty() {
            let container = &running[self.rng.index(running.len())];
            worker.end(&container.id, code);
        }
    }

    fn machine(&mut self, host: usize) -> &mut crate::host::Host {
        let managers = self.managers.len();
        match host < managers {
            true => &mut self.managers[host].host,
            false => &mut self.workers[host - managers].host,
        }
    }

    fn kill(&mut self, host: usize) {
        match host < self.managers.len() {
            true => self.managers[host].kill(),
            false => self.machine(host).kill(),
        }
    }

    fn lose_power(&mut self, host: usize) {
        self.wires.power(host, false);
        self.kill(host);
        if host >= self.managers.len() {
            self.workers[host - self.managers.len()].end_all();
            return;
        }
        let loss = match self.rng.below(0..3) {
            0 => Loss::All,
            1 => Loss::After(self.rng.index(4096)),
            _ => Loss::Sectors(self.rng.number()),
        };
        self.managers[host].lose_unsynced(loss);
    }

    /// Kills the leader right after the write that was waited for.
    pub(super) fn spring_trap(&mut self) {
        let Some((index, down_ms)) = self.trap else { return };
        let Some(leader) = self.leader() else { return };
        let applied = self.managers[leader].context().map(|c| c.raft.view().applied_index);
        if applied.is_some_and(|applied| applied > index) {
            self.trap = None;
            self.tell(format!("manager {} is killed at index {applied:?}", leader + 1));
            self.kill(leader);
            self.healing.start_later(self.now + down_ms * MILLI, leader);
        }
    }

    pub(super) fn heal_due(&mut self) {
        while let Some(entry) = self.healing.due.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let heal = entry.remove();
            self.heal(heal);
        }
    }

    fn heal(&mut self, heal: Heal) {
        let now = self.now;
        match heal {
            Heal::Start(host) => self.start(host),
            Heal::Thaw(host) => self.machine(host).thaw(now),
            Heal::Link(from, to) => self.wires.set(from, to, Link::default()),
            Heal::Disk(manager) => self.managers[manager].disk.recover(),
            Heal::Runtime(worker) => {
                self.workers[worker - self.managers.len()].script(Script::default());
            }
            Heal::Registry(worker) => self.set_registry(worker, Registry::default()),
        }
    }

    fn start(&mut self, host: usize) {
        self.wires.power(host, true);
        if self.machine(host).is_running() {
            return;
        }
        let (now, managers) = (self.now, self.managers.len());
        let started = match host < managers {
            true => {
                self.excused[host] = self.managers[host].disk.is_failing();
                self.managers[host].start(now)
            }
            false => self.workers[host - managers].start(now),
        };
        match started {
            Ok(()) => self.tell(format!("host {host} starts")),
            Err(error) => self.tell(format!("host {host} does not start: {error:#}")),
        }
    }

    /// The plague is over.
    pub(super) fn heal_all(&mut self) {
        self.trap = None;
        for heal in std::mem::take(&mut self.healing.due).into_values() {
            self.heal(heal);
        }
        self.wires.heal();
        for host in 0..self.managers.len() + self.workers.len() {
            let now = self.now;
            if host < self.managers.len() {
                self.managers[host].disk.recover();
            } else {
                self.heal(Heal::Runtime(host));
                self.heal(Heal::Registry(host));
            }
            self.machine(host).skew = 0;
            self.machine(host).thaw(now);
            self.start(host);
        }
    }
}
