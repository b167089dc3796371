//! A container that takes more memory than its service may, on cgroup v2.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cluster::ask_within;

use super::super::form;
use super::Drill;

const SERVICE: &str = "greedy";
const PORT: u16 = 8081;
const LIMIT_MB: u64 = 64;
const WITHIN: Duration = Duration::from_secs(20);

pub(super) fn run(drill: &Drill<'_>) -> Result<()> {
    let lab = drill.lab;
    let begin = Instant::now();
    let (limit, publish) = (format!("{LIMIT_MB}M"), format!("{PORT}:80"));
    let create = ["service", "create", "--detach", "--name", SERVICE, "--limit-memory", &limit];
    form::ctl_output(lab, &[&create[..], &["--publish", &publish, "web:1"]].concat())?;
    let worker = *drill.addresses(|_| true).first().context("a lab has workers")?;
    let address = SocketAddr::from((worker, PORT));
    let ask = |path: &'static str| lab.inside(move || ask_within(address, path, WITHIN));
    drill.retry("an answer of the greedy one", || Ok(ask("/")??))?;
    let tasks = form::ctl_json(lab, &["service", "ps", SERVICE])?;
    let node = tasks[0]["node"].as_str().context("the task has no node")?.to_owned();
    let kind = lab.script(&node, "stat --file-system --format %T /sys/fs/cgroup")?;
    ensure!(kind.trim() == "cgroup2fs", "{node} has {} and not cgroup v2", kind.trim());
    let limited = lab.script(
        &node,
        &format!("find /sys/fs/cgroup -name memory.max -exec grep -lx {} {{}} +", LIMIT_MB << 20),
    )?;
    ensure!(!limited.trim().is_empty(), "no cgroup on {node} has a limit of {LIMIT_MB} MB");
    drill.tell(begin, &format!("it runs on {node}, limited in {}", limited.trim()));

    let begin = Instant::now();
    // The answer does not come: whoever eats is killed.
    let answer = ask("/eat?mb=128")?;
    ensure!(answer.is_err(), "it took twice its limit and lives: {answer:?}");
    drill.retry("an out-of-memory task", || {
        let tasks = form::ctl_json(lab, &["service", "ps", SERVICE])?;
        let tasks = tasks.as_array().context("service ps printed no list")?;
        ensure!(
            tasks.iter().any(|task| task["oom"] == true),
            "no task ran out of memory: {tasks:?}"
        );
        Ok(())
    })?;
    let table = form::ctl_output(lab, &["service", "ps", "--no-trunc", SERVICE])?;
    ensure!(table.contains("out of memory"), "people are not told:\n{table}");
    drill.tell(begin, "service ps says that it ran out of memory");
    drill.retry("its successor", || Ok(ask("/")??))?;
    drill.tell(begin, "its successor answers");
    form::ctl_output(lab, &["service", "rm", SERVICE])?;
    Ok(())
}
