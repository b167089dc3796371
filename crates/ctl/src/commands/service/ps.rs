//! `service ps SERVICE…`

use std::cmp::Reverse;

use cluster_pb::control::v1::ListTasksRequest;
use cluster_pb::types::v1::Task;

use crate::Invocation;
use crate::client::Client;
use crate::error::Error;
use crate::output::{Format, Show, Table};
use crate::text::{ago, now_ms, one_line, shortened, until};
use crate::view::TaskView;

const REASON_WIDTH: usize = 60;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,

    /// Show long texts in full
    #[arg(long)]
    no_trunc: bool,

    #[command(flatten)]
    show: Show,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    let mut rows: Vec<TaskView> = Vec::new();
    for service in &args.services {
        let mut tasks = all(&mut client, service, args.show.stale).await?;
        sort(&mut tasks);
        rows.extend(tasks.into_iter().map(TaskView::from));
    }
    let printer = &mut invocation.printer;
    if args.show.quiet {
        return rows.iter().try_for_each(|row| printer.data(&row.id));
    }
    if args.show.output == Format::Json {
        return printer.json(&rows);
    }
    printer.table(&table(&rows, args.no_trunc, now_ms()))
}

pub async fn all(client: &mut Client, service: &str, stale: bool) -> Result<Vec<Task>, Error> {
    let mut tasks = Vec::new();
    let mut after = String::new();
    loop {
        let request = ListTasksRequest {
            service: service.to_owned(),
            node: String::new(),
            stale,
            after,
            limit: 0,
        };
        let page = client.list_tasks(request).await?;
        tasks.extend(page.tasks);
        if page.next.is_empty() {
            return Ok(tasks);
        }
        after = page.next;
    }
}

/// Slot by slot; within one, the newest attempt first. Wanted tasks come before others of the
/// same moment.
fn sort(tasks: &mut [Task]) {
    let wanted = |task: &Task| matches!(task.desired_state.as_str(), "ready" | "running");
    tasks.sort_by_key(|task| {
        (task.slot, Reverse(task.created_at_ms), !wanted(task), Reverse(task.version))
    });
}

fn table(rows: &[TaskView], no_trunc: bool, now: u64) -> Table {
    let mut table = Table::new([
        "ID",
        "NAME",
        "IMAGE",
        "NODE",
        "DESIRED STATE",
        "CURRENT STATE",
        "ERROR/REASON",
    ]);
    let mut before: Option<&TaskView> = None;
    for row in rows {
        let older =
            before.is_some_and(|last| last.service_id == row.service_id && last.slot == row.slot);
        // Of two that run, the younger starts beside the older.
        let pair = older && is_wanted(row) && before.is_some_and(|last| last.beside == row.id);
        before = Some(row);
        let name = match (older, pair) {
            (false, _) => row.name.clone(),
            (true, true) => format!(" |- {}", row.name),
            (true, false) => format!(" \\_ {}", row.name),
        };
        let state = state(row, now);
        let why = why(row);
        let why = if no_trunc { why } else { shortened(&why, REASON_WIDTH) };
        table.row([
            row.id.clone(),
            name,
            row.image.clone(),
            row.node.clone(),
            row.desired_state.clone(),
            state,
            why,
        ]);
    }
    table
}

fn is_wanted(row: &TaskView) -> bool {
    matches!(row.desired_state.as_str(), "ready" | "running")
}

fn state(row: &TaskView, now: u64) -> String {
    let since = ago(row.observed_at_ms, now);
    let waits = row.desired_state == "ready";
    match (row.observed_state.as_str(), row.not_before_ms.filter(|_| waits)) {
        (_, Some(next)) if row.crash_loop => {
            format!("crash loop, next start {}", until(next, now))
        }
        (state, Some(next)) if next > now => format!("{state}, starts {}", until(next, now)),
        ("running", _) if !row.ready && is_wanted(row) => format!("running (not ready) {since}"),
        (state, _) => format!("{state} {since}"),
    }
}

