//! `explain SERVICE|TASK`: why tasks are where they are, or nowhere, and what led to it.

use cluster_pb::control::v1::ExplainRequest;

use crate::Invocation;
use crate::error::Error;
use crate::output::Format;
use crate::text::{ago, now_ms, one_line};
use crate::view::{ExplainView, SlotView, TaskView};

#[derive(Debug, clap::Args)]
#[command(after_help = "For each slot: its task and node, why it is there or why it waits, what \
                        would help, and the tasks that were there before; then what happened to the \
                        service.")]
pub struct Args {
    /// A service or a task: name (web, web.2), id or beginning of the id
    #[arg(value_name = "SERVICE|TASK")]
    object: String,

    /// How to show it
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Format,

    /// Accept what the asked manager knows, which may be a little old, without asking the leader
    #[arg(long)]
    stale: bool,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let request = ExplainRequest { object: args.object.clone(), stale: args.stale };
    let answer = invocation.client()?.explain(request).await?;
    let view = ExplainView::from(answer);
    match args.output {
        Format::Json => invocation.printer.json(&view),
        Format::Table => {
            let text: String = page(&view, now_ms()).into_iter().map(|line| line + "\n").collect();
            invocation.printer.raw(text.as_bytes())
        }
    }
}

fn page(view: &ExplainView, now: u64) -> Vec<String> {
    let mut lines = vec![format!("service {} ({})", view.service, view.service_id)];
    lines.extend(view.remarks.iter().map(|remark| format!("  ! {}", one_line(remark))));
    for one in &view.slots {
        lines.push(String::new());
        lines.extend(slot(one, &view.service, now));
    }
    if !view.events.is_empty() {
        lines.extend([String::new(), "events, the newest first:".to_owned()]);
        let told = view.events.iter().rev();
        lines.extend(
            told.map(|event| format!("  {:<15} {}", ago(event.at_ms, now), one_line(&event.text))),
        );
    }
    lines
}

fn slot(slot: &SlotView, service: &str, now: u64) -> Vec<String> {
    let mut lines = Vec::new();
    match &slot.task {
        Some(task) => {
            let place = match task.node.as_str() {
                "" => "on no node".to_owned(),
                node => format!("on {node}"),
            };
            let since = ago(task.observed_at_ms, now);
            lines.push(format!(
                "{} ({}) is {} {place}, since {since}",
                task.name, task.id, task.observed_state
            ));
        }
        None => lines.push(format!("{service}.{} has no task", slot.slot)),
    }
    if !slot.verdict.is_empty() {
        lines.push(format!("  why:    {}", one_line(&slot.verdict)));
    }
    for obstacle in &slot.obstacles {
        let examples = match obstacle.examples.as_slice() {
            [] => String::new(),
            names => format!(" (such as {})", names.join(", ")),
        };
        let plural = if obstacle.nodes == 1 { "" } else { "s" };
        let why = one_line(&obstacle.why);
        lines.push(format!("  no:     {} node{plural}: {why}{examples}", obstacle.nodes));
    }
    lines.extend(slot.remedies.iter().map(|text| format!("  helps:  {}", one_line(text))));
    lines.extend(slot.history.iter().map(|task| format!("  before: {}", past(task, now))));
    lines
}

fn past(task: &TaskView, now: u64) -> String {
    let node = match task.node.as_str() {
        "" => String::new(),
        node => format!(" on {node}"),
    };
    let mut text =
        format!("{} {}{node} {}", task.id, task.observed_state, ago(task.observed_at_ms, now));
    let code = task.exit_code.map(|code| format!("exit code {code}")).unwrap_or_default();
    for part in [task.error.as_str(), code.as_str(), task.reason.as_str()] {
        if !part.is_empty() {
            text.push_str("; ");
            text.push_str(&one_line(part));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use cluster_pb::control::v1 as control;
    use cluster_pb::types::v1 as pb;

    use super::*;

    #[test]
    fn a_pending_task_is_explained_line_by_line() {
        let task = |id: &str, observed: &str, node: &str| pb::Task {
            id: id.into(),
            service_name: "web".into(),
            slot: 2,
            observed_state: observed.into(),
            observed_at_ms: 1_000,
            node_name: node.into(),
            ..Default::default()
        };
        let before = pb::Task {
            exit_code: Some(7),
            reason: "restart".into(),
            ..task("t1", "failed", "worker-1")
        };
        let answer = control::ExplainResponse {
            service_id: "s1".into(),
            service_name: "web".into(),
            slots: vec![control::SlotExplanation {
                slot: 2,
                task: Some(task("t2", "pending", "")),
                verdict: "no suitable node".into(),
                obstacles: vec![control::Obstacle {
                    nodes: 3,
                    why: "too little memory".into(),
                    examples: vec!["worker-1".into(), "worker-2".into()],
                }],
                remedies: vec!["64 MiB of memory on one node".into()],
                history: vec![before],
            }],
            events: vec![
                pb::Event { at_ms: 1_000, text: "created".into() },
                pb::Event { at_ms: 3_000, text: "scaled from 1 to 2".into() },
            ],
            remarks: vec!["the update is paused".into()],
            index: 1,
        };
        assert_eq!(
            page(&ExplainView::from(answer), 61_000),
            [
                "service web (s1)",
                "  ! the update is paused",
                "",
                "web.2 (t2) is pending on no node, since 1 minute ago",
                "  why:    no suitable node",
                "  no:     3 nodes: too little memory (such as worker-1, worker-2)",
                "  helps:  64 MiB of memory on one node",
                "  before: t1 failed on worker-1 1 minute ago; exit code 7; restart",
                "",
                "events, the newest first:",
                "  58 seconds ago  scaled from 1 to 2",
                "  1 minute ago    created",
            ]
        );
    }
}
