//! `service create|ls|ps|inspect|scale|update|rm|logs`

mod converge;
mod create;
mod inspect;
mod logs;
mod ls;
mod ps;
mod rm;
mod scale;
mod settings;
mod update;

use clap::Subcommand;

use crate::Invocation;
use crate::error::Error;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a service and wait until it runs
    Create(Box<create::Args>),
    /// List services
    Ls(ls::Args),
    /// List the tasks of services, the newest of each slot first
    Ps(ps::Args),
    /// Show everything about a service
    Inspect(inspect::Args),
    /// Set the number of replicas of services
    Scale(scale::Args),
    /// Change a service and wait until the change runs
    Update(Box<update::Args>),
    /// Remove services
    Rm(rm::Args),
    /// Print what the tasks of a service, or one task, wrote
    Logs(logs::Args),
}

pub async fn run(verb: &Verb, invocation: &mut Invocation) -> Result<(), Error> {
    match verb {
        Verb::Create(args) => create::run(args, invocation).await,
        Verb::Ls(args) => ls::run(args, invocation).await,
        Verb::Ps(args) => ps::run(args, invocation).await,
        Verb::Inspect(args) => inspect::run(args, invocation).await,
        Verb::Scale(args) => scale::run(args, invocation).await,
        Verb::Update(args) => update::run(args, invocation).await,
        Verb::Rm(args) => rm::run(args, invocation).await,
        Verb::Logs(args) => logs::run(args, invocation).await,
    }
}

#[cfg(test)]
mod tests;
