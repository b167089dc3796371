//! What sessions cost when nothing happens.

use std::time::Duration;

use anyhow::Result;

use super::Bench;

const WATCHED: Duration = Duration::from_secs(20);

impl Bench {
    pub(super) async fn idle(&mut self) -> Result<()> {
        let sessions = self.fleet.sessions();
        self.report.put("sessions", sessions as f64, "");
        self.report.put("join_s", self.fleet.joined_in.as_secs_f64(), "s");
        tokio::time::sleep(super::SETTLE).await;
        let mark = self.mark()?;
        tokio::time::sleep(WATCHED).await;
        self.cost(&mark, self.fleet.members.len())?;
        let usage = self.managers.usage()?;
        let each = mark.usage.iter().zip(&usage).map(|(before, after)| after.cpu_s - before.cpu_s);
        let most = each.fold(0.0, f64::max) / WATCHED.as_secs_f64() * 100.0;
        self.report.put("manager_cpu_percent_max", most, "% of a core");
        let rss: u64 = usage.iter().map(|usage| usage.rss_bytes).sum();
        self.report.put("managers_rss_mib", rss as f64 / f64::from(1 << 20), "MiB");
        Ok(())
    }
}
