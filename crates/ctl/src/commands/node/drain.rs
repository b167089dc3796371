//! `node drain NODE`: gives a node's tasks away and says what it waits for until none is left. The
//! drain belongs to the managers: whoever stops watching does not stop it.

use std::time::{Duration, Instant};

use cluster_pb::control::v1::forecast_request::Change;
use cluster_pb::control::v1::{GetNodeRequest, UpdateNodeRequest};
use cluster_pb::types::v1 as pb;

use super::require_worker;
use crate::Invocation;
use crate::client::Client;
use crate::commands::service::{DryRun, show_forecast};
use crate::error::{Error, Exit};
use crate::output::Printer;
use crate::values::duration::milliseconds;

const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// How long managers may be out of reach, in one go, before the wait is given up.
const BLIND_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Tasks leave a few at a time, so that their services keep running, and the \
                        node takes no new ones. Ctrl-C detaches: the drain goes on. `clusterctl node \
                        update --availability active NODE` ends it."
)]
pub struct Args {
    /// Name, id or beginning of the id
    node: String,

    /// After so long, what is left goes at once (default: never)
    #[arg(long, value_name = "DURATION", value_parser = milliseconds, allow_hyphen_values = true)]
    deadline: Option<u64>,

    /// Everything goes at once, whatever that does to the services and whatever --deadline
    /// says
    #[arg(long)]
    force: bool,

    /// Do not wait until the node is empty
    #[arg(long, short)]
    detach: bool,

    #[command(flatten)]
    dry_run: DryRun,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    let node = read(&mut client, &args.node).await?;
    require_worker(&node, "drained")?;
    let request = UpdateNodeRequest {
        id: node.id.clone(),
        version: node.version,
        availability: "drain".to_owned(),
        labels: node.labels,
        drain_deadline_ms: args.deadline.filter(|_| !args.force),
        drain_force: Some(args.force),
    };
    if args.dry_run.dry_run {
        let change = Change::Node(request);
        return show_forecast(invocation, &mut client, &args.dry_run, change).await;
    }
    client.update_node(request).await?;
    invocation.printer.data(&node.id)?;
    if args.detach {
        return Ok(());
    }
    let name = node.name;
    let printer = &mut invocation.printer;
    tokio::select! {
        done = empty(printer, &mut client, &node.id, &name) => done?,
        _ = tokio::signal::ctrl_c() => {
            let line = format!(
                "detached; the drain goes on: look again with `clusterctl node inspect {name}`"
            );
            printer.say(&line);
            return Ok(());
        }
    }
    printer.say(&format!("node {name} is empty"));
    Ok(())
}

async fn read(client: &mut Client, node: &str) -> Result<pb::Node, Error> {
    let request = GetNodeRequest { node: node.to_owned(), stale: false };
    let answer = client.get_node(request).await?;
    answer.node.ok_or_else(|| Error::refused(format!("the manager sent no node `{node}`")))
}

/// Returns when the node has no task left.
async fn empty(
    printer: &mut Printer,
    client: &mut Client,
    id: &str,
    name: &str,
) -> Result<(), Error> {
    let mut told: Vec<String> = Vec::new();
    let mut blind_since: Option<Instant> = None;
    loop {
        match read(client, id).await {
            Ok(node) if node.availability != "drain" => {
                let message =
                    format!("node {name} is no longer drained: it is {}", node.availability);
                return Err(Error::refused(message).hint("somebody else changed its availability"));
            }
            Ok(node) => {
                blind_since = None;
                let now = waits(&node);
                if printer.is_live() {
                    printer.draw(&now);
                } else {
                    now.iter()
                        .filter(|line| !told.contains(line))
                        .for_each(|line| printer.say(line));
                }
                if node.tasks == 0 && node.drain_waits.is_empty() {
                    return Ok(());
                }
                told = now;
            }
            Err(error) if matches!(error.exit, Exit::Unreachable | Exit::TimedOut) => {
                let is_first = blind_since.is_none();
                let since = *blind_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= BLIND_MAX {
                    let hint = format!(
                        "the drain goes on; look again with `clusterctl node inspect {name}`"
                    );
                    return Err(error.hint(hint));
                }
                if is_first {
                    printer.say(&format!("lost sight of the managers ({error}); asking again"));
                }
                client.leave_manager();
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn waits(node: &pb::Node) -> Vec<String> {
    let plural = if node.tasks == 1 { "" } else { "s" };
    let mut lines = vec![format!("{} task{plural} left on {}", node.tasks, node.name)];
    lines.extend(node.drain_waits.iter().map(|wait| format!("waiting: {wait}")));
    lines
}
