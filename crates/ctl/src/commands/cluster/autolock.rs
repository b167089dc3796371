//! `cluster autolock on|off`

use clap::ValueEnum;
use cluster_pb::control::v1::UpdateSecurityRequest;

use crate::Invocation;
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_name = "on|off")]
    lock: Lock,

    /// Print the unlock key only
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lock {
    /// Lock; prints the unlock key
    On,
    /// Managers start without a key again
    Off,
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let on = args.lock == Lock::On;
    let request = UpdateSecurityRequest { autolock: Some(on), ..Default::default() };
    let key = invocation.client()?.update_security(request).await?.unlock_key;
    if !on {
        invocation.printer.say("managers start without a key again");
        return Ok(());
    }
    if !args.quiet {
        invocation.printer.say(
            "Managers ask for this key when they start. Keep it away from their machines, and take \
             admin.json off them too: whoever has that file can ask for the key.\n\
             To unlock one, on its machine: cluster-manager unlock --data-dir DIR\n",
        );
    }
    invocation.printer.data(&key)
}
