//! What processes cost while nothing happens: memory, and CPU over a while.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use cluster_lab::Lab;

use super::figures::{Contender, Idle, Report};

const WATCHED: Duration = Duration::from_secs(10);
/// The kernel reports CPU time in hundredths of a second on every machine Linux runs on.
const TICKS_PER_SECOND: f64 = 100.0;

struct Sample {
    pid: i32,
    kind: String,
    ticks: u64,
}

/// Weighs all processes of the nodes whose name `kind_of` translates to a kind.
pub(super) fn weigh(
    lab: &Lab,
    contender: Contender,
    kind_of: fn(&str) -> Option<&'static str>,
    report: &mut Report,
) -> Result<()> {
    let mut before = Vec::new();
    for node in lab.status()? {
        for process in lab.processes(&node.name)? {
            if let (Some(kind), Some(ticks)) = (kind_of(&process.name), ticks(process.pid)) {
                before.push(Sample { pid: process.pid, kind: kind.to_owned(), ticks });
            }
        }
    }
    thread::sleep(WATCHED);
    let mut kinds: BTreeMap<String, Vec<(u64, u64, f64)>> = BTreeMap::new();
    for sample in before {
        let (Some(after), Some((rss, pss))) = (ticks(sample.pid), memory(sample.pid)) else {
            continue;
        };
        let seconds = after.saturating_sub(sample.ticks) as f64 / TICKS_PER_SECOND;
        kinds.entry(sample.kind).or_default().push((
            rss,
            pss,
            100.0 * seconds / WATCHED.as_secs_f64(),
        ));
    }
    for (process, mut all) in kinds {
        all.sort_by_key(|(_, pss, _)| *pss);
        let (rss_kib, pss_kib, _) = all[all.len() / 2];
        let mut cpu: Vec<f64> = all.iter().map(|(_, _, cpu)| *cpu).collect();
        cpu.sort_by(f64::total_cmp);
        let cpu_percent = cpu[cpu.len() / 2];
        report.idle(Idle { contender, process, count: all.len(), rss_kib, pss_kib, cpu_percent });
    }
    Ok(())
}

/// User and system time of the process so far.
fn ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Resident and proportional memory in KiB.
fn memory(pid: i32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    Some((field("Rss:")?, field("Pss:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_weigh_itself() {
        let own = i32::try_from(std::process::id()).unwrap();
        let (rss, pss) = memory(own).unwrap();
        assert!(rss >= pss && pss > 0, "{rss} {pss}");
        assert!(ticks(own).is_some());
        assert!(memory(i32::MAX).is_none());
    }
}
