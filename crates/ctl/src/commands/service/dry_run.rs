//! `--dry-run`: what the managers would do, planned by their real planners on a copy.

use cluster_pb::control::v1 as control;
use serde::Serialize;

use crate::Invocation;
use crate::client::Client;
use crate::error::Error;
use crate::output::{Format, Table};

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Trying it out")]
pub struct DryRun {
    /// Show what the managers would start, stop and move, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// How to show it
    #[arg(long, short, value_name = "FORMAT", default_value = "table", requires = "dry_run")]
    output: Format,
}

#[derive(Serialize)]
struct View {
    started: u32,
    stopped: u32,
    /// On the same node.
    replaced: u32,
    moved: u32,
    preempted: u32,
    pending: usize,
    /// The change is larger than one forecast: there is more to come.
    truncated: bool,
    steps: Vec<StepView>,
}

#[derive(Serialize)]
struct StepView {
    /// start, stop, replace, move, preempt or pending
    action: String,
    task: String,
    node: String,
    /// Of a move: the node that it leaves.
    from: String,
    reason: String,
}

impl From<control::Step> for StepView {
    fn from(step: control::Step) -> Self {
        let task = match step.slot {
            0 => step.service_name,
            slot => format!("{}.{slot}", step.service_name),
        };
        Self {
            action: step.action,
            task,
            node: step.node_name,
            from: step.from_node_name,
            reason: step.reason,
        }
    }
}

impl From<control::ForecastResponse> for View {
    fn from(answer: control::ForecastResponse) -> Self {
        let pending = answer.pending.len();
        Self {
            started: answer.started,
            stopped: answer.stopped,
            replaced: answer.replaced,
            moved: answer.moved,
            preempted: answer.preempted,
            pending,
            truncated: answer.truncated,
            steps: answer.steps.into_iter().chain(answer.pending).map(StepView::from).collect(),
        }
    }
}

/// Asks and shows.
pub async fn show(
    invocation: &mut Invocation,
    client: &mut Client,
    args: &DryRun,
    change: control::forecast_request::Change,
) -> Result<(), Error> {
    let request = control::ForecastRequest { change: Some(change) };
    let view = View::from(client.forecast(request).await?);
    let printer = &mut invocation.printer;
    if args.output == Format::Json {
        return printer.json(&view);
    }
    let totals = totals(&view);
    let mut table = Table::new(["ACTION", "TASK", "NODE", "FROM", "REASON"]);
    for step in view.steps {
        table.row([step.action, step.task, step.node, step.from, step.reason]);
    }
    printer.raw(format!("{table}\n{totals}\n").as_bytes())?;
    printer.say("this is a forecast: nothing was changed");
    Ok(())
}

fn totals(view: &View) -> String {
    let View { started, stopped, replaced, moved, preempted, pending, truncated, .. } = view;
    let more = if *truncated { " (the beginning only: the change is large)" } else { "" };
    format!(
        "{started} to start, {stopped} to stop, {replaced} to replace, {moved} to move, \
         {preempted} to preempt, {pending} without a node{more}"
    )
}
