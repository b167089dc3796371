//! The loads and their questions.

mod churn;
mod create;
mod idle;
mod million;
mod outage;
pub mod overload;
mod preempt;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_pb::types::v1 as types;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::fleet::Fleet;
use crate::ledger::{Entry, KINDS};
use crate::managers::Managers;
use crate::process::{Usage, loopback_bytes};
use crate::report::Report;
use crate::worker::Behaviour;

/// Clients that create services at the same time.
const CLIENTS: usize = 16;
const POLL: Duration = Duration::from_millis(2);
/// After a load, before memory is looked at.
const SETTLE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// 1: one service of 10,000 replicas.
    One,
    /// 2: 1,000 services of 100, each for one class of nodes.
    Many,
    /// 3: 5,000 tasks, then 50,000 more, created one at a time.
    Single,
    /// 4: two spread levels, resources and host ports.
    Spread,
    /// 5: one task of a hundred exits each second, for a minute.
    Churn,
    /// 6: one node of twenty dies, one of twenty drains, at once.
    Loss,
    /// 7: shape 1, and the leader is killed in the middle.
    Failover,
    /// 8: a service of 1,000 replicas is rolled.
    Roll,
    /// 9: 1,000,000 tasks held.
    Million,
    /// 10: a full cluster, then services of higher priority.
    Preempt,
    /// Nothing but heartbeats.
    Idle,
    /// A follower is killed; its workers go elsewhere.
    Reconnect,
    /// All managers stand still for some seconds, with many tasks held.
    Stall,
    /// Writes of users, one at a time and many.
    Writes,
    /// Ten times the writes that can be taken.
    Overload,
}

const NAMES: &[(&str, Shape)] = &[
    ("1", Shape::One),
    ("2", Shape::Many),
    ("3", Shape::Single),
    ("4", Shape::Spread),
    ("5", Shape::Churn),
    ("6", Shape::Loss),
    ("7", Shape::Failover),
    ("8", Shape::Roll),
    ("9", Shape::Million),
    ("10", Shape::Preempt),
    ("idle", Shape::Idle),
    ("reconnect", Shape::Reconnect),
    ("stall", Shape::Stall),
    ("writes", Shape::Writes),
    ("overload", Shape::Overload),
];

pub fn parse(text: &str) -> Result<Shape, String> {
    let known = NAMES.iter().find(|(name, _)| *name == text);
    known.map(|(_, shape)| *shape).ok_or_else(|| {
        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        format!("there is no such shape; use one of {}", names.join(", "))
    })
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, shape)| shape == self).map_or("?", |(name, _)| *name);
        f.write_str(name)
    }
}

impl Shape {
    pub fn behaviour(self) -> Behaviour {
        Behaviour {
            // Small nodes are full with few tasks.
            cpu_nanos: if self == Shape::Preempt { preempt::NODE_CPU_NANOS } else { 0 },
            ..Behaviour::default()
        }
    }
}

/// A running cluster under measurement.
pub struct Bench {
    pub managers: Managers,
    pub fleet: Fleet,
    pub report: Report,
    pub scale: f64,
    pub patience: Duration,
}

/// Where things stood when a measurement began.
struct Mark {
    at_us: u64,
    usage: Vec<Usage>,
    wire_bytes: u64,
    heard: [u64; KINDS.len()],
}

impl Bench {
    pub async fn run(&mut self, shape: Shape) -> Result<()> {
        match shape {
            Shape::One => self.one().await,
            Shape::Many => self.many().await,
            Shape::Single => self.single().await,
            Shape::Spread => self.spread().await,
            Shape::Churn => self.churn().await,
            Shape::Loss => self.loss().await,
            Shape::Failover => self.failover().await,
            Shape::Roll => self.roll().await,
            Shape::Million => self.million().await,
            Shape::Preempt => self.preempt().await,
            Shape::Idle => self.idle().await,
            Shape::Reconnect => self.reconnect().await,
            Shape::Stall => self.stall().await,
            Shape::Writes => self.writes().await,
            Shape::Overload => self.overload().await,
        }?;
        self.managers.check()
    }

    /// A count of the shape, scaled; at least one.
    fn scaled(&self, count: u32) -> u32 {
        ((f64::from(count) * self.scale) as u32).max(1)
    }

    fn mark(&self) -> Result<Mark> {
        Ok(Mark {
            usage: self.managers.usage()?,
            wire_bytes: loopback_bytes(),
            heard: self.fleet.ledger().heard_counts(),
            at_us: self.fleet.ledger().now_us(),
        })
    }

    pub fn put_lag(&mut self, name: &'static str) {
        let lag = self.fleet.lag();
        self.report.put(name, lag.as_secs_f64(), "s");
    }

    /// Reports the tasks assigned since a mark and what they cost.
    fn placed(&mut self, mark: &Mark) -> Result<Vec<Entry>> {
        let entries = self.fleet.ledger().since(mark.at_us);
        let entries: Vec<Entry> = entries.into_iter().map(|(_, entry)| entry).collect();
        self.report.placements(mark.at_us, &entries);
        self.cost(mark, entries.len())?;
        Ok(entries)
    }

    fn cost(&mut self, mark: &Mark, tasks: usize) -> Result<()> {
        let usage = self.managers.usage()?;
        // After the loss of a manager the rest cannot be told apart from before by place.
        if usage.len() == mark.usage.len() {
            self.report.usage(&mark.usage, &usage, tasks);
        }
        let each = tasks.max(1) as f64;
        let wire = loopback_bytes().saturating_sub(mark.wire_bytes);
        self.report.put("wire_bytes_per_task", wire as f64 / each, "B");
        let heard = self.fleet.ledger().heard_counts();
        for (kind, (before, after)) in KINDS.iter().zip(mark.heard.iter().zip(&heard)) {
            self.report.put(kind, (after - before) as f64 / each, "");
        }
        Ok(())
    }

    /// Waits until something holds; an error says what was waited for.
    async fn until(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&Fleet) -> bool,
    ) -> Result<Duration> {
        let begun = Instant::now();
        while !holds(&self.fleet) {
            self.managers.check()?;
            let ledger = self.fleet.ledger();
            ensure!(
                begun.elapsed() < self.patience,
                "{what}: not after {:?}; {} tasks were assigned, {} ran, {} ended; allow more with \
                 --patience",
                self.patience,
                ledger.assigned_count(),
                ledger.running_count(),
                ledger.stopped_count()
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(begun.elapsed())
    }

    /// Waits until so many tasks have run in all.
    async fn until_running(&mut self, count: usize) -> Result<()> {
        let what = format!("{count} tasks running");
        self.until(&what, |fleet| fleet.ledger().running_count() >= count).await?;
        Ok(())
    }

    /// Waits until managers hold the reports of so many tasks.
    async fn until_recorded(&mut self, count: u64) -> Result<()> {
        let what = format!("reports of {count} tasks recorded");
        self.until(&what, |fleet| fleet.ledger().recorded_count() >= count).await?;
        Ok(())
    }

    /// Creates services from several clients, spread over the managers.
    async fn create_all(&mut self, specs: impl Iterator<Item = types::ServiceSpec>) -> Result<()> {
        let creates = specs.enumerate().map(|(place, spec)| {
            let api = self.managers.api.beginning_with(place);
            async move { api.create(&spec).await }
        });
        let begun = Instant::now();
        stream::iter(creates).buffer_unordered(CLIENTS).try_collect::<()>().await?;
        self.report.put("creates_answered_s", begun.elapsed().as_secs_f64(), "s");
        Ok(())
    }
}