/// What went wrong; else why it is not running yet, or what is the matter with its node.
fn why(row: &TaskView) -> String {
    if !row.error.is_empty() {
        return one_line(&row.error);
    }
    let ended = matches!(row.observed_state.as_str(), "failed" | "rejected" | "complete");
    match row.exit_code {
        _ if row.oom => "ran out of memory".to_owned(),
        Some(code) if ended && code != 0 => format!("exited with code {code}"),
        _ if row.observed_state == "running" && row.ready => match row.beside.as_str() {
            // What its silent node means for it.
            "" => one_line(&row.message),
            older => format!("started beside {older}"),
        },
        _ => one_line(&row.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(slot: u32, created_at_ms: u64, desired: &str, observed: &str) -> Task {
        Task {
            id: format!("t{slot}{created_at_ms}"),
            service_name: "web".into(),
            slot,
            created_at_ms,
            observed_at_ms: created_at_ms,
            desired_state: desired.into(),
            observed_state: observed.into(),
            image: "web:1".into(),
            ready: observed == "running",
            ..Default::default()
        }
    }

    #[test]
    fn the_newest_attempt_leads_and_history_is_indented() {
        let mut failed = task(1, 1_000, "shutdown", "failed");
        failed.exit_code = Some(7);
        let mut pending = task(2, 1_000, "running", "pending");
        pending.message = "no suitable node (constraints refused 3 nodes)".into();
        let mut tasks = vec![failed, pending, task(1, 3_000, "running", "running")];
        sort(&mut tasks);
        let rows: Vec<TaskView> = tasks.into_iter().map(TaskView::from).collect();
        let text = table(&rows, false, 4_000).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("web.1") && lines[1].contains("running 1 second ago"));
        assert!(lines[2].contains(" \\_ web.1") && lines[2].ends_with("exited with code 7"));
        assert!(lines[3].contains("no suitable node"));
    }

    #[test]
    fn long_reasons_are_cut_unless_asked_otherwise() {
        let mut task = task(1, 1_000, "running", "pending");
        task.error = "x".repeat(200);
        let rows = [TaskView::from(task)];
        assert!(table(&rows, false, 0).to_string().contains('…'));
        assert!(table(&rows, true, 0).to_string().contains(&"x".repeat(200)));
    }

    #[test]
    fn states_say_what_is_waited_for() {
        let shown = |task: Task, now| state(&TaskView::from(task), now);
        let crash =
            Task { crash_loop: true, not_before_ms: 17_000, ..task(1, 1_000, "ready", "ready") };
        assert_eq!(shown(crash, 1_000), "crash loop, next start in 16s");
        let waits = Task { not_before_ms: 3_000, ..task(1, 1_000, "ready", "ready") };
        assert_eq!(shown(waits, 1_000), "ready, starts in 2s");
        let unready = Task { ready: false, ..task(1, 1_000, "running", "running") };
        assert_eq!(shown(unready, 3_000), "running (not ready) 2 seconds ago");
        let leaving = Task { ready: false, ..task(1, 1_000, "shutdown", "running") };
        assert_eq!(shown(leaving, 3_000), "running 2 seconds ago");
    }

    #[test]
    fn two_tasks_of_a_slot_stand_together() {
        let old = task(1, 1_000, "running", "running");
        let new = Task { beside: old.id.clone(), ..task(1, 2_000, "running", "starting") };
        let ended = task(1, 500, "shutdown", "failed");
        let mut tasks = vec![ended, old, new];
        sort(&mut tasks);
        let rows: Vec<TaskView> = tasks.into_iter().map(TaskView::from).collect();
        let text = table(&rows, false, 4_000).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("   web.1") && lines[1].contains("starting"), "{text}");
        assert!(lines[2].contains(" |- web.1") && lines[2].contains("running"), "{text}");
        assert!(lines[3].contains(" \\_ web.1"), "{text}");
    }
}
