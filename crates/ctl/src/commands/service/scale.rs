//! `service scale SERVICE=N…`

use cluster_pb::control::v1::UpdateServiceRequest;
use cluster_pb::types::v1 as pb;

use super::check;
use super::converge::{self, Goal, Patience};
use super::ps;
use super::settings::is_global;
use super::version::Expected;
use crate::Invocation;
use crate::client::Client;
use crate::commands::for_each;
use crate::error::Error;
use crate::values::amount::replicas;
use crate::view::task_name;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Services and how many replicas each shall have
    #[arg(required = true, value_name = "SERVICE=N", value_parser = target)]
    targets: Vec<Target>,

    /// Of one service that shrinks: this task's slot goes first; its id, or its name as in web.2;
    /// may come again
    #[arg(long, value_name = "TASK")]
    remove: Vec<String>,

    #[command(flatten)]
    expected: Expected,

    #[command(flatten)]
    patience: Patience,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    service: String,
    replicas: u32,
}

fn target(text: &str) -> Result<Target, String> {
    match text.split_once('=') {
        Some((service, count)) if !service.is_empty() => {
            Ok(Target { service: service.to_owned(), replicas: replicas(count)? })
        }
        _ => Err("write SERVICE=N, such as web=3".to_owned()),
    }
}

/// All are asked for first, then waited for.
pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let only_one = [
        ("--remove", !args.remove.is_empty()),
        ("--expect-version", args.expected.expect_version.is_some()),
    ];
    if let Some((flag, _)) = only_one.iter().find(|(_, given)| *given && args.targets.len() > 1) {
        return Err(Error::usage(format!("{flag}: is for one service at a time")));
    }
    let mut client = invocation.client()?;
    let mut goals = Vec::new();
    let asked = for_each(invocation, &args.targets, async |invocation, target| {
        let goal = scale(&mut client, target, args).await?;
        invocation.printer.data(&goal.id)?;
        goals.push(goal);
        Ok(())
    })
    .await;
    let reached = for_each(invocation, &goals, async |invocation, goal| {
        converge::wait(invocation, &mut client, goal, &args.patience).await
    })
    .await;
    asked.and(reached)
}

async fn scale(client: &mut Client, target: &Target, args: &Args) -> Result<Goal, Error> {
    let service = converge::read(client, &target.service).await?;
    args.expected.check(&service)?;
    let mut spec = service.spec.clone().unwrap_or_default();
    if is_global(&spec) {
        let message = format!(
            "service {} is global: it has one task on each node and cannot be scaled",
            spec.name
        );
        return Err(Error::refused(message).hint("choose its nodes with --constraint-add"));
    }
    let remove_tasks = match args.remove.as_slice() {
        [] => Vec::new(),
        wanted => {
            let fewer = spec.replicas.saturating_sub(target.replicas);
            check_shrinks(fewer, wanted.len(), spec.replicas)?;
            let tasks = ps::all(client, &service.id, false).await?;
            wanted.iter().map(|wanted| resolve(&tasks, wanted)).collect::<Result<_, _>>()?
        }
    };
    spec.replicas = target.replicas;
    let request = UpdateServiceRequest {
        id: service.id.clone(),
        version: service.version,
        spec: Some(spec.clone()),
        remove_tasks,
    };
    let explain = |error| check::explain(check::Verb::Update, &spec, error);
    let version = client.update_service(request).await.map_err(explain)?.version;
    Ok(Goal::changed(&service, version))
}

fn check_shrinks(fewer: u32, named: usize, now: u32) -> Result<(), Error> {
    if usize::try_from(fewer).is_ok_and(|fewer| named <= fewer) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "--remove: names {named} tasks, but the service shrinks by {fewer} (it has {now} replicas); \
         to replace tasks instead, use `clusterctl service restart`"
    )))
}

/// The id of a task that is named by its id, the beginning of it, or its name.
fn resolve(tasks: &[pb::Task], wanted: &str) -> Result<String, Error> {
    let present = |task: &&pb::Task| {
        matches!(task.desired_state.as_str(), "ready" | "running") && !ended(task)
    };
    let mut named = tasks.iter().filter(present).filter(|task| task_name(task) == wanted);
    // Two tasks of a slot may run beside each other: either names the slot.
    if let Some(task) = named.next() {
        return Ok(task.id.clone());
    }
    let begins: Vec<&pb::Task> =
        tasks.iter().filter(|task| !wanted.is_empty() && task.id.starts_with(wanted)).collect();
    match begins.as_slice() {
        [task] => Ok(task.id.clone()),
        [] => Err(Error::refused(format!("--remove: the service has no present task `{wanted}`"))
            .hint("`clusterctl service ps` shows ids and names such as web.2")),
        _ => Err(Error::refused(format!("--remove: several tasks begin with `{wanted}`"))
            .hint("give more characters of the id")),
    }
}

fn ended(task: &pb::Task) -> bool {
    matches!(task.observed_state.as_str(), "complete" | "shutdown" | "failed" | "rejected" | "lost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_and_a_number() {
        assert_eq!(target("web=3"), Ok(Target { service: "web".into(), replicas: 3 }));
        for text in ["web", "=3", "web=", "web=-1", "web=x"] {
            assert!(target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tasks_to_remove_are_named_in_three_ways() {
        let task = |id: &str, slot, observed: &str| pb::Task {
            id: id.into(),
            service_name: "web".into(),
            slot,
            desired_state: "running".into(),
            observed_state: observed.into(),
            ..Default::default()
        };
        let tasks = [task("abc", 1, "failed"), task("abd", 1, "running"), task("x1", 2, "running")];
        assert_eq!(resolve(&tasks, "web.1").unwrap(), "abd");
        assert_eq!(resolve(&tasks, "x").unwrap(), "x1");
        assert_eq!(resolve(&tasks, "abd").unwrap(), "abd");
        assert!(resolve(&tasks, "ab").unwrap_err().message.contains("several"));
        assert!(resolve(&tasks, "web.3").unwrap_err().message.contains("no present task"));
        assert!(check_shrinks(1, 2, 3).unwrap_err().message.contains("shrinks by 1"));
    }
}
