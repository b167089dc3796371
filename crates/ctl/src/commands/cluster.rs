//! `cluster info|snapshot|token|update`

mod info;
mod snapshot;
mod token;
mod update;

use clap::Subcommand;

use crate::Invocation;
use crate::error::Error;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the cluster and its managers
    Info(info::Args),
    /// Print the token with which machines join, and how
    Token(token::Args),
    /// Change settings of the whole cluster
    Update(update::Args),
    /// The whole state as a file: save it, look into it, begin anew from it
    #[command(subcommand)]
    Snapshot(snapshot::Verb),
}

pub async fn run(verb: &Verb, invocation: &mut Invocation) -> Result<(), Error> {
    match verb {
        Verb::Info(args) => info::run(args, invocation).await,
        Verb::Token(args) => token::run(args, invocation).await,
        Verb::Update(args) => update::run(args, invocation).await,
        Verb::Snapshot(verb) => snapshot::run(verb, invocation).await,
    }
}
