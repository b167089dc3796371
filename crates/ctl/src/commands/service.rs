//! `service create|ls|ps|inspect|scale|update|rollback|history|diff|promote|restart|rm|logs`

mod check;
mod converge;
mod create;
mod diff;
mod dry_run;
mod history;
mod inspect;
mod logs;
mod ls;
mod ps;
mod restart;
mod rm;
mod rollback;
mod scale;
mod settings;
mod steer;
mod update;
mod version;

use clap::Subcommand;

pub use self::dry_run::{DryRun, show as show_forecast};
pub use self::settings::placement::Strategy;
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
    /// Go back to an older revision and wait until it runs
    Rollback(rollback::Args),
    /// List the revisions of a service that are kept
    History(history::Args),
    /// Show what two revisions of a service run differently
    Diff(diff::Args),
    /// Say that the canaries of an update are good, and wait until it is done
    Promote(steer::PromoteArgs),
    /// Replace every task under the update policy, and wait until that is done
    Restart(restart::Args),
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
        Verb::Rollback(args) => rollback::run(args, invocation).await,
        Verb::History(args) => history::run(args, invocation).await,
        Verb::Diff(args) => diff::run(args, invocation).await,
        Verb::Promote(args) => steer::promote(args, invocation).await,
        Verb::Restart(args) => restart::run(args, invocation).await,
        Verb::Rm(args) => rm::run(args, invocation).await,
        Verb::Logs(args) => logs::run(args, invocation).await,
    }
}

#[cfg(test)]
mod tests;
