//! `service rollback [--to N] SERVICE`

use cluster_pb::control::v1::RollBackServiceRequest;

use super::converge::{self, Goal, Patience};
use super::version::Expected;
use crate::Invocation;
use crate::error::Error;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Moves the tasks back as --rollback-… of the service says, and waits until \
                        that is done; Ctrl-C detaches. Only what tasks run goes back: replicas, \
                        labels, ports and policies stay."
)]
pub struct Args {
    /// Name, id or beginning of the id
    service: String,

    /// The revision to go to, as `service history` shows them (default: the one before)
    #[arg(long, value_name = "REVISION", value_parser = revision, allow_hyphen_values = true)]
    to: Option<u32>,

    #[command(flatten)]
    expected: Expected,

    #[command(flatten)]
    patience: Patience,
}

/// The number of a revision.
pub fn revision(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err("write a number that `clusterctl service history` shows, such as 1".to_owned()),
    }
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let mut client = invocation.client()?;
    let service = converge::read(&mut client, &args.service).await?;
    args.expected.check(&service)?;
    let request = RollBackServiceRequest {
        id: service.id.clone(),
        version: service.version,
        to: args.to.unwrap_or(0),
    };
    let answer = client.roll_back_service(request).await?;
    invocation.printer.data(&service.id)?;
    if !args.patience.is_quiet() {
        invocation.printer.say(&format!("going back to revision {}", answer.revision));
    }
    let goal = Goal::rolled_back(&service, answer.version);
    converge::wait(invocation, &mut client, &goal, &args.patience).await
}
