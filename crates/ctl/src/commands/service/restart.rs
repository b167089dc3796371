//! `service restart SERVICE…`: replaces every task although nothing changed, under the update
//! policy. Of a job: begins another run.

use cluster_pb::control::v1::UpdateServiceRequest;

use super::check;
use super::converge::{self, Goal, Patience};
use crate::Invocation;
use crate::client::Client;
use crate::commands::for_each;
use crate::error::Error;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Replaces every task as --update-… of the service says, and waits until that \
                        is done; Ctrl-C detaches. A job begins another run."
)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,

    #[command(flatten)]
    patience: Patience,
}

/// All are asked for first, then waited for.
pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    let mut goals = Vec::new();
    let asked = for_each(invocation, &args.services, async |invocation, service| {
        let goal = restart(&mut client, service).await?;
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

async fn restart(client: &mut Client, name: &str) -> Result<Goal, Error> {
    let service = converge::read(client, name).await?;
    let mut spec = service.spec.clone().unwrap_or_default();
    if spec.job.as_ref().is_some_and(|job| job.schedule.is_some()) {
        let message = format!(
            "service {} is scheduled: it runs nothing itself and cannot be restarted",
            spec.name
        );
        return Err(Error::refused(message).hint(
            "restart one of its launches, which `clusterctl service ls` shows, or change --schedule",
        ));
    }
    spec.task.get_or_insert_default().force_update += 1;
    let request = UpdateServiceRequest {
        id: service.id.clone(),
        version: service.version,
        spec: Some(spec.clone()),
        remove_tasks: Vec::new(),
    };
    let explain = |error| check::explain(check::Verb::Update, &spec, error);
    let version = client.update_service(request).await.map_err(explain)?.version;
    Ok(Goal::changed(&service, version))
}
