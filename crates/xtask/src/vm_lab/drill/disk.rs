//! No free byte where a daemon keeps its data: it says so, and goes on once there is room.

use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::super::form;
use super::Drill;

/// Below the data folder, so that it is the same file system wherever that is.
const FILL: &str = "/var/lib/cluster-fill";
const SERVICE: &str = "roomy";
const WRITES_BETWEEN_LOOKS: usize = 8;
/// What the kernel calls it.
const FULL: &str = "no space left";

/// Takes all blocks, also those that are kept for root, without writing them.
fn fill(drill: &Drill<'_>, machine: &str) -> Result<()> {
    let script = format!(
        "mkdir -p {FILL} && cd {FILL}; n=0; \
         size=$(( $(stat -f -c %f .) * $(stat -f -c %S .) )); \
         while [ $size -ge 4096 ]; do \
         if fallocate -l $size $n 2>/dev/null; then n=$((n + 1)); else rm -f $n; size=$((size / 2)); fi; \
         done; stat -f -c %a ."
    );
    let left = drill.lab.script(machine, &script)?;
    ensure!(left.trim() == "0", "{machine} still has {} free blocks", left.trim());
    Ok(())
}

fn free(drill: &Drill<'_>, machine: &str) -> Result<()> {
    drill.lab.script(machine, &format!("rm -rf {FILL}")).map(drop).map_err(Into::into)
}

/// What an interrupted drill left.
pub(super) fn free_all(drill: &Drill<'_>) -> Result<()> {
    drill.lab.machines().iter().try_for_each(|machine| free(drill, &machine.name()))
}

pub(super) fn worker(drill: &Drill<'_>) -> Result<()> {
    let lab = drill.lab;
    let victim = drill.occupied()?;
    fill(drill, &victim)?;
    println!("    {victim} has no free byte");
    let outcome = full_worker(drill, &victim);
    let begin = Instant::now();
    free(drill, &victim)?;
    outcome?;
    drill.retry("the task", || {
        let running = drill.running_tasks(SERVICE)?.len();
        ensure!(running == 1, "the task does not run: {}", reasons(drill, SERVICE)?);
        Ok(())
    })?;
    drill.tell(begin, "there is room again, and the task runs");
    form::ctl_output(lab, &["service", "rm", SERVICE])?;
    form::wait_ready(lab, drill.patience())?;
    Ok(())
}

/// A new task on the full node says why it does not run; those from before go on.
fn full_worker(drill: &Drill<'_>, victim: &str) -> Result<()> {
    let lab = drill.lab;
    let before = drill.running_tasks(super::SERVICE)?;
    let begin = Instant::now();
    let constraint = format!("node.hostname=={victim}");
    let create = ["service", "create", "--detach", "--name", SERVICE, "--constraint", &constraint];
    form::ctl_output(lab, &[&create[..], &["--restart-max-delay", "5s", "web:1"]].concat())?;
    // A worker that cannot even write down what it is to run has no task to tell of; then its node does.
    let told = drill.retry("a word about the full disk", || {
        let reasons = reasons(drill, SERVICE)?;
        if reasons.to_lowercase().contains(FULL) {
            return Ok(format!("service ps says: {reasons}"));
        }
        let node = form::ctl_json(lab, &["node", "inspect", victim])?;
        let notices = node["notices"].as_array().map_or(&[][..], Vec::as_slice).iter();
        let notice = notices.filter_map(|notice| notice.as_str()).find(|notice| {
            notice.starts_with("unhealthy: ") && notice.to_lowercase().contains(FULL)
        });
        match notice {
            Some(notice) => Ok(format!("node inspect says: {notice}")),
            None => bail!("nobody says that the disk is full; service ps says: {reasons}"),
        }
    })?;
    drill.tell(begin, &told);
    super::ensure_untouched(&before, &drill.running_tasks(super::SERVICE)?, "the full disk")
}

/// Errors and messages of the service's tasks.
fn reasons(drill: &Drill<'_>, service: &str) -> Result<String> {
    let tasks = form::ctl_json(drill.lab, &["service", "ps", service])?;
    let tasks = tasks.as_array().map_or(&[][..], Vec::as_slice).iter();
    let texts = tasks.flat_map(|task| [task["error"].as_str(), task["message"].as_str()]);
    let texts: Vec<&str> = texts.flatten().filter(|text| !text.is_empty()).collect();
    Ok(texts.first().map_or_else(|| "nothing".to_owned(), |text| (*text).to_owned()))
}

pub(super) fn manager(drill: &Drill<'_>) -> Result<()> {
    let lab = drill.lab;
    let Some(victim) = form::managers(lab).next() else { bail!("a lab has managers") };
    let victim = victim.name();
    let tasks = drill.running_tasks(super::SERVICE)?;
    let since = now(drill, &victim)?;
    fill(drill, &victim)?;
    println!("    {victim} has no free byte");
    let outcome = full_manager(drill, &victim, &since);
    let begin = Instant::now();
    free(drill, &victim)?;
    outcome?;
    drill.retry("a write", || label(drill, "after"))?;
    form::wait_ready(lab, drill.patience())?;
    drill.tell(begin, "there is room again; writes are accepted, all nodes are ready");
    super::ensure_untouched(&tasks, &drill.running_tasks(super::SERVICE)?, "the full disk")
}

/// Writes until the log needs a new block; then the journal must name the trouble.
fn full_manager(drill: &Drill<'_>, victim: &str, since: &str) -> Result<()> {
    let begin = Instant::now();
    let mut writes = 0;
    let told = drill.retry("a word about the full disk in the journal", || {
        // Refused or not: with other managers the cluster goes on.
        for _ in 0..WRITES_BETWEEN_LOOKS {
            writes += 1;
            if label(drill, &format!("write-{writes}")).is_err() {
                break;
            }
        }
        let journal = journal(drill, victim, "cluster-manager", since)?;
        let line = journal.lines().find(|line| line.to_lowercase().contains(FULL));
        match line {
            Some(line) => Ok(line.to_owned()),
            None => bail!("{victim} took {writes} writes and said nothing of a full disk"),
        }
    })?;
    drill.tell(begin, &format!("{writes} writes were made, and the journal says: {told}"));
    Ok(())
}

/// The machine's time, in the words of its journal.
fn now(drill: &Drill<'_>, machine: &str) -> Result<String> {
    Ok(drill.lab.script(machine, "date '+%F %T'")?.trim().to_owned())
}

/// What a unit has said since then, and its status.
fn journal(drill: &Drill<'_>, machine: &str, unit: &str, since: &str) -> Result<String> {
    let script = format!(
        "journalctl --no-pager --output cat --unit {unit} --since '{since}' 2>/dev/null; \
         systemctl show --property StatusText {unit}"
    );
    Ok(drill.lab.script(machine, &script)?)
}

/// A write as large as labels of one service can make it: the log takes disk blocks in advance, and
/// only needs new ones after some megabytes.
fn label(drill: &Drill<'_>, value: &str) -> Result<String> {
    const LABELS: usize = 16;
    let long = "x".repeat(4000);
    let labels: Vec<String> =
        (0..LABELS).map(|number| format!("drill-{number}={value}-{long}")).collect();
    let mut update = vec!["--timeout", "5s", "service", "update", "--detach"];
    for label in &labels {
        update.extend(["--label-add", label]);
    }
    update.push(super::SERVICE);
    form::ctl_output(drill.lab, &update)
}
