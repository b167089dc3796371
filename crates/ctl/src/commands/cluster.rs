//! `cluster info|token`

mod info;
mod token;

use clap::Subcommand;

use crate::Invocation;
use crate::error::Error;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the cluster and its managers
    Info(info::Args),
    /// Print the token with which machines join, and how
    Token(token::Args),
}

pub async fn run(verb: &Verb, invocation: &mut Invocation) -> Result<(), Error> {
    match verb {
        Verb::Info(args) => info::run(args, invocation).await,
        Verb::Token(args) => token::run(args, invocation).await,
    }
}
