//! `manager promote|demote|rm MANAGER…`

use cluster_pb::control::v1::ChangeManagerRequest;

use crate::Invocation;
use crate::commands::for_each;
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "MANAGER")]
    managers: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct RmArgs {
    #[command(flatten)]
    which: Args,

    /// Also a manager that votes and is heard
    #[arg(long, short)]
    force: bool,
}

pub async fn run(change: &str, args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    steer(change, args, false, invocation).await
}

pub async fn rm(args: &RmArgs, invocation: &mut Invocation) -> Result<(), Error> {
    steer("remove", &args.which, args.force, invocation).await
}

async fn steer(
    change: &str,
    args: &Args,
    force: bool,
    invocation: &mut Invocation,
) -> Result<(), Error> {
    let mut client = invocation.client()?;
    for_each(invocation, &args.managers, async |invocation, name| {
        let change = change.to_owned();
        let request = ChangeManagerRequest { manager: name.clone(), change, force };
        let changed = client.change_manager(request).await?;
        invocation.printer.data(&changed.id)?;
        invocation.printer.say(&changed.done);
        Ok(())
    })
    .await
}
