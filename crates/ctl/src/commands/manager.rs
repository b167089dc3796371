//! `manager ls|promote|demote|rm`

mod ls;
mod steer;

use clap::Subcommand;

use crate::Invocation;
use crate::error::Error;

pub use ls::heard;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the managers: who leads, votes or stands by, who is heard, and what each lacks
    Ls(ls::Args),
    /// Let a spare vote
    Promote(steer::Args),
    /// Make a voter a spare: it goes on holding the log, and does not vote
    Demote(steer::Args),
    /// Take a manager out of the group; one that runs ends by itself
    Rm(steer::RmArgs),
}

pub async fn run(verb: &Verb, invocation: &mut Invocation) -> Result<(), Error> {
    match verb {
        Verb::Ls(args) => ls::run(args, invocation).await,
        Verb::Promote(args) => steer::run("promote", args, invocation).await,
        Verb::Demote(args) => steer::run("demote", args, invocation).await,
        Verb::Rm(args) => steer::rm(args, invocation).await,
    }
}

#[cfg(test)]
mod tests;
