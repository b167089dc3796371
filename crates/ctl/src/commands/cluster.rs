//! `cluster init|info|snapshot|token|update|ca|autolock|unlock-key`

mod autolock;
mod ca;
mod info;
mod init;
mod snapshot;
mod token;
mod unlock_key;
mod update;

use clap::Subcommand;

use crate::Invocation;
use crate::error::Error;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Set up a cluster on machines that are reached with ssh
    ///
    /// The packages must be installed there. Each machine runs its own `cluster-manager init`,
    /// `cluster-manager join` or `cluster-worker join`; ssh must log in without a password (keys or an
    /// agent), as root or as a user who may use sudo without one. The context is imported here. When a
    /// step fails, set right what it says and give the same command again: it goes on from there.
    Init(init::Args),
    /// Show the cluster and its managers
    Info(info::Args),
    /// Print the token with which machines join, and how
    Token(token::Args),
    /// Change settings of the whole cluster
    Update(update::Args),
    /// The whole state as a file: save it, look into it, begin anew from it
    #[command(subcommand)]
    Snapshot(snapshot::Verb),
    /// The certificate authority: see it, replace it
    #[command(subcommand)]
    Ca(ca::Verb),
    /// Lock the managers' data folders, or open the lock
    ///
    /// With the lock on, a manager that starts serves nothing until it is given the unlock key:
    /// whoever takes its disk has neither the state nor the keys in it.
    Autolock(autolock::Args),
    /// Print the key that a locked manager needs when it starts
    UnlockKey(unlock_key::Args),
}

pub async fn run(verb: &Verb, invocation: &mut Invocation) -> Result<(), Error> {
    match verb {
        Verb::Init(args) => init::run(args, invocation).await,
        Verb::Info(args) => info::run(args, invocation).await,
        Verb::Token(args) => token::run(args, invocation).await,
        Verb::Update(args) => update::run(args, invocation).await,
        Verb::Snapshot(verb) => snapshot::run(verb, invocation).await,
        Verb::Ca(verb) => ca::run(verb, invocation).await,
        Verb::Autolock(args) => autolock::run(args, invocation).await,
        Verb::UnlockKey(args) => unlock_key::run(args, invocation).await,
    }
}
