//! A million tasks held: memory, snapshot, restart, lists, watches.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cluster_pb::control::v1 as pb;
use futures::StreamExt as _;

use super::Bench;
use crate::api::service;

const REPLICAS: u32 = 10_000;
const WATCHERS: usize = 100;
/// Calls of which the median counts.
const CALLS: usize = 5;
const SMALL_SERVICES: u32 = 900;

impl Bench {
    pub(super) async fn million(&mut self) -> Result<()> {
        let services = self.scaled(100);
        let mark = self.mark()?;
        self.create_all(
            (0..services).map(|number| service(&format!("million-{number}"), REPLICAS)),
        )
        .await?;
        let tasks = services as usize * REPLICAS as usize;
        self.until_running(tasks).await?;
        self.until_recorded(tasks as u64).await?;
        self.placed(&mark)?;
        let names = (0..SMALL_SERVICES).map(|number| service(&format!("small-{number}"), 1));
        self.create_all(names).await?;
        self.until_running(tasks + SMALL_SERVICES as usize).await?;
        // What the burst took for a moment is given back by then, or never.
        tokio::time::sleep(super::SETTLE).await;
        let rss = self.managers.usage()?.iter().map(|usage| usage.rss_bytes).max().unwrap_or(0);
        self.report.put("manager_rss_held_mib", rss as f64 / f64::from(1 << 20), "MiB");
        self.lists().await?;
        self.fan_out().await?;
        self.restart().await
    }

    /// How long users wait for what is held.
    pub(super) async fn lists(&mut self) -> Result<()> {
        let api = self.managers.api.clone();
        let mut services = Vec::new();
        let mut nodes = Vec::new();
        for _ in 0..CALLS {
            let begun = Instant::now();
            let count = api.list_services().await?;
            services.push(begun.elapsed());
            self.report.put("services", count as f64, "");
            let begun = Instant::now();
            api.list_nodes().await?;
            nodes.push(begun.elapsed());
        }
        self.report.put("service_ls_ms", median_ms(services), "ms");
        self.report.put("node_ls_ms", median_ms(nodes), "ms");
        Ok(())
    }

    /// From a write to the last of a hundred watchers of the service.
    async fn fan_out(&mut self) -> Result<()> {
        let name = "small-0";
        let mut streams = Vec::new();
        for place in 0..WATCHERS {
            let request = pb::WatchServiceRequest { service: name.to_owned() };
            let stream = self.managers.api.of(place).watch_service(request).await;
            let mut stream = stream.context("opening a watch")?.into_inner();
            stream.message().await.context("the first view of a watch")?;
            streams.push(stream);
        }
        let begun = Instant::now();
        let update = self.managers.api.update(name, |spec| {
            spec.labels.insert("seen".to_owned(), "yes".to_owned());
        });
        let seen = futures::stream::iter(streams).map(|mut stream| async move {
            while let Ok(Some(view)) = stream.message().await {
                let spec = view.service.and_then(|service| service.spec);
                if spec.is_some_and(|spec| spec.labels.contains_key("seen")) {
                    break;
                }
            }
        });
        let seen = seen.buffer_unordered(WATCHERS).count();
        let (updated, _) = tokio::join!(update, seen);
        updated?;
        self.report.put("watch_100_ms", begun.elapsed().as_secs_f64() * 1e3, "ms");
        Ok(())
    }

    /// Kills a follower and starts it again, twice: the workers of the first time go to the others and
    /// stay there, so the second tells what the start alone takes.
    async fn restart(&mut self) -> Result<()> {
        let leader = self.managers.leader().await?;
        let victim = (leader + 1) % self.managers.addresses().len();
        self.report.put(
            "snapshot_mib",
            self.managers.snapshot_bytes(victim) as f64 / f64::from(1 << 20),
            "MiB",
        );
        self.put_lag("workers_lag_before_s");
        let ledger = self.fleet.ledger();
        let (assigned, stopped) = (ledger.assigned_count(), ledger.stopped_count());
        let (answered, reconnected) = self.start_again(victim, true).await?;
        self.report.put("restart_s", answered.as_secs_f64(), "s");
        self.report.put("reconnected_s", reconnected.as_secs_f64(), "s");
        tokio::time::sleep(super::SETTLE).await;
        let (answered, _) = self.start_again(victim, false).await?;
        self.report.put("restart_without_workers_s", answered.as_secs_f64(), "s");
        tokio::time::sleep(super::SETTLE).await;
        let ledger = self.fleet.ledger();
        let touched = ledger.assigned_count() - assigned + ledger.stopped_count() - stopped;
        self.report.put("tasks_touched", touched as f64, "");
        let usage = self.managers.usage_of(victim)?;
        self.report.put("restart_rss_mib", usage.rss_bytes as f64 / f64::from(1 << 20), "MiB");
        Ok(())
    }

    /// How long until the killed manager answers a linearizable read by itself, and until all workers
    /// have sessions again if it had any.
    async fn start_again(&mut self, victim: usize, had_any: bool) -> Result<(Duration, Duration)> {
        let workers = self.fleet.members.len();
        self.managers.kill(victim)?;
        let begun = Instant::now();
        self.managers.start_again(victim)?;
        let api = self.managers.api.of(victim);
        let answers = async {
            let request = pb::GetServiceRequest { service: "small-0".to_owned(), stale: false };
            while api.clone().get_service(request.clone()).await.is_err() {
                tokio::time::sleep(super::POLL).await;
            }
            begun.elapsed()
        };
        let sessions_back = async {
            let mut noticed = !had_any;
            loop {
                let sessions = self.fleet.sessions();
                noticed |= sessions < workers;
                if noticed && sessions == workers {
                    return begun.elapsed();
                }
                tokio::time::sleep(super::POLL).await;
            }
        };
        let both = async { tokio::join!(answers, sessions_back) };
        let both = tokio::time::timeout(self.patience, both).await;
        self.managers.check()?;
        both.with_context(|| {
            let sessions = self.fleet.sessions();
            format!(
                "{:?} after the restart of a manager it does not answer, or workers are not back: \
                 {sessions} of {workers} have a session",
                self.patience
            )
        })
    }
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}
