//! A cluster without room.

use anyhow::Result;
use cluster_pb::types::v1 as types;

use super::Bench;
use super::create::task;
use crate::api::service;

/// A node of this shape.
pub const NODE_CPU_NANOS: u64 = 4_000_000_000;
const TASK_CPU_NANOS: u64 = 1_000_000_000;
const TASKS_OF_NODE: u32 = 4;
const SERVICES: u32 = 20;

impl Bench {
    /// Fills every node, then asks for a thousand tasks of higher priority.
    pub(super) async fn preempt(&mut self) -> Result<()> {
        let full = self.fleet.members.len() as u32 * TASKS_OF_NODE;
        let low = (0..SERVICES).map(|number| {
            let replicas = full / SERVICES + u32::from(number < full % SERVICES);
            sized(&format!("low-{number}"), replicas, 10)
        });
        self.create_all(low).await?;
        self.until_running(full as usize).await?;
        self.until_recorded(u64::from(full)).await?;
        let wanted = self.scaled(1_000).min(full);
        let mark = self.mark()?;
        self.managers.api.create(&sized("high", wanted, 90)).await?;
        self.until_running((full + wanted) as usize).await?;
        self.placed(&mark)?;
        Ok(())
    }
}

fn sized(name: &str, replicas: u32, priority: u32) -> types::ServiceSpec {
    let mut spec = service(name, replicas);
    spec.priority = Some(priority);
    spec.max_unavailable = "100%".to_owned();
    task(&mut spec).reservations =
        Some(types::Resources { cpu_nanos: TASK_CPU_NANOS, memory_bytes: 0 });
    spec
}
