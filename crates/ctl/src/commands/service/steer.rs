//! `service promote`, and `service update --pause|--resume`: a user's word on a rollout.

use cluster_pb::control::v1::SteerRolloutRequest;

use super::converge::{self, Goal, Patience};
use crate::Invocation;
use crate::error::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    Pause,
    Resume,
    Promote,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Says that the canaries are good: the other slots move, under the update \
                        policy. Waits until that is done; Ctrl-C detaches.")]
pub struct PromoteArgs {
    /// Name, id or beginning of the id
    service: String,

    #[command(flatten)]
    patience: Patience,
}

pub async fn promote(args: &PromoteArgs, invocation: &mut Invocation) -> Result<(), Error> {
    run(invocation, &args.service, Steer::Promote, &args.patience).await
}

pub async fn run(
    invocation: &mut Invocation,
    service: &str,
    steer: Steer,
    patience: &Patience,
) -> Result<(), Error> {
    let word = match steer {
        Steer::Pause => "pause",
        Steer::Resume => "resume",
        Steer::Promote => "promote",
    };
    let mut client = invocation.client()?;
    let service = converge::read(&mut client, service).await?;
    let request = SteerRolloutRequest { service: service.id.clone(), steer: word.to_owned() };
    let index = client.steer_rollout(request).await?.version;
    invocation.printer.data(&service.id)?;
    if steer == Steer::Pause {
        return Ok(());
    }
    let goal = Goal::steered(&service, index);
    converge::wait(invocation, &mut client, &goal, patience).await
}
