//! Nodes and managers that go.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_model::ServiceId;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::Bench;
use crate::api::service;
use crate::worker::Order;

const SERVICES: u32 = 100;
/// One node of so many dies, and one of so many is drained.
const ONE_OF: usize = 20;
/// How long nothing may happen before everything counts as over.
const QUIET: Duration = Duration::from_secs(3);
/// For so long all must be well to count as well.
const LASTS: Duration = Duration::from_secs(5);

impl Bench {
    /// Services of plain tasks, all running; how many tasks there are.
    pub(super) async fn warm(&mut self) -> Result<usize> {
        let replicas = self.scaled(100);
        self.create_all((0..SERVICES).map(|number| service(&format!("warm-{number}"), replicas)))
            .await?;
        let tasks = (SERVICES * replicas) as usize;
        self.until_running(tasks).await?;
        self.until_recorded(tasks as u64).await?;
        Ok(tasks)
    }

    pub(super) async fn loss(&mut self) -> Result<()> {
        let tasks = self.warm().await?;
        let hit = self.fleet.members.len() / ONE_OF;
        ensure!(hit > 0, "field `--nodes`: this shape needs at least {ONE_OF}");
        // Every twentieth dies, the one after it drains.
        let dead: HashSet<u32> = (0..hit).map(|number| (number * ONE_OF) as u32).collect();
        let drained: HashSet<u32> = dead.iter().map(|place| place + 1).collect();
        let gone = |worker: u32| dead.contains(&worker) || drained.contains(&worker);
        let living = |bench: &Self| {
            let entries = bench.fleet.ledger().since(0);
            let here = entries.into_iter().filter(|(_, entry)| !gone(entry.worker));
            let slots: HashSet<(ServiceId, u32)> = here
                .filter(|(_, entry)| entry.running_us.is_some() && !entry.ended)
                .map(|(_, entry)| (entry.service, entry.slot))
                .collect();
            slots.len()
        };
        let lost = tasks - living(self);
        let mark = self.mark()?;
        for place in &dead {
            self.fleet.order(*place as usize, Order::Freeze)?;
        }
        let names = drained.iter().map(|place| self.fleet.members[*place as usize].name.clone());
        let drains = names.map(|name| {
            let api = self.managers.api.clone();
            async move { api.drain(&name).await }
        });
        let drains: Vec<_> = drains.collect();
        stream::iter(drains).buffer_unordered(super::CLIENTS).try_collect::<()>().await?;
        let drained_us = self.fleet.ledger().now_us();
        let begun = Instant::now();
        while living(self) < tasks {
            self.managers.check()?;
            ensure!(
                begun.elapsed() < self.patience,
                "{} of {tasks} slots run elsewhere after {:?}; allow more with --patience",
                living(self),
                self.patience
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.report.put("tasks_lost", lost as f64, "");
        self.report.put("drains_asked_s", drained_us.saturating_sub(mark.at_us) as f64 / 1e6, "s");
        self.placed(&mark)?;
        Ok(())
    }

    pub(super) async fn reconnect(&mut self) -> Result<()> {
        let tasks = self.warm().await?;
        let workers = self.fleet.members.len();
        ensure!(self.fleet.sessions() == workers, "not all workers have a session");
        let leader = self.managers.leader().await?;
        let mark = self.mark()?;
        let assigned = self.fleet.ledger().assigned_count();
        let victim = leader + 1;
        let count = self.managers.addresses().len();
        ensure!(count > 2, "field `--managers`: this shape needs three");
        let begun = Instant::now();
        self.managers.kill(victim % count)?;
        let had = self.until("workers to notice", |fleet| fleet.sessions() < workers).await?;
        let lost = workers - self.fleet.sessions();
        self.until("all sessions back", |fleet| fleet.sessions() == workers).await?;
        self.report.put("noticed_s", had.as_secs_f64(), "s");
        self.report.put("sessions_lost_at_first", lost as f64, "");
        self.report.put("reconnected_s", begun.elapsed().as_secs_f64(), "s");
        tokio::time::sleep(QUIET).await;
        let ledger = self.fleet.ledger();
        let touched = ledger.assigned_count() - assigned + ledger.stopped_count();
        self.report.put("tasks", tasks as f64, "");
        self.report.put("tasks_touched", touched as f64, "");
        self.cost(&mark, tasks)?;
        self.double_tasks()
    }

    /// Everything stands still long enough for all workers to give their sessions up, as when the
    /// machines of the managers are paused or far too busy: until all have a session again that lasts.
    pub(super) async fn stall(&mut self) -> Result<()> {
        let tasks = self.warm().await?;
        let workers = self.fleet.members.len();
        let (assigned, stopped) = {
            let ledger = self.fleet.ledger();
            (ledger.assigned_count(), ledger.stopped_count())
        };
        let mark = self.mark()?;
        self.managers.pause().await?;
        let begun = Instant::now();
        let (mut back, mut sessions_back): (Option<Instant>, _) = (None, None);
        let mut least = workers;
        while back.is_none_or(|since| since.elapsed() < LASTS) {
            self.managers.check()?;
            let sessions = self.fleet.sessions();
            least = least.min(sessions);
            if sessions == workers && sessions_back.is_none() {
                sessions_back = Some(begun.elapsed());
            }
            let well = sessions == workers && self.all_ready().await;
            back = well.then(|| back.unwrap_or_else(Instant::now));
            ensure!(
                begun.elapsed() < self.patience,
                "{sessions} of {workers} workers have a session {:?} after the managers stood still",
                begun.elapsed()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let took = back.map_or(Duration::ZERO, |since| since.duration_since(begun));
        self.report.put("sessions_back_s", sessions_back.unwrap_or_default().as_secs_f64(), "s");
        self.report.put("all_well_s", took.as_secs_f64(), "s");
        self.report.put("sessions_least", least as f64, "");
        let ledger = self.fleet.ledger();
        let touched = ledger.assigned_count() - assigned + ledger.stopped_count() - stopped;
        self.report.put("tasks", tasks as f64, "");
        self.report.put("tasks_touched", touched as f64, "");
        self.cost(&mark, tasks)
    }

    /// The managers take all workers for ready; not so while none answers.
    async fn all_ready(&self) -> bool {
        let cluster = self.managers.api.cluster().await;
        cluster.is_ok_and(|cluster| cluster.workers_ready as usize == self.fleet.members.len())
    }

    /// An error if two tasks of a slot live.
    pub(super) fn double_tasks(&self) -> Result<()> {
        let mut living: HashMap<(ServiceId, u32), u32> = HashMap::new();
        for (_, entry) in self.fleet.ledger().since(0) {
            if !entry.ended {
                *living.entry((entry.service, entry.slot)).or_default() += 1;
            }
        }
        let doubles = living.values().filter(|count| **count > 1).count();
        ensure!(doubles == 0, "{doubles} slots are filled twice");
        Ok(())
    }
}
