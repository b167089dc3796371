//! `service scale SERVICE=N…`

use cluster_pb::control::v1::UpdateServiceRequest;

use super::converge::{self, Goal, Patience};
use crate::Invocation;
use crate::client::Client;
use crate::commands::for_each;
use crate::error::Error;
use crate::values::amount::replicas;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Services and how many replicas each shall have
    #[arg(required = true, value_name = "SERVICE=N", value_parser = target)]
    targets: Vec<Target>,

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
    let mut client = invocation.client()?;
    let mut goals = Vec::new();
    let asked = for_each(invocation, &args.targets, async |invocation, target| {
        let goal = scale(&mut client, target).await?;
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

async fn scale(client: &mut Client, target: &Target) -> Result<Goal, Error> {
    let service = converge::read(client, &target.service).await?;
    let mut spec = service.spec.unwrap_or_default();
    spec.replicas = target.replicas;
    let name = spec.name.clone();
    let request = UpdateServiceRequest {
        id: service.id.clone(),
        version: service.version,
        spec: Some(spec),
        remove_tasks: Vec::new(),
    };
    let version = client.update_service(request).await?.version;
    Ok(Goal { id: service.id, name, version, revision_before: Some(service.revision) })
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
}
