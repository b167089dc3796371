//! `cluster ca info|rotate`

mod info;
mod rotate;

use clap::Subcommand;

use crate::Invocation;
use crate::error::Error;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the CA, how long certificates live, and how far a change of the CA is
    Info(info::Args),
    /// Replace the CA: every node gets a new certificate, no task is restarted
    Rotate(rotate::Args),
}

pub async fn run(verb: &Verb, invocation: &mut Invocation) -> Result<(), Error> {
    match verb {
        Verb::Info(args) => info::run(args, invocation).await,
        Verb::Rotate(args) => rotate::run(args, invocation).await,
    }
}
