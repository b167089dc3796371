//! `service update [OPTIONS] SERVICE`: read, change what was asked, write back against the version
//! that was read. A version that moved on meanwhile is an error (E0105), never overwritten.

mod lists;

use cluster_pb::control::v1::UpdateServiceRequest;
use cluster_pb::control::v1::forecast_request::Change;
use cluster_pb::types::v1 as pb;

use super::check;
use super::converge::{self, Goal, Patience};
use super::dry_run::{self, DryRun};
use super::settings::{GROUPS, Settings};
use super::steer::{self, Steer};
use super::version::Expected;
use crate::Invocation;
use crate::error::Error;
use crate::values::words::{Words, words};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Replaces tasks as --update-… says when what they run changes, and waits until \
                        that is done; Ctrl-C detaches. Ends with code 1 and the reason when the \
                        update pauses or is rolled back. An empty value takes back a text, such as \
                        --user '', a probe, and a duration whose help says so; 0 takes back a \
                        limit."
)]
pub struct Args {
    /// Name, id or beginning of the id
    service: String,

    #[command(flatten)]
    change: Content,

    #[command(flatten)]
    lists: lists::Lists,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    wishes: lists::WishLists,

    #[command(flatten)]
    steering: Steering,

    #[command(flatten)]
    expected: Expected,

    #[command(flatten)]
    dry_run: DryRun,

    #[command(flatten)]
    patience: Patience,
}

#[derive(Clone, Debug, clap::Args)]
struct Content {
    /// Run another image
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// Arguments that replace the image's command, split as a shell would
    #[arg(long, value_name = "ARGS", value_parser = words, allow_hyphen_values = true)]
    args: Option<Words>,

    /// Replace all tasks although nothing else changed
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "An update that is under way")]
struct Steering {
    /// Hold the update; slots that have moved stay
    #[arg(
        long,
        conflicts_with_all = GROUPS,
        conflicts_with_all = ["Content", "Lists", "WishLists", "DryRun", "Expected", "resume"]
    )]
    pause: bool,

    /// Go on with an update that is paused
    #[arg(
        long,
        conflicts_with_all = GROUPS,
        conflicts_with_all = ["Content", "Lists", "WishLists", "DryRun", "Expected"]
    )]
    resume: bool,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    if args.steering.pause {
        return steer::run(invocation, &args.service, Steer::Pause, &args.patience).await;
    }
    if args.steering.resume {
        return steer::run(invocation, &args.service, Steer::Resume, &args.patience).await;
    }
    let mut client = invocation.client()?;
    let service = converge::read(&mut client, &args.service).await?;
    args.expected.check(&service)?;
    let before = service.spec.clone().unwrap_or_default();
    let mut spec = before.clone();
    change(&mut spec, args)?;
    check::changed(&before, &spec)?;
    let request = UpdateServiceRequest {
        id: service.id.clone(),
        version: service.version,
        spec: Some(spec.clone()),
        remove_tasks: Vec::new(),
    };
    let explain = |error| check::explain(check::Verb::Update, &spec, error);
    if args.dry_run.dry_run {
        let change = Change::Update(request);
        return dry_run::show(invocation, &mut client, &args.dry_run, change)
            .await
            .map_err(explain);
    }
    let version = client.update_service(request).await.map_err(explain)?.version;
    invocation.printer.data(&service.id)?;
    let goal = Goal::changed(&service, version);
    converge::wait(invocation, &mut client, &goal, &args.patience).await
}

fn change(spec: &mut pb::ServiceSpec, args: &Args) -> Result<(), Error> {
    args.settings.apply(spec)?;
    args.lists.apply(spec)?;
    let task = spec.task.get_or_insert_default();
    args.wishes.apply(task)?;
    if args.change.force {
        task.force_update += 1;
    }
    let container = task.container.get_or_insert_default();
    if let Some(image) = &args.change.image {
        container.image.clone_from(image);
    }
    if let Some(words) = &args.change.args {
        container.args.clone_from(&words.0);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
