//! Tasks that keep ending.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use cluster_model::ServiceId;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::Bench;
use crate::report::Times;
use crate::worker::Order;

const SECONDS: u32 = 60;

impl Bench {
    /// Each second one task of a hundred exits, each at most once, so that every exit is the first
    /// failure of its slot.
    pub(super) async fn churn(&mut self) -> Result<()> {
        let tasks = self.warm().await?;
        let mut untouched = self.fleet.ledger().since(0);
        untouched.sort_unstable_by_key(|(task, _)| *task);
        let mut random = StdRng::seed_from_u64(1);
        let mark = self.mark()?;
        let mut exited: HashMap<(ServiceId, u32), u64> = HashMap::new();
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        for _ in 0..SECONDS {
            beat.tick().await;
            untouched.shuffle(&mut random);
            let left = untouched.len().saturating_sub(tasks.div_ceil(100));
            let chosen = untouched.split_off(left);
            for (task, entry) in &chosen {
                exited.insert((entry.service, entry.slot), self.fleet.ledger().now_us());
                self.fleet.order(entry.worker as usize, Order::Exit(*task))?;
            }
        }
        self.until_running(tasks + exited.len()).await?;
        let entries = self.placed(&mark)?;
        let waits = entries.iter().filter_map(|entry| {
            let exit = exited.get(&(entry.service, entry.slot))?;
            Some(entry.running_us?.saturating_sub(*exit))
        });
        let waits = Times::of(waits, 0);
        self.report.put("exit_to_running_p50_s", waits.at(50), "s");
        self.report.put("exit_to_running_p99_s", waits.at(99), "s");
        self.report.put("exit_to_running_max_s", waits.last_s(), "s");
        Ok(())
    }
}
