//! Shapes that create services and wait for their tasks.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cluster_pb::types::v1 as types;

use super::Bench;
use crate::api::service;
use crate::fleet::CLASSES;

const MEBIBYTE: u64 = 1 << 20;

impl Bench {
    pub(super) async fn one(&mut self) -> Result<()> {
        let replicas = self.scaled(10_000);
        let mark = self.mark()?;
        self.managers.api.create(&service("one", replicas)).await?;
        self.until_running(replicas as usize).await?;
        self.until_recorded(u64::from(replicas)).await?;
        self.placed(&mark)?;
        Ok(())
    }

    pub(super) async fn many(&mut self) -> Result<()> {
        let services = self.scaled(1_000);
        let mark = self.mark()?;
        let specs = (0..services).map(|number| {
            let mut spec = service(&format!("many-{number}"), 100);
            let class = format!("engine.labels.class==c{}", number % CLASSES);
            task(&mut spec).constraints = vec![class];
            spec
        });
        self.create_all(specs).await?;
        let tasks = services as usize * 100;
        self.until_running(tasks).await?;
        self.until_recorded(tasks as u64).await?;
        self.placed(&mark)?;
        self.lists().await
    }

    pub(super) async fn single(&mut self) -> Result<()> {
        let warm = self.scaled(5_000);
        self.managers.api.create(&service("warm", warm)).await?;
        self.until_running(warm as usize).await?;
        self.until_recorded(u64::from(warm)).await?;
        let services = self.scaled(50_000);
        let mark = self.mark()?;
        let specs = (0..services).map(|number| service(&format!("single-{number}"), 1));
        self.create_all(specs).await?;
        let tasks = warm as usize + services as usize;
        self.until_running(tasks).await?;
        self.placed(&mark)?;
        Ok(())
    }

    pub(super) async fn spread(&mut self) -> Result<()> {
        let services = self.scaled(100);
        let nodes = self.fleet.members.len();
        ensure!(nodes >= 100, "field `--nodes`: this shape needs 100, one for each host port");
        let mark = self.mark()?;
        let specs = (0..services).map(|number| {
            let mut spec = service(&format!("spread-{number}"), 100);
            let task = task(&mut spec);
            task.spread_over =
                vec!["engine.labels.zone".to_owned(), "engine.labels.rack".to_owned()];
            task.reservations =
                Some(types::Resources { cpu_nanos: 100_000_000, memory_bytes: 64 * MEBIBYTE });
            task.host_ports = vec![types::PortSpec {
                published: 10_000 + number % 5_000,
                target: 80,
                host: true,
            }];
            spec
        });
        self.create_all(specs).await?;
        self.until_running(services as usize * 100).await?;
        self.placed(&mark)?;
        Ok(())
    }

    pub(super) async fn roll(&mut self) -> Result<()> {
        let replicas = self.scaled(1_000);
        let mut spec = service("roll", replicas);
        spec.update = Some(types::UpdatePolicy {
            parallelism: "10%".to_owned(),
            monitor_ms: Some(0),
            ..Default::default()
        });
        self.managers.api.create(&spec).await?;
        self.until_running(replicas as usize).await?;
        self.until_recorded(u64::from(replicas)).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mark = self.mark()?;
        let edit = |spec: &mut types::ServiceSpec| {
            let container = spec.task.as_mut().and_then(|task| task.container.as_mut());
            if let Some(container) = container {
                container.env = vec!["VERSION=2".to_owned()];
            }
        };
        self.managers.api.update("roll", edit).await?;
        self.until_running(replicas as usize * 2).await?;
        self.placed(&mark)?;
        let rollout = self.managers.api.service("roll").await?.rollout.context("no rollout")?;
        self.report.put("rollout_failures", f64::from(rollout.failures), "");
        Ok(())
    }

    /// Shape 1, with the leader killed when a part of the tasks was assigned.
    pub(super) async fn failover(&mut self) -> Result<()> {
        let replicas = self.scaled(10_000);
        let leader = self.managers.leader().await?;
        let mark = self.mark()?;
        self.managers.api.beginning_with(leader + 1).create(&service("one", replicas)).await?;
        let some = replicas as usize / 10;
        self.until("a tenth assigned", |fleet| fleet.ledger().assigned_count() >= some).await?;
        let at_us = self.fleet.ledger().now_us();
        self.managers.kill(leader)?;
        self.until_running(replicas as usize).await?;
        let entries = self.placed(&mark)?;
        let last = entries.iter().filter_map(|entry| entry.running_us).max().unwrap_or(at_us);
        self.report.put("after_kill_s", last.saturating_sub(at_us) as f64 / 1e6, "s");
        self.double_tasks()
    }
}

pub(super) fn task(spec: &mut types::ServiceSpec) -> &mut types::TaskSpec {
    spec.task.get_or_insert_default()
}
